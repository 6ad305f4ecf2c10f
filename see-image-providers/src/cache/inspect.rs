//! What an image is, told from its header: no error page, and nothing that points outside itself.

mod vhd;
mod vmdk;

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use see_core::{Error, ErrorKind, Result};

use super::unpack::Packing;

/// How many of the first bytes tell text from an image.
pub(crate) const TOLD_BY: usize = 512;
/// How much of it an error shows.
const SHOWN: usize = 80;

/// Tells the format of a complete image: QEMU's name of it.
pub(crate) fn format_of(file: &File) -> Result<&'static str> {
    let bytes = Bytes::of(file)?;
    let head = bytes.up_to(0, TOLD_BY)?;
    if head.is_empty() {
        return Err(refused("the image is empty").advice("look at what the server has there"));
    }
    if let Some(packing) = Packing::of(&head) {
        return Err(
            refused(format!("the image is packed with {}", packing.name()))
                .advice("`unpack: true` unpacks it while it is downloaded"),
        );
    }
    if head.starts_with(b"QFI\xfb") {
        qcow2(&bytes)?;
        return Ok("qcow2");
    }
    if head.starts_with(b"QED\0") {
        const BACKING: u64 = 1;
        if bytes.u64_le(16)? & BACKING != 0 {
            return Err(outside("a backing file"));
        }
        return Ok("qed");
    }
    if head.starts_with(b"KDMV") {
        vmdk::check(&bytes)?;
        return Ok("vmdk");
    }
    if head.starts_with(b"COWD") || vmdk::is_description(&head) {
        return Err(outside("the files that a VMDK description names"));
    }
    if bytes.u32_le(0x40).ok() == Some(0xbeda_107f) {
        vdi(&bytes)?;
        return Ok("vdi");
    }
    if head.starts_with(b"vhdxfile") {
        vhd::check_vhdx(&bytes)?;
        return Ok("vhdx");
    }
    if vhd::is_vhd(&bytes)? {
        vhd::check(&bytes)?;
        return Ok("vpc");
    }
    refuse_text(&head)?;
    for (magic, name) in [
        (&b"LUKS\xba\xbe"[..], "luks"),
        (b"WithoutFreeSpace", "parallels"),
        (b"WithouFreSpacExt", "parallels"),
    ] {
        if head.starts_with(magic) {
            return Ok(name);
        }
    }
    Ok("raw")
}

/// Refuses what begins with text: an error page, a listing, a login.
pub(crate) fn refuse_text(head: &[u8]) -> Result<()> {
    let head = &head[..head.len().min(TOLD_BY)];
    let Some(text) = text_of(head) else {
        return Ok(());
    };
    if vmdk::is_description(head) {
        return Err(outside("the files that a VMDK description names"));
    }
    let begins = text.trim_start_matches('\u{feff}').trim_start();
    let what = match begins.chars().next() {
        None => return Ok(()),
        Some('<') => "HTML or XML",
        Some('{' | '[') => "JSON",
        Some(_) => "text",
    };
    let shown: String = begins.chars().take(SHOWN).collect();
    let more = if begins.chars().nth(SHOWN).is_some() {
        "…"
    } else {
        ""
    };
    Err(refused(format!(
        "found {what} where the image should be, beginning with `{}{more}`",
        shown.escape_debug()
    ))
    .advice(
        "the server answers with a page instead of the image: check the address and the rights",
    ))
}

/// The bytes as text, where they are nothing else.
fn text_of(head: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // A character may be cut at the end.
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(&head[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let is_text = |c: char| !c.is_control() || matches!(c, '\t' | '\n' | '\r' | '\u{c}');
    (!text.is_empty() && text.chars().all(is_text)).then_some(text)
}

fn qcow2(bytes: &Bytes<'_>) -> Result<()> {
    let version = bytes.u32_be(4)?;
    if !(1..=3).contains(&version) {
        return Err(
            refused(format!("the image is qcow of the version {version}"))
                .advice("expected 2 or 3, or 1 of old"),
        );
    }
    if bytes.u64_be(8)? != 0 {
        return Err(outside("a backing file"));
    }
    const DATA_FILE: u64 = 1 << 2;
    if version == 3 && bytes.u64_be(72)? & DATA_FILE != 0 {
        return Err(outside("an external data file"));
    }
    Ok(())
}

fn vdi(bytes: &Bytes<'_>) -> Result<()> {
    const DYNAMIC: u32 = 1;
    const FIXED: u32 = 2;
    let kind = bytes.u32_le(0x4c)?;
    let mut parents = [0; 32];
    bytes.exactly(0x1a8, &mut parents)?;
    if !matches!(kind, DYNAMIC | FIXED) || parents != [0; 32] {
        return Err(outside("the parent of a differencing VDI"));
    }
    Ok(())
}

fn outside(what: &str) -> Error {
    refused(format!("the image is not whole: it points at {what}"))
        .advice("make it whole at its server, such as with `qemu-img convert -O qcow2`")
}

fn refused(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Guest, message)
}

/// An image's bytes, read where a header says and no further than they go.
struct Bytes<'a> {
    file: &'a File,
    length: u64,
}

impl<'a> Bytes<'a> {
    fn of(file: &'a File) -> Result<Self> {
        let found = file.metadata().map_err(unreadable)?;
        Ok(Self {
            file,
            length: found.len(),
        })
    }

    fn up_to(&self, start: u64, count: usize) -> Result<Vec<u8>> {
        let there = self.length.saturating_sub(start);
        let mut bytes = vec![0; count.min(usize::try_from(there).unwrap_or(count))];
        self.file
            .read_exact_at(&mut bytes, start)
            .map_err(unreadable)?;
        Ok(bytes)
    }

    fn exactly(&self, start: u64, into: &mut [u8]) -> Result<()> {
        let end = start.checked_add(into.len() as u64);
        if end.is_none_or(|end| end > self.length) {
            return Err(refused("the image is cut off inside its header")
                .advice("look at what the server has there"));
        }
        self.file.read_exact_at(into, start).map_err(unreadable)
    }

    fn array<const N: usize>(&self, start: u64) -> Result<[u8; N]> {
        let mut array = [0; N];
        self.exactly(start, &mut array)?;
        Ok(array)
    }

    fn u16_le(&self, at: u64) -> Result<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    fn u32_le(&self, at: u64) -> Result<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64_le(&self, at: u64) -> Result<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    fn u32_be(&self, at: u64) -> Result<u32> {
        self.array(at).map(u32::from_be_bytes)
    }

    fn u64_be(&self, at: u64) -> Result<u64> {
        self.array(at).map(u64::from_be_bytes)
    }
}

fn unreadable(error: std::io::Error) -> Error {
    Error::io("the image cannot be read", error)
}

#[cfg(test)]
mod tests;

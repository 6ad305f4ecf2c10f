//! What a disk image is, told from its own bytes: the one inspector, for images that are fetched and for those that
//! are run.
//!
//! QEMU is always told the format, so it guesses nothing. Refused is what would make it open other files, what it has
//! no passphrase for, what another program is writing, and what is broken as far as the header and tables tell. What a
//! header says is read with distrust: no offset is followed beyond the end of the file, and no table without a bound.

mod bytes;
mod locks;
mod qcow2;
mod virtual_pc;

use std::borrow::Cow;
use std::fs::File;
use std::path::Path;

use self::bytes::Bytes;
use crate::{Error, ErrorKind, Result};

/// How many of the first bytes tell text from an image.
const HEAD: usize = 512;
/// How much of a text an error shows, in characters.
const SHOWN: usize = 80;

/// The formats that a disk image may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// QEMU's own, of the versions 2 and 3.
    Qcow2,
    /// The bytes of the disk.
    Raw,
    /// VirtualBox's.
    Vdi,
    /// Hyper-V's.
    Vhdx,
    /// Virtual PC's, which is VHD.
    Vpc,
}

/// Formats that are known and not taken: their names, signatures and the signatures' offsets.
const REFUSED: &[(&str, &[u8], usize)] = &[
    ("VMDK", b"KDMV", 0),
    ("VMDK", b"COWD", 0),
    ("VMDK description", b"# Disk DescriptorFile", 0),
    ("QED", b"QED\0", 0),
    ("Parallels", b"WithoutFreeSpace", 0),
    ("Parallels", b"WithouFreSpacExt", 0),
    ("cloop", b"#!/bin/sh\n#V2.0 Format", 0),
    ("gzip", b"\x1f\x8b", 0),
    ("xz", b"\xfd7zXZ\0", 0),
    ("bzip2", b"BZh", 0),
    ("Zstandard", b"\x28\xb5\x2f\xfd", 0),
    ("ZIP", b"PK\x03\x04", 0),
    ("7z", b"7z\xbc\xaf\x27\x1c", 0),
    ("OVA (tar)", b"ustar", 257),
];

impl ImageFormat {
    /// QEMU's name of it, as in `<driver type=…>` and `qemu-img -F`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vdi => "vdi",
            Self::Vhdx => "vhdx",
            Self::Vpc => "vpc",
        }
    }

    /// The format of a whole image. Blocks while a few of its bytes are read.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`], with advice, for what is no image or none that can be taken: empty, text, of an
    /// unknown format, dependent on another file, encrypted, open for writing elsewhere, damaged or cut off.
    /// Otherwise what the file system reports.
    pub fn of(file: &File) -> Result<Self> {
        let bytes = Bytes::of(file)?;
        let head = bytes.up_to(0, HEAD)?;
        if head.is_empty() {
            return Err(refused("the disk image is empty").advice("look where it comes from"));
        }
        let format = of_header(&bytes, &head)?;
        if locks::is_open_for_writing(file)? {
            return Err(
                refused("the disk image is open for writing by another program")
                    .advice("shut the machine down that uses it, or give a copy"),
            );
        }
        Ok(format)
    }

    /// The same of the file at a path, which errors name.
    ///
    /// # Errors
    /// As [`of`](Self::of).
    pub fn of_path(path: &Path) -> Result<Self> {
        let file =
            File::open(path).map_err(|error| Error::io("the disk image cannot be read", error));
        file.and_then(|file| Self::of(&file))
            .map_err(|error| error.subject(path.display()))
    }

    /// Refuses what begins with text, such as a server's error page in the place of an image. The first 512 bytes are
    /// enough.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`], which quotes its beginning.
    pub fn refuse_text(head: &[u8]) -> Result<()> {
        let head = &head[..head.len().min(HEAD)];
        let Some(text) = text_of(head) else {
            return Ok(());
        };
        let begins = text.trim_start_matches('\u{feff}').trim_start();
        let what = match begins.chars().next() {
            None => return Ok(()),
            Some('<') => "HTML or XML",
            Some('{' | '[') => "JSON",
            Some(_) => "text",
        };
        let shown: String = begins.chars().take(SHOWN).collect();
        let more = match begins.chars().nth(SHOWN) {
            Some(_) => "…",
            None => "",
        };
        Err(refused(format!(
            "found {what} where the disk image should be, beginning with `{}{more}`",
            shown.escape_debug()
        ))
        .advice("a server may have sent a page instead of it: check the address and the rights"))
    }
}

fn of_header(bytes: &Bytes<'_>, head: &[u8]) -> Result<ImageFormat> {
    if head.starts_with(b"QFI\xfb") {
        qcow2::check(bytes)?;
        return Ok(ImageFormat::Qcow2);
    }
    if head.starts_with(b"vhdxfile") {
        virtual_pc::check_vhdx(bytes)?;
        return Ok(ImageFormat::Vhdx);
    }
    if head.get(0x40..0x44) == Some(&[0x7f, 0x10, 0xda, 0xbe]) {
        check_vdi(bytes)?;
        return Ok(ImageFormat::Vdi);
    }
    if virtual_pc::is_vhd(bytes) {
        virtual_pc::check_vhd(bytes)?;
        return Ok(ImageFormat::Vpc);
    }
    if head.starts_with(b"LUKS\xba\xbe") {
        return Err(encrypted("LUKS"));
    }
    for (name, signature, offset) in REFUSED {
        if head.get(*offset..offset + signature.len()) == Some(signature) {
            return Err(refused(format!(
                "the disk image is {name}, which is not taken as it is"
            ))
            .advice(
                "turn it into qcow2, with `qemu-img convert -O qcow2` where that can read it",
            ));
        }
    }
    ImageFormat::refuse_text(head)?;
    Ok(ImageFormat::Raw)
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

fn check_vdi(bytes: &Bytes<'_>) -> Result<()> {
    const DYNAMIC: u32 = 1;
    const FIXED: u32 = 2;
    let kind = bytes.u32_le(0x4c)?;
    let parents: [u8; 32] = bytes.array(0x1a8)?;
    if !matches!(kind, DYNAMIC | FIXED) || parents != [0; 32] {
        return Err(outside("the parent of a differencing VDI"));
    }
    let (data, block) = (bytes.u32_le(0x158)?, bytes.u32_le(0x178)?);
    let allocated = u64::from(bytes.u32_le(0x184)?) * u64::from(block);
    if u64::from(data).saturating_add(allocated) > bytes.length() {
        return Err(cut_off());
    }
    Ok(())
}

fn outside(what: &str) -> Error {
    refused(format!("the disk image depends on {what}"))
        .advice("make it whole with `qemu-img convert -O qcow2`")
}

fn encrypted(how: &str) -> Error {
    refused(format!(
        "the disk image is encrypted ({how}), and there is no passphrase for it"
    ))
    .advice("decrypt it with `qemu-img convert --object secret,…`")
}

fn damaged(what: impl std::fmt::Display) -> Error {
    refused(format!("the disk image is damaged: {what}"))
        .advice("`qemu-img check -r all` repairs a copy of it where that can be done")
}

fn cut_off() -> Error {
    refused("the disk image is cut off: data that it should have lie beyond its end")
        .advice("copy or fetch it again, and compare its length with the original's")
}

fn cut_off_inside_header() -> Error {
    refused("the disk image is cut off inside its header").advice("look where it comes from")
}

fn refused(message: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Configuration, message)
}

#[cfg(test)]
mod tests;

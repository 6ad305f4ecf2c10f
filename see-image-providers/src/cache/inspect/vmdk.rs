//! VMDK: an image whose description may name any file of the host.

use see_core::Result;

use super::{Bytes, outside, refused};

const SECTOR: u64 = 512;
/// The longest description that is read.
const LONGEST: u64 = 64 << 10;
/// How much QEMU reads of one after the first sector.
const USUAL_LENGTH: usize = 20 * SECTOR as usize;
const PARENT: &[u8] = b"parentFileNameHint";

/// Whether it is a description without an image: each of its extents is another file.
pub(super) fn is_description(head: &[u8]) -> bool {
    let text = String::from_utf8_lossy(head);
    text.lines()
        .find(|line| !line.trim().is_empty())
        .is_some_and(|line| line.trim().starts_with("# Disk DescriptorFile"))
}

/// Refuses a sparse extent whose own description leads elsewhere.
pub(super) fn check(bytes: &Bytes<'_>) -> Result<()> {
    // Without a capacity of its own, an emulator follows the description instead.
    if bytes.u64_le(12)? == 0 {
        return Err(outside("the files that a VMDK description names"));
    }
    let (start, length) = (bytes.u64_le(28)?, bytes.u64_le(36)?);
    if start == 0 || length == 0 {
        return Err(outside("a VMDK description of its own"));
    }
    let length = length.saturating_mul(SECTOR);
    if length > LONGEST {
        return Err(refused(format!(
            "the description of the VMDK has {length} bytes, at most {LONGEST} are read"
        )));
    }
    let start = start.saturating_mul(SECTOR);
    let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
    bytes.exactly(start, &mut text)?;
    // QEMU looks for a parent wherever the word stands, and at the usual place, whatever the header says.
    let usual = bytes.up_to(SECTOR, USUAL_LENGTH)?;
    if names_parent(&text) || names_parent(&usual) {
        return Err(outside(
            "a parent, by `parentFileNameHint` in its VMDK description",
        ));
    }
    let end = text
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(text.len());
    follow(&String::from_utf8_lossy(&text[..end]))
}

/// Whether the key of a parent stands anywhere.
fn names_parent(text: &[u8]) -> bool {
    let mut windows = text.windows(PARENT.len());
    windows.any(|window| window.eq_ignore_ascii_case(PARENT))
}

fn follow(description: &str) -> Result<()> {
    let mut sparse = 0;
    for line in description.lines() {
        let line = line.trim();
        if let Some((key, value)) = line.split_once('=') {
            let value = value.trim().trim_matches('"');
            let key = key.trim().to_ascii_lowercase();
            let is_whole = match key.as_str() {
                "parentcid" => value.eq_ignore_ascii_case("ffffffff"),
                "parentfilenamehint" => false,
                "createtype" => ["monolithicSparse", "streamOptimized"]
                    .iter()
                    .any(|whole| value.eq_ignore_ascii_case(whole)),
                _ => true,
            };
            if !is_whole {
                let shown: String = line.chars().take(80).collect();
                return Err(outside(&format!(
                    "other files, by `{}` in its VMDK description",
                    shown.escape_debug()
                )));
            }
        }
        let mut words = line.split_whitespace();
        if let Some("RW" | "RDONLY" | "NOACCESS") = words.next() {
            match words.nth(1) {
                Some("SPARSE") => sparse += 1,
                Some("ZERO") => {}
                kind => {
                    let kind = kind.unwrap_or("none").escape_debug().to_string();
                    return Err(outside(&format!("the file of a VMDK extent, {kind}")));
                }
            }
        }
    }
    if sparse > 1 {
        return Err(outside("the files of further VMDK extents"));
    }
    Ok(())
}

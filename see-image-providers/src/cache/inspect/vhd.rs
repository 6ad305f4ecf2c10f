//! VHD and VHDX: a differencing disk is made of its parent's file too.

use see_core::Result;

use super::{Bytes, outside, refused};

const MAGIC: &[u8; 8] = b"conectix";
const FOOTER: u64 = 512;

fn has_magic(bytes: &Bytes<'_>, at: u64) -> bool {
    bytes.array::<8>(at).is_ok_and(|found| found == *MAGIC)
}

/// Whether it is a VHD, told by the footer that a fixed one has alone.
pub(super) fn is_vhd(bytes: &Bytes<'_>) -> Result<bool> {
    let footer = bytes.length.checked_sub(FOOTER);
    Ok(has_magic(bytes, 0) || footer.is_some_and(|at| has_magic(bytes, at)))
}

/// Refuses a differencing VHD, whichever of its two descriptions says so.
pub(super) fn check(bytes: &Bytes<'_>) -> Result<()> {
    const FIXED: u32 = 2;
    const DYNAMIC: u32 = 3;
    let footer = bytes.length.checked_sub(FOOTER);
    for at in [Some(0), footer].into_iter().flatten() {
        if has_magic(bytes, at) && !matches!(bytes.u32_be(at + 60)?, FIXED | DYNAMIC) {
            return Err(outside("the parent of a differencing VHD"));
        }
    }
    Ok(())
}

/// Refuses a differencing VHDX.
pub(super) fn check_vhdx(bytes: &Bytes<'_>) -> Result<()> {
    const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
    const METADATA_REGION: [u8; 16] = [
        0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88,
        0x6e,
    ];
    const FILE_PARAMETERS: [u8; 16] = [
        0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7,
        0x6b,
    ];
    const HAS_PARENT: u32 = 1 << 1;
    let mut found = false;
    // An emulator takes whichever copy is valid.
    for table in REGIONS {
        if bytes.array::<4>(table).ok().as_ref() != Some(b"regi") {
            continue;
        }
        let count = bytes.u32_le(table + 8)?.min(2047);
        for region in entries(bytes, table + 16, u64::from(count), METADATA_REGION)? {
            let metadata = bytes.u64_le(region + 16)?;
            if bytes.array::<8>(metadata)? != *b"metadata" {
                continue;
            }
            let count = bytes.u16_le(metadata.saturating_add(10))?.min(2047);
            let first = metadata.saturating_add(32);
            for item in entries(bytes, first, u64::from(count), FILE_PARAMETERS)? {
                let offset = u64::from(bytes.u32_le(item + 16)?);
                let flags = bytes.u32_le(metadata.saturating_add(offset).saturating_add(4))?;
                if flags & HAS_PARENT != 0 {
                    return Err(outside("the parent of a differencing VHDX"));
                }
                found = true;
            }
        }
    }
    if !found {
        return Err(refused("the image is a VHDX without its own description")
            .advice("look at what the server has there"));
    }
    Ok(())
}

/// Where the entries with this name stand, in a table of 32 bytes each.
fn entries(bytes: &Bytes<'_>, first: u64, count: u64, name: [u8; 16]) -> Result<Vec<u64>> {
    let mut found = Vec::new();
    for index in 0..count {
        let at = first.saturating_add(index * 32);
        if bytes.array::<16>(at)? == name {
            found.push(at);
        }
    }
    Ok(found)
}

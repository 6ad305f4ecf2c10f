//! VHD and VHDX: a differencing disk is made of its parent's file too.

use super::bytes::Bytes;
use super::{cut_off, damaged, outside};
use crate::Result;

const MAGIC: &[u8; 8] = b"conectix";
const FOOTER: u64 = 512;

fn has_magic(bytes: &Bytes<'_>, at: u64) -> bool {
    bytes.array::<8>(at).is_ok_and(|found| found == *MAGIC)
}

/// Whether it is a VHD, told by the footer that a fixed one has alone.
pub(super) fn is_vhd(bytes: &Bytes<'_>) -> bool {
    let footer = bytes.length().checked_sub(FOOTER);
    has_magic(bytes, 0) || footer.is_some_and(|at| has_magic(bytes, at))
}

/// Refuses a differencing VHD, whichever of its two descriptions says so, and one without the second.
pub(super) fn check_vhd(bytes: &Bytes<'_>) -> Result<()> {
    const FIXED: u32 = 2;
    const DYNAMIC: u32 = 3;
    let footer = bytes.length().checked_sub(FOOTER);
    for at in [Some(0), footer].into_iter().flatten() {
        if has_magic(bytes, at) && !matches!(bytes.u32_be(at + 60)?, FIXED | DYNAMIC) {
            return Err(outside("the parent of a differencing VHD"));
        }
    }
    // Old Virtual PC wrote one of 511 bytes.
    let ends = [FOOTER, FOOTER - 1].into_iter();
    let has_footer = ends
        .filter_map(|length| bytes.length().checked_sub(length))
        .any(|at| has_magic(bytes, at));
    match has_footer {
        true => Ok(()),
        false => Err(cut_off()),
    }
}

/// Refuses a differencing VHDX.
pub(super) fn check_vhdx(bytes: &Bytes<'_>) -> Result<()> {
    const REGIONS: [u64; 2] = [192 << 10, 256 << 10];
    const METADATA_REGION: [u8; 16] = [
        0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88,
        0x6e,
    ];
    const BLOCKS_REGION: [u8; 16] = [
        0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42, 0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a,
        0x08,
    ];
    const FILE_PARAMETERS: [u8; 16] = [
        0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7,
        0x6b,
    ];
    const HAS_PARENT: u32 = 1 << 1;
    let mut block = None;
    // An emulator takes whichever copy is valid.
    for table in REGIONS {
        if bytes.array::<4>(table).ok().as_ref() != Some(b"regi") {
            continue;
        }
        let count = bytes.u32_le(table + 8)?.min(2047);
        for index in 0..u64::from(count) {
            let entry = table + 16 + index * 32;
            let (start, length) = (bytes.u64_le(entry + 16)?, bytes.u32_le(entry + 24)?);
            let end = start.checked_add(u64::from(length));
            if end.is_none_or(|end| end > bytes.length()) {
                return Err(cut_off());
            }
        }
        for region in entries(bytes, table + 16, u64::from(count), METADATA_REGION)? {
            let metadata = bytes.u64_le(region + 16)?;
            if bytes.array::<8>(metadata)? != *b"metadata" {
                continue;
            }
            let count = bytes.u16_le(metadata.saturating_add(10))?.min(2047);
            let first = metadata.saturating_add(32);
            for item in entries(bytes, first, u64::from(count), FILE_PARAMETERS)? {
                let offset = u64::from(bytes.u32_le(item + 16)?);
                let parameters = metadata.saturating_add(offset);
                if bytes.u32_le(parameters.saturating_add(4))? & HAS_PARENT != 0 {
                    return Err(outside("the parent of a differencing VHDX"));
                }
                block = Some(bytes.u32_le(parameters)?);
            }
        }
        for region in entries(bytes, table + 16, u64::from(count), BLOCKS_REGION)? {
            let (start, length) = (bytes.u64_le(region + 16)?, bytes.u32_le(region + 24)?);
            reaches(bytes, (start, length), block.unwrap_or_default())?;
        }
    }
    match block {
        Some(_) => Ok(()),
        None => Err(damaged("it is a VHDX without its own description")),
    }
}

/// Refuses a VHDX that ends before one of its blocks, of so many bytes each, does.
fn reaches(bytes: &Bytes<'_>, (start, length): (u64, u32), block: u32) -> Result<()> {
    /// As much of the table as is read: that of 2 TiB in blocks of 1 MiB.
    const LONGEST: u32 = 16 << 20;
    const PRESENT: u64 = 6;
    let table = bytes.up_to(start, length.min(LONGEST) as usize)?;
    let is_cut_off = table.chunks_exact(8).any(|entry| {
        let entry = u64::from_le_bytes(entry.try_into().unwrap_or_default());
        // The state is in the lowest bits, and the place counts in MiB.
        let place = entry >> 20 << 20;
        entry & 7 == PRESENT && place.saturating_add(u64::from(block)) > bytes.length()
    });
    match is_cut_off {
        true => Err(cut_off()),
        false => Ok(()),
    }
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

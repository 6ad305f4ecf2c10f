//! qcow2: its header, and whether the file reaches as far as its tables say.

use super::bytes::Bytes;
use super::{cut_off, damaged, encrypted, outside, refused};
use crate::Result;

/// The bits of `incompatible_features` in the order of their numbers.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;
const KNOWN: u64 = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION | EXTENDED_L2;

/// QEMU's own bounds: of a table of reference counts and of a first-level table, in bytes.
const LONGEST_COUNTS: u64 = 8 << 20;
const LONGEST_L1: u64 = 32 << 20;

/// Refuses an image that depends on another file, is encrypted, or is damaged.
pub(super) fn check(bytes: &Bytes<'_>) -> Result<()> {
    let version = bytes.u32_be(4)?;
    if !(2..=3).contains(&version) {
        return Err(refused(format!(
            "the disk image is qcow of the unknown version {version}"
        ))
        .advice("known are 2 and 3: `qemu-img convert -O qcow2` makes such of older ones"));
    }
    if bytes.u64_be(8)? != 0 {
        return Err(outside("a backing file"));
    }
    match bytes.u32_be(32)? {
        0 => {}
        1 => return Err(encrypted("AES")),
        _ => return Err(encrypted("LUKS")),
    }
    // The second version has no features, and counts references in 16 bits.
    let (features, order) = match version {
        2 => (0, 4),
        _ => (bytes.u64_be(72)?, bytes.u32_be(96)?),
    };
    if features & EXTERNAL_DATA != 0 {
        return Err(outside("another file for its data"));
    }
    if features & CORRUPT != 0 {
        return Err(damaged("QEMU marked it as corrupt"));
    }
    if features & DIRTY != 0 {
        return Err(refused(
            "the disk image was not closed in order: its reference counts were not written",
        )
        .advice("`qemu-img check -r all` writes those of a copy"));
    }
    if features & !KNOWN != 0 {
        return Err(refused(format!(
            "the disk image has unknown features of qcow2: {:#x}",
            features & !KNOWN
        ))
        .advice("convert it with the `qemu-img` that made it, to `compat=1.1`"));
    }
    reaches(bytes, order)
}

/// Refuses an image whose tables lead beyond its end. The last cluster with a reference count is the last one that is
/// in use, so two tables and one block tell, however large the image is.
fn reaches(bytes: &Bytes<'_>, order: u32) -> Result<()> {
    let bits = bytes.u32_be(20)?;
    if !(9..=21).contains(&bits) || order > 6 {
        return Err(damaged("its header says impossible sizes"));
    }
    let cluster = 1_u64 << bits;
    let ends_in_file = |start: u64, length: u64| {
        let end = start.checked_add(length);
        end.is_some_and(|end| end <= bytes.length())
    };
    let (l1_length, l1) = (u64::from(bytes.u32_be(36)?) * 8, bytes.u64_be(40)?);
    let (counts, clusters) = (bytes.u64_be(48)?, u64::from(bytes.u32_be(56)?));
    if l1_length > LONGEST_L1 || clusters << bits > LONGEST_COUNTS {
        return Err(damaged("its header says impossible sizes"));
    }
    if !ends_in_file(l1, l1_length) || !ends_in_file(counts, clusters << bits) {
        return Err(cut_off());
    }
    let length = usize::try_from(clusters << bits).unwrap_or(0);
    let table = bytes.up_to(counts, length)?;
    let entries = table.chunks_exact(8).map(|entry| {
        let entry: [u8; 8] = entry.try_into().unwrap_or_default();
        // The lowest bits are reserved.
        u64::from_be_bytes(entry) & !511
    });
    let last = entries.enumerate().rfind(|(_, block)| *block != 0);
    let Some((index, block)) = last else {
        return Err(damaged("it counts no references"));
    };
    let of_block = (cluster * 8) >> order;
    let block = bytes.up_to(block, usize::try_from(cluster).unwrap_or(0))?;
    if block.is_empty() {
        return Err(cut_off());
    }
    let Some(position) = last_count(&block, order) else {
        return Ok(());
    };
    let begins = (index as u64)
        .checked_mul(of_block)
        .and_then(|first| first.checked_add(position))
        .and_then(|number| number.checked_mul(cluster));
    match begins {
        Some(begins) if begins < bytes.length() => Ok(()),
        Some(_) => Err(cut_off()),
        None => Err(damaged("it counts references beyond all files")),
    }
}

/// The position of the last count that is not zero, each of 2^order bits.
fn last_count(block: &[u8], order: u32) -> Option<u64> {
    let byte = block.iter().rposition(|byte| *byte != 0)?;
    if order >= 3 {
        return Some((byte >> (order - 3)) as u64);
    }
    // Several in a byte, the first one in its lowest bits.
    let highest = 7 - block[byte].leading_zeros();
    let of_byte = 8_u64 >> order;
    Some(byte as u64 * of_byte + u64::from(highest >> order))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_count_is_found_at_each_width() {
        let mut block = [0_u8; 16];
        assert_eq!(last_count(&block, 4), None);
        block[5] = 1;
        for (order, expected) in [(6, 0), (5, 1), (4, 2), (3, 5), (2, 10), (1, 20), (0, 40)] {
            assert_eq!(last_count(&block, order), Some(expected), "{order}");
        }
        block[5] = 0x90;
        for (order, expected) in [(3, 5), (2, 11), (1, 23), (0, 47)] {
            assert_eq!(last_count(&block, order), Some(expected), "{order}");
        }
    }
}

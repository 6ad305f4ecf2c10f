//! Whether a QEMU writes an image: it holds a lock on a byte of it as long as it does.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;

use crate::{Error, Result};

/// The byte that QEMU locks for the right to write, `RAW_LOCK_PERM_BASE` and `BLK_PERM_WRITE`.
const WRITES: u64 = 101;
/// The most of the kernel's list of locks that is read, in bytes.
const LONGEST: u64 = 16 << 20;

/// Whether another program has it open for writing, as far as the kernel's list tells: on file systems that number
/// their devices themselves, as btrfs does, `qemu-img` alone finds out.
pub(super) fn is_open_for_writing(file: &File) -> Result<bool> {
    let found = file
        .metadata()
        .map_err(|error| Error::io("the disk image cannot be looked at", error))?;
    let mut locks = String::new();
    let read =
        File::open("/proc/locks").and_then(|list| list.take(LONGEST).read_to_string(&mut locks));
    if let Err(error) = read {
        tracing::debug!(%error, "the kernel's list of locks cannot be read");
    }
    let device = found.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let place = format!("{major:02x}:{minor:02x}:{}", found.ino());
    Ok(locks.lines().any(|line| holds(line, &place)))
}

/// Whether a line tells of a lock of QEMU's on this file: `1: OFDLCK ADVISORY  READ -1 fe:01:1234 100 101`.
fn holds(line: &str, place: &str) -> bool {
    let mut words = line.split_whitespace().skip(1);
    let is_open_file = words.next() == Some("OFDLCK");
    let mut rest = words.skip(3);
    if !is_open_file || rest.next() != Some(place) {
        return false;
    }
    let first = rest.next().and_then(|first| first.parse::<u64>().ok());
    // `EOF` where it goes on to the end.
    let last = rest
        .next()
        .map_or(0, |last| last.parse().unwrap_or(u64::MAX));
    first.is_some_and(|first| first <= WRITES) && last >= WRITES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_on_the_byte_for_writing_is_found_in_any_range() {
        let place = "fe:01:1234";
        for (line, expected) in [
            ("1: OFDLCK ADVISORY  READ -1 fe:01:1234 100 101", true),
            ("2: OFDLCK ADVISORY  READ -1 fe:01:1234 101 EOF", true),
            ("3: OFDLCK ADVISORY  READ -1 fe:01:1234 100 100", false),
            ("4: OFDLCK ADVISORY  READ -1 fe:01:12345 101 101", false),
            ("5: POSIX  ADVISORY  WRITE 77 fe:01:1234 0 EOF", false),
            ("6: -> OFDLCK ADVISORY  READ -1 fe:01:1234 101 101", false),
            ("", false),
        ] {
            assert_eq!(holds(line, place), expected, "{line}");
        }
    }
}

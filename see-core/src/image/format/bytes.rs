//! An image's bytes, read where a header says and no further than they go.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use super::cut_off_inside_header;
use crate::{Error, Result};

pub(super) struct Bytes<'a> {
    file: &'a File,
    length: u64,
}

impl<'a> Bytes<'a> {
    pub(super) fn of(file: &'a File) -> Result<Self> {
        let found = file.metadata().map_err(unreadable)?;
        Ok(Self {
            file,
            length: found.len(),
        })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// So many bytes, or as many as there are.
    pub(super) fn up_to(&self, start: u64, count: usize) -> Result<Vec<u8>> {
        let there = self.length.saturating_sub(start);
        let mut bytes = vec![0; count.min(usize::try_from(there).unwrap_or(count))];
        self.file
            .read_exact_at(&mut bytes, start)
            .map_err(unreadable)?;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&self, start: u64) -> Result<[u8; N]> {
        let mut array = [0; N];
        if start
            .checked_add(N as u64)
            .is_none_or(|end| end > self.length)
        {
            return Err(cut_off_inside_header());
        }
        self.file
            .read_exact_at(&mut array, start)
            .map_err(unreadable)?;
        Ok(array)
    }

    pub(super) fn u16_le(&self, at: u64) -> Result<u16> {
        self.array(at).map(u16::from_le_bytes)
    }

    pub(super) fn u32_le(&self, at: u64) -> Result<u32> {
        self.array(at).map(u32::from_le_bytes)
    }

    pub(super) fn u64_le(&self, at: u64) -> Result<u64> {
        self.array(at).map(u64::from_le_bytes)
    }

    pub(super) fn u32_be(&self, at: u64) -> Result<u32> {
        self.array(at).map(u32::from_be_bytes)
    }

    pub(super) fn u64_be(&self, at: u64) -> Result<u64> {
        self.array(at).map(u64::from_be_bytes)
    }
}

fn unreadable(error: std::io::Error) -> Error {
    Error::io("the disk image cannot be read", error)
}

//! Giving a file its name, and replacing nothing.

use std::os::fd::AsFd;

use rustix::fs::{AtFlags, RenameFlags, linkat, renameat_with, unlinkat};
use rustix::io::{Errno, Result};
use rustix::path::Arg;

/// Renames a file within a folder where nothing has the new name.
///
/// # Errors
/// [`Errno::EXIST`] where something has it, and what the kernel refuses.
pub(crate) fn rename_new(
    folder: impl AsFd,
    from: impl Arg + Copy,
    to: impl Arg + Copy,
) -> Result<()> {
    let folder = folder.as_fd();
    match renameat_with(folder, from, folder, to, RenameFlags::NOREPLACE) {
        // Not every file system knows the flag; a link refuses an existing name everywhere.
        Err(Errno::INVAL | Errno::NOSYS) => linkat(folder, from, folder, to, AtFlags::empty())
            .and_then(|()| unlinkat(folder, from, AtFlags::empty())),
        done => done,
    }
}

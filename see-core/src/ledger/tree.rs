//! Removing a folder with all it holds, whatever its former user put into it.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags};
use rustix::io::Errno;

use super::collector::CollectRequest;
use super::path::{open_folder, unreachable_path};
use crate::{Identifier, Result};

/// Empties the open folder `top`.
///
/// Folders inside are never walked down: what they hold is first moved up into `top`. So two open
/// folders suffice for any depth, and no path grows long. Links are removed, never followed; a mount
/// point ends the work with an error.
pub(super) fn empty(top: &OwnedFd, request: &CollectRequest) -> Result<()> {
    let failed = |error| unreachable_path(&request.resource, error);
    loop {
        let names = names(top).map_err(failed)?;
        if names.is_empty() {
            return Ok(());
        }
        for (name, file_type) in names {
            request.check()?;
            remove(top, &name, file_type, request)?;
        }
    }
}

/// Opens a folder for reading its names, and restores its owner's missing rights on it.
///
/// Only with `repair`, for which the folder must be about to go.
pub(super) fn open_listed(
    parent: impl AsFd,
    name: &CString,
    repair: bool,
) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let text = name.to_str().map_err(|_| Errno::ILSEQ);
    // Names need not be UTF-8; only the strict opening, which finds mount points, asks for it.
    let way = match text {
        Ok(text) => open_folder(&parent, text, ResolveFlags::BENEATH | ResolveFlags::NO_XDEV)?,
        Err(_) => rustix::fs::openat(
            &parent,
            name,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?,
    };
    let stat = rustix::fs::fstat(&way)?;
    if repair && stat.st_mode & 0o700 != 0o700 && stat.st_uid == rustix::process::geteuid().as_raw()
    {
        // Through the descriptor, so that no link can be put in between.
        let path = format!("/proc/self/fd/{}", way.as_raw_fd());
        rustix::fs::chmod(path, Mode::RWXU)?;
    }
    rustix::fs::openat(&way, ".", flags, Mode::empty())
}

fn remove(
    top: &OwnedFd,
    name: &CString,
    file_type: FileType,
    request: &CollectRequest,
) -> Result<()> {
    let failed = |error| unreachable_path(&request.resource, error);
    if file_type != FileType::Directory && unlink(top, name, file_type).map_err(failed)? {
        return Ok(());
    }
    match rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) => {}
        Err(error) => return Err(failed(error)),
    }
    let inner = open_listed(top, name, true).map_err(failed)?;
    for (name, file_type) in names(&inner).map_err(failed)? {
        request.check()?;
        if file_type != FileType::Directory && unlink(&inner, &name, file_type).map_err(failed)? {
            continue;
        }
        move_up(&inner, &name, top).map_err(failed)?;
    }
    // Not empty yet only where somebody still writes: the next round sees it again.
    match rustix::fs::unlinkat(top, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT | Errno::NOTEMPTY | Errno::EXIST) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// Removes what is no folder; false when it turns out to be one.
fn unlink(folder: &OwnedFd, name: &CString, file_type: FileType) -> Result<bool, Errno> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        // Somebody may have been faster.
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        // Not every file system tells the type while it lists.
        Err(Errno::ISDIR | Errno::PERM) if file_type == FileType::Unknown => Ok(false),
        Err(error) => Err(error),
    }
}

/// Moves a folder up under a name of its own.
fn move_up(from: &OwnedFd, name: &CString, top: &OwnedFd) -> Result<(), Errno> {
    // Moving a folder rewrites its "..", for which its owner needs rights on it.
    drop(open_listed(from, name, true)?);
    let fresh = format!("{}.collected", Identifier::random());
    match rustix::fs::renameat_with(from, name, top, &fresh, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS) => rustix::fs::renameat(from, name, top, &fresh),
        other => other,
    }
}

/// The names in a folder, at most so many at a time that their list stays small.
fn names(folder: &OwnedFd) -> Result<Vec<(CString, FileType)>, Errno> {
    const BATCH: usize = 4096;
    let mut names = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes() != b"." && name.to_bytes() != b".." {
            names.push((name.to_owned(), entry.file_type()));
            if names.len() == BATCH {
                break;
            }
        }
    }
    Ok(names)
}

//! Looking at the guest's files, making folders and removing.

use super::answer::Answer;
use super::folder::io_failure;
use crate::platform;
use crate::protocol::{FailureCode, FileInfo, FileKind, Reply};
use std::fs::{self, Metadata};
use std::io;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

/// The most entries of a folder that are listed.
const MAX_ENTRIES: u64 = 65_536;
/// How many are in a message: with the longest names as many fit.
const AT_ONCE: usize = 128;

/// An absolute path of the guest.
pub(super) fn absolute(path: Vec<u8>) -> Result<PathBuf, Reply> {
    let bad = |message: &str| Reply::failed(FailureCode::BadRequest, message);
    let path = platform::os_string(path).ok_or_else(|| bad("the system has no such paths"))?;
    let path = PathBuf::from(path);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(bad("the path has to be absolute")),
    }
}

/// Sends what is in a folder; gives the last answer.
pub(super) fn list(answer: &Answer, path: Vec<u8>) -> Result<Reply, Reply> {
    let failed = |error| io_failure("reading the folder", &error);
    let (mut batch, mut total, mut truncated) = (Vec::new(), 0, false);
    for entry in fs::read_dir(absolute(path)?).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        // What is removed meanwhile is not listed. A link's own, not those of what it leads to.
        let Ok(found) = entry.metadata() else {
            continue;
        };
        truncated = total == MAX_ENTRIES;
        if truncated {
            break;
        }
        total += 1;
        batch.push(info(platform::os_bytes(&entry.file_name()), &found));
        if batch.len() == AT_ONCE {
            answer.stream(Reply::Files(std::mem::take(&mut batch)))?;
        }
    }
    if !batch.is_empty() {
        answer.stream(Reply::Files(batch))?;
    }
    Ok(Reply::End { total, truncated })
}

/// What is at a path; a link is not followed.
pub(super) fn stat(path: Vec<u8>) -> Result<Reply, Reply> {
    let path = absolute(path)?;
    let found = fs::symlink_metadata(&path);
    let found = found.map_err(|error| io_failure("looking at the file", &error))?;
    let name = path.file_name().unwrap_or(path.as_os_str());
    Ok(Reply::File(info(platform::os_bytes(name), &found)))
}

/// Makes a folder, and those that it lies in; one that is there already will do.
pub(super) fn make_folder(path: Vec<u8>) -> Result<Reply, Reply> {
    let made = fs::create_dir_all(absolute(path)?);
    made.map_err(|error| io_failure("making the folder", &error))?;
    Ok(Reply::Done)
}

/// Removes a file, a link, or a folder with all that is in it; no link is followed.
pub(super) fn remove(path: Vec<u8>) -> Result<Reply, Reply> {
    let path = absolute(path)?;
    let remove = || -> io::Result<()> {
        match fs::symlink_metadata(&path)?.is_dir() {
            true => fs::remove_dir_all(&path),
            false => fs::remove_file(&path),
        }
    };
    remove().map_err(|error| io_failure("removing", &error))?;
    Ok(Reply::Done)
}

fn info(name: Vec<u8>, found: &Metadata) -> FileInfo {
    let kind = found.file_type();
    let modified = found.modified().ok();
    let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    FileInfo {
        name,
        kind: if kind.is_file() {
            FileKind::File
        } else if kind.is_dir() {
            FileKind::Folder
        } else if kind.is_symlink() {
            FileKind::Link
        } else {
            FileKind::Other
        },
        size: found.len(),
        mode: platform::mode(found),
        modified: modified.unwrap_or_default(),
    }
}

//! Looking at the guest's files, making folders and removing.

use super::answer::Answer;
use super::folder::io_failure;
use crate::platform;
use crate::protocol::{FailureCode, FileInfo, FileKind, MAX_BODY, Reply};
use std::fs::{self, Metadata};
use std::io;
use std::path::PathBuf;
use std::time::UNIX_EPOCH;

/// The most entries of a folder that are listed.
const MAX_ENTRIES: u64 = 65_536;
/// The most bytes of an entry besides its name, and of what is around the entries of a message.
const FIELDS: usize = 128;

/// An absolute path of the guest, without the separators at its end: with them a link at the end would be followed.
pub(super) fn absolute(path: Vec<u8>) -> Result<PathBuf, Reply> {
    let bad = |message: &str| Reply::failed(FailureCode::BadRequest, message);
    let path = platform::os_string(path).ok_or_else(|| bad("the system has no such paths"))?;
    let path = PathBuf::from(path);
    match path.is_absolute() {
        true => Ok(path.components().collect()),
        false => Err(bad("the path has to be absolute")),
    }
}

/// Sends what is in a folder; gives the last answer.
pub(super) fn list(answer: &Answer, path: Vec<u8>) -> Result<Reply, Reply> {
    let failed = |error| io_failure("reading the folder", &error);
    let (mut batch, mut total, mut truncated) = (Batch::default(), 0, false);
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
        if let Some(full) = batch.push(info(platform::os_bytes(&entry.file_name()), &found)) {
            answer.stream(Reply::Files(full))?;
        }
    }
    if !batch.files.is_empty() {
        answer.stream(Reply::Files(batch.files))?;
    }
    Ok(Reply::End { total, truncated })
}

/// As many entries as fit a message.
#[derive(Debug)]
struct Batch {
    files: Vec<FileInfo>,
    /// The most that the message takes.
    bytes: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self {
            files: Vec::new(),
            bytes: FIELDS,
        }
    }
}

impl Batch {
    /// Takes an entry; gives those before it when it does not fit beside them.
    fn push(&mut self, file: FileInfo) -> Option<Vec<FileInfo>> {
        let bytes = FIELDS + file.name.len();
        let is_full = self.bytes + bytes > MAX_BODY;
        let full = is_full.then(|| std::mem::take(self).files);
        self.bytes += bytes;
        self.files.push(file);
        full
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn as_many_entries_are_in_a_message_as_fit_it_whatever_their_names() {
        // A name of 255 characters has as many bytes on Linux, and up to 765 on Windows.
        for length in [0, 1, 255, 765, 1024] {
            let file = FileInfo {
                name: vec![b'x'; length],
                kind: FileKind::Folder,
                size: u64::MAX,
                mode: u32::MAX,
                modified: Duration::from_millis(u64::MAX),
            };
            let mut batch = Batch::default();
            let full = std::iter::repeat(file).find_map(|file| batch.push(file));
            let files = full.expect("a message is full at some time");
            assert!(files.len() >= 50, "{length}: {}", files.len());
            let frame = Reply::Files(files).into_frame(1, 1).expect("fits");
            assert!(Reply::from_frame(frame).is_ok());
            assert_eq!(batch.files.len(), 1, "the one that did not fit comes next");
        }
    }
}

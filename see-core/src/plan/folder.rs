//! The results folder of a run, and `result.json` in it.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;

use crate::rename::rename_new;
use crate::{Error, ErrorKind, Result};

use super::outcome::RunResult;

/// The file in which the result lies.
pub(super) const RESULT: &str = "result.json";

/// Makes the folder of a run, with mode 0700, and those above it that are missing.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`] where there is one: results are never overwritten.
pub(super) async fn make(folder: PathBuf) -> Result<()> {
    blocking(move || {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        let made = match folder.parent() {
            Some(root) => builder.recursive(true).create(root),
            None => Ok(()),
        };
        made.and_then(|()| builder.recursive(false).create(&folder))
            .map_err(|error| {
                Error::io("the results folder cannot be made", error)
                    .subject(folder.display())
                    .advice("choose another folder for the results")
            })
    })
    .await
}

/// Writes the result.
///
/// # Errors
/// Where the file exists or the disk refuses.
pub(super) async fn write(result: &RunResult) -> Result<()> {
    let path = result.header.results.join(RESULT);
    let json = serde_json::to_vec_pretty(result);
    blocking(move || {
        json.map_err(io::Error::from)
            .and_then(|json| write_new(&path, &json))
            .map_err(|error| {
                Error::io("the result cannot be written", error).subject(path.display())
            })
    })
    .await
}

/// Writes a file that appears whole. Never through a link, and never over a file that a hook made of what the guest sent.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&partial)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| file.write_all(b"\n"))
        .and_then(|()| Ok(rename_new(CWD, &partial, path)?));
    if written.is_err() {
        // What cannot be removed is told by its name as what it is.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Runs work that waits for the disk on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| {
            let message = "work on the results folder panicked";
            Err(Error::new(ErrorKind::Internal, message).caused_by(error))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_appears_whole_and_over_nothing() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join(RESULT);
        write_new(&path, b"{}").unwrap();
        let refused = write_new(&path, b"[]").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"{}\n");
        let names = fs::read_dir(folder.path()).unwrap();
        assert_eq!(names.count(), 1, "nothing partial is left");
    }
}

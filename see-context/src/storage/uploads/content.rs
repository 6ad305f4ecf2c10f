//! An image of this host, and what it is known by elsewhere.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ring::digest::{Context, SHA256};
use see_core::{Error, ErrorKind, ImageFormat, Result, StopToken};

use crate::error::blocking;

/// An image of this host, open and with what it is known by.
#[derive(Debug)]
pub(crate) struct Content {
    pub(super) file: File,
    pub(super) length: u64,
    pub(super) format: ImageFormat,
    pub(super) digest: String,
    /// The file as it was before it was read.
    pub(super) state: State,
}

/// What of a file changes when somebody writes to it: its length, and when it and its entry were last changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State {
    length: u64,
    times: [(i64, i64); 2],
}

impl State {
    pub(super) fn of(file: &File) -> Result<Self> {
        let found = file.metadata();
        let found = found.map_err(|error| Error::io("the disk image cannot be read", error))?;
        Ok(Self {
            length: found.len(),
            times: [
                (found.mtime(), found.mtime_nsec()),
                (found.ctime(), found.ctime_nsec()),
            ],
        })
    }
}

impl Content {
    /// Opens an image and reads all of it.
    ///
    /// # Errors
    /// When it cannot be read or is of no known format, and [`ErrorKind::Stopped`](see_core::ErrorKind::Stopped).
    pub(crate) async fn read(path: &Path, stop: &StopToken) -> Result<Self> {
        let (path, stop) = (path.to_owned(), stop.clone());
        blocking("read the disk image", move || {
            let failed =
                |error| Error::io("the disk image cannot be read", error).subject(path.display());
            let mut file = File::open(&path).map_err(failed)?;
            let state = State::of(&file)?;
            let format = ImageFormat::of(&file).map_err(|error| error.subject(path.display()))?;
            let mut context = Context::new(&SHA256);
            let mut buffer = vec![0; 1 << 20];
            loop {
                stop.check("read the disk image")?;
                match file.read(&mut buffer).map_err(failed)? {
                    0 => break,
                    count => context.update(&buffer[..count]),
                }
            }
            let content = Self {
                file,
                length: state.length,
                format,
                digest: hex(context.finish().as_ref()),
                state,
            };
            content.check_unchanged()?;
            Ok(content)
        })
        .await
    }

    /// Refuses a file that was written to since before it was read: its digest may not be that of its bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it was.
    pub(super) fn check_unchanged(&self) -> Result<()> {
        if State::of(&self.file)? == self.state {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Io,
            "the disk image was written to while it was read or uploaded",
        )
        .advice("give the run an image that nobody changes"))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! An image of this host, and what it is known by elsewhere.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use ring::digest::{Context, SHA256};
use see_core::{Error, ImageFormat, Result, StopToken};

use crate::error::blocking;

/// An image of this host, open and with what it is known by.
#[derive(Debug)]
pub(crate) struct Content {
    pub(super) file: File,
    pub(super) length: u64,
    pub(super) format: ImageFormat,
    pub(super) digest: String,
}

impl Content {
    /// Opens an image and reads all of it.
    ///
    /// # Errors
    /// When it cannot be read or is of no known format, and [`ErrorKind::Stopped`](see_core::ErrorKind::Stopped).
    pub(crate) async fn read(path: &Path, stop: &StopToken) -> Result<Self> {
        let (path, stop) = (path.to_owned(), stop.clone());
        blocking("read the disk image", move || {
            let format = ImageFormat::of_path(&path)?;
            let failed =
                |error| Error::io("the disk image cannot be read", error).subject(path.display());
            let mut file = File::open(&path).map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            let mut context = Context::new(&SHA256);
            let mut buffer = vec![0; 1 << 20];
            loop {
                stop.check("read the disk image")?;
                match file.read(&mut buffer).map_err(failed)? {
                    0 => break,
                    count => context.update(&buffer[..count]),
                }
            }
            let digest = hex(context.finish().as_ref());
            Ok(Self {
                file,
                length,
                format,
                digest,
            })
        })
        .await
    }

    /// What of the file changes when somebody writes to it.
    pub(super) fn state(&self) -> Result<(u64, i64, i64)> {
        let found = self.file.metadata();
        let found = found.map_err(|error| Error::io("the disk image cannot be read", error))?;
        Ok((found.len(), found.mtime(), found.mtime_nsec()))
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

//! The files that a machine boots from without a disk: copies of its own, where the daemon would change the owner of
//! the user's. libvirt has no label that keeps it from that, as it has for disks.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use see_core::{Error, ErrorKind, Result};
use see_libvirt::xml::BootFile;

use crate::error::blocking;

/// One of the user's files, which is copied and only read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Boot {
    which: BootFile,
    users: PathBuf,
}

impl Boot {
    /// This file.
    ///
    /// # Errors
    /// When it cannot be read, or is no regular file.
    pub(crate) fn new(which: BootFile, users: PathBuf) -> Result<Self> {
        open(&users)?;
        Ok(Self { which, users })
    }

    /// Copies it into the folder of the machine. The file system shares the content where it can.
    pub(super) async fn create(&self, folder: &Path) -> Result<(BootFile, PathBuf)> {
        let (users, copy) = (self.users.clone(), folder.join(self.which.name()));
        let file = copy.clone();
        blocking("copy what the machine boots from", move || {
            copy_of(&mut open(&users)?, &copy).map_err(|error| {
                Error::io("what the machine boots from cannot be copied", error)
                    .subject(copy.display())
            })
        })
        .await?;
        Ok((self.which, file))
    }
}

/// Makes a new file of what is read, which nobody else can open yet.
pub(super) fn copy_of(from: &mut impl std::io::Read, path: &Path) -> std::io::Result<()> {
    let mut to = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    std::io::copy(from, &mut to).map(drop)
}

fn open(path: &Path) -> Result<File> {
    let failed = |error| {
        Error::io("what the machine boots from cannot be read", error).subject(path.display())
    };
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() {
        let message = "what the machine boots from has to be a regular file";
        return Err(Error::new(ErrorKind::Configuration, message).subject(path.display()));
    }
    File::open(path).map_err(failed)
}

//! The disk of a sandbox: an overlay over the user's image, or a full copy of it.
//!
//! The user's image is opened for reading only. libvirt is told its format and the end of its
//! chain, and not to change its owner, so that neither a guest nor the hypervisor touches it.

mod format;
pub(crate) mod pool;
mod qemu_img;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use see_core::ledger::{Entry, Resource};
use see_core::{Error, ErrorKind, Identifier, Image, Result, StopToken};
use see_libvirt::xml::{Backing, DiskSource};

use crate::error::blocking;

pub(crate) use self::format::{Format, inspect};
pub(crate) use self::qemu_img::PROGRAM as QEMU_IMG;

/// What the hypervisor does to the owners of files that it hands to QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// Nothing: QEMU runs with this user's rights.
    Kept,
    /// QEMU runs on another account, which is given every file that is not excepted.
    Changed,
}

/// How the disk of a sandbox comes to be.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    /// The folder in which each sandbox gets one named by its identifier.
    parent: PathBuf,
    prefix: &'static str,
    is_pool: bool,
    copy_on_write: bool,
    owners: Owners,
}

impl Storage {
    /// Disks below the folder that the user named, or below the host's for large temporary files.
    pub(crate) fn new(pool: Option<PathBuf>, copy_on_write: bool, owners: Owners) -> Self {
        let is_pool = pool.is_some();
        let (parent, prefix) = match pool {
            // python-see's name: the identifier alone.
            Some(pool) => (pool, ""),
            None => (large_files(), "see-"),
        };
        Self {
            parent,
            prefix,
            is_pool,
            copy_on_write,
            owners,
        }
    }

    /// The folder for a sandbox's disk, to be written down before it is made.
    pub(crate) fn intent(&self, identifier: Identifier) -> Result<Resource> {
        Resource::folder(&self.parent, format!("{}{identifier}", self.prefix))
    }

    /// The storage pool that shows the disk, where the user named a pool's folder.
    pub(crate) fn pool_intent(
        &self,
        identifier: Identifier,
        uri: &str,
    ) -> Result<Option<Resource>> {
        if !self.is_pool {
            return Ok(None);
        }
        let folder = self
            .parent
            .canonicalize()
            .map_err(|error| {
                Error::io("the folder for disks cannot be used", error)
                    .subject(self.parent.display())
            })?
            .join(identifier.to_string());
        pool::intent(identifier, uri, &folder).map(Some)
    }

    /// Makes the folder and the disk in it. `maker` is the entry of the process that does so, which
    /// outlives us should we be killed.
    pub(crate) async fn create(
        &self,
        entry: &Entry,
        maker: &Entry,
        image: &Image,
        stop: &StopToken,
    ) -> Result<DiskSource> {
        let folder = entry.create_folder().await?;
        if self.owners == Owners::Changed {
            // Others may pass the folder to a file whose name they know; libvirt gives the file
            // itself to the emulator's account.
            let folder = folder.clone();
            blocking("open the folder of the disk", move || {
                std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o711)).map_err(
                    |error| {
                        Error::io("the folder of the disk cannot be opened up", error)
                            .subject(folder.display())
                    },
                )
            })
            .await?;
        }
        let base = image.path.clone();
        let format = blocking("inspect the disk image", move || inspect(&base)).await?;
        let disk = folder.join("disk.qcow2");
        stop.check("create the disk")?;
        if self.copy_on_write {
            qemu_img::overlay(&image.path, format, &disk, maker.mark(), stop).await?;
        } else {
            qemu_img::copy(&image.path, format, &disk, maker.mark(), stop).await?;
        }
        let backing = Backing {
            file: image.path.clone(),
            format: format.name().to_owned(),
            relabel: self.owners == Owners::Kept,
        };
        Ok(DiskSource {
            file: disk,
            format: Format::Qcow2.name().to_owned(),
            backing: if self.copy_on_write {
                vec![backing]
            } else {
                Vec::new()
            },
            relabel: true,
        })
    }
}

/// Where large temporary files go: not `/tmp`, which may lie in memory.
fn large_files() -> PathBuf {
    let usual = Path::new("/var/tmp");
    if usual.is_dir() {
        usual.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// The first part of a path that an account other than its owner cannot pass or read, for advice
/// after the emulator was refused.
pub(crate) fn first_closed(path: &Path) -> Option<PathBuf> {
    let mut parts: Vec<&Path> = path.ancestors().collect();
    parts.reverse();
    parts
        .into_iter()
        .find(|part| {
            let needed = if *part == path { 0o004 } else { 0o001 };
            std::fs::metadata(part).is_ok_and(|found| found.permissions().mode() & needed == 0)
        })
        .map(Path::to_owned)
}

/// Refuses an image that is not a regular file with an absolute path.
pub(crate) fn check_image(image: &Image) -> Result<()> {
    let wrong = |message: &'static str| {
        Err(Error::new(ErrorKind::Configuration, message).subject(image.path.display()))
    };
    if !image.path.is_absolute() {
        return wrong("the path of a disk image must be absolute");
    }
    if image.path.to_str().is_none() {
        return wrong("the path of a disk image must be UTF-8, since libvirt's XML is");
    }
    match std::fs::metadata(&image.path) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => wrong("a disk image must be a regular file"),
        Err(error) => {
            Err(Error::io("the disk image cannot be used", error).subject(image.path.display()))
        }
    }
}

//! The disk of a sandbox: an overlay over the user's image, or a full copy of it.
//!
//! The user's image is opened for reading only. libvirt is told its format and the end of its
//! chain, and not to change its owner, so that neither a guest nor the hypervisor touches it.

mod format;
pub(crate) mod pool;
mod qemu_img;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use see_core::ledger::Resource;
use see_core::{Error, ErrorKind, Image, Result};
use see_libvirt::xml::{Backing, DiskSource};

use crate::allocation::{Entries, Making, Part, Site};
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

    /// The folder that the user named for storage pools.
    pub(crate) fn pool(&self) -> Option<pool::Pool> {
        self.is_pool.then(|| pool::Pool::new(self.parent.clone()))
    }
}

/// A disk of a sandbox's own, over an image.
#[derive(Debug)]
pub(crate) struct SandboxDisk {
    storage: Storage,
    image: Image,
}

impl SandboxDisk {
    /// A disk over this image.
    ///
    /// # Errors
    /// When it is not a regular file with an absolute path.
    pub(crate) fn new(storage: Storage, image: Image) -> Result<Self> {
        check_image(&image)?;
        Ok(Self { storage, image })
    }
}

#[async_trait]
impl Part for SandboxDisk {
    /// The folder with the disk in it, and the process that makes the disk, which outlives us should we be
    /// killed.
    fn intents(&self, site: &Site) -> Result<Vec<Resource>> {
        let name = format!("{}{}", self.storage.prefix, site.identifier);
        Ok(vec![
            Resource::folder(&self.storage.parent, name)?,
            Resource::process(QEMU_IMG),
        ])
    }

    async fn make(&self, mut entries: Entries, making: &mut Making<'_>) -> Result<()> {
        let folder = making.make_folder(entries.next()?).await?;
        let maker = entries.next()?;
        let (storage, image) = (&self.storage, &self.image);
        if storage.owners == Owners::Changed {
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
        making.stop.check("create the disk")?;
        if storage.copy_on_write {
            qemu_img::overlay(&image.path, format, &disk, maker.mark(), making.stop).await?;
        } else {
            qemu_img::copy(&image.path, format, &disk, maker.mark(), making.stop).await?;
        }
        maker.gone().await?;
        let backing = storage.copy_on_write.then(|| Backing {
            file: image.path.clone(),
            format: format.name().to_owned(),
            relabel: storage.owners == Owners::Kept,
        });
        making.abilities.disks.push(disk.clone());
        let opened = std::iter::once(disk.clone()).chain(backing.iter().map(|b| b.file.clone()));
        making.abilities.opened.extend(opened);
        let source = DiskSource {
            file: disk,
            format: Format::Qcow2.name().to_owned(),
            backing: Vec::from_iter(backing),
            relabel: true,
        };
        making
            .domain
            .set_disk(&source)
            .map_err(|error| Error::new(ErrorKind::Configuration, error.to_string()))
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
fn check_image(image: &Image) -> Result<()> {
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

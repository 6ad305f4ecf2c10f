//! The disk of a sandbox: an overlay over the user's image, or a full copy of it.
//!
//! The user's image is opened for reading only. libvirt is told its format and the end of its
//! chain, and not to change its owner, so that neither a guest nor the hypervisor touches it.

mod account;
mod base;
mod boot;
mod clone;
mod disk;
mod nvram;
mod pool;
mod qemu_img;
mod uploads;
mod volumes;

use std::path::{Path, PathBuf};

use see_core::ImageFormat;

use crate::hypervisor::Owners;

pub(crate) use self::boot::Boot;
pub(crate) use self::clone::Base;
use self::clone::How;
pub(crate) use self::disk::{SandboxDisk, check_image, set_disk};
pub(crate) use self::nvram::Nvram;
pub(crate) use self::pool::{Pool, Pools};
pub(crate) use self::qemu_img::PROGRAM as QEMU_IMG;
pub(crate) use self::uploads::ImageLeases;
pub(crate) use self::volumes::{RemoteDisk, RemoteVolumes, Volumes};

/// How the disk of a sandbox comes to be.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    /// The folder in which each sandbox gets one named by its identifier.
    parent: PathBuf,
    prefix: &'static str,
    is_pool: bool,
    how: How,
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
            how: if copy_on_write {
                How::Overlay
            } else {
                How::Copy(ImageFormat::Qcow2)
            },
            owners,
        }
    }

    /// The same with full copies in this format, for a hypervisor that takes no overlays.
    pub(crate) fn copied_as(self, format: ImageFormat) -> Self {
        Self {
            how: How::Copy(format),
            ..self
        }
    }

    /// The folder that the user named for storage pools.
    pub(crate) fn pool(&self) -> Option<Pool> {
        self.is_pool.then(|| Pool::new(self.parent.clone()))
    }
}

/// Where large temporary files go: not `/tmp`, which may lie in memory.
pub(crate) fn large_files() -> PathBuf {
    let usual = Path::new("/var/tmp");
    if usual.is_dir() {
        usual.to_owned()
    } else {
        std::env::temp_dir()
    }
}

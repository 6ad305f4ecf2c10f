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
pub(crate) mod pool;
mod qemu_img;
pub(crate) mod uploads;
pub(crate) mod volumes;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use see_core::ImageFormat;

pub(crate) use self::boot::Boot;
pub(crate) use self::clone::Base;
use self::clone::How;
pub(crate) use self::disk::{SandboxDisk, check_image};
pub(crate) use self::nvram::Nvram;
pub(crate) use self::qemu_img::PROGRAM as QEMU_IMG;
pub(crate) use self::volumes::{RemoteDisk, Volumes};

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
    pub(crate) fn pool(&self) -> Option<pool::Pool> {
        self.is_pool.then(|| pool::Pool::new(self.parent.clone()))
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

/// The first part of a path that an account other than its owner cannot pass or read, for advice
/// after the emulator was refused.
pub(crate) fn first_closed(path: &Path) -> Option<PathBuf> {
    first_closed_to(path, |part, is_file| {
        let needed = if is_file { 0o004 } else { 0o001 };
        std::fs::metadata(part).is_ok_and(|found| found.permissions().mode() & needed != 0)
    })
}

/// The first part of a path that somebody may not pass or, where it is the file itself, not read. Where a part is a
/// symbolic link, what it leads to counts as well.
fn first_closed_to(path: &Path, may: impl Fn(&Path, bool) -> bool) -> Option<PathBuf> {
    let real = path.canonicalize().ok();
    let closed = |whole: &Path| {
        let mut parts: Vec<&Path> = whole.ancestors().collect();
        parts.reverse();
        parts
            .into_iter()
            .find(|part| part.exists() && !may(part, *part == whole))
            .map(Path::to_owned)
    };
    closed(path).or_else(|| closed(&real?))
}

//! The file system that a file or folder was to be made on: where it is not mounted, nothing on it is gone.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::path::look;
use super::resource::Resource;
use crate::{Error, ErrorKind, Result};

/// The detail of a resource under which it is kept.
const KEY: &str = "file-system";
/// What `statfs` says of file systems that lie in memory and end with the kernel: tmpfs and ramfs.
const IN_MEMORY: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// How a file system is recognised: by its own identifier where it has one, else by its device's number,
/// which changes with a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Anchor {
    identifier: u64,
    device: (u32, u32),
    in_memory: bool,
}

impl Anchor {
    /// The file system of a folder, through links.
    pub(super) fn of(folder: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, folder, flags, Mode::empty())?;
        let system = rustix::fs::fstatfs(&folder)?;
        // The width and the sign of the type depend on the machine; the numbers do not.
        let kind = u64::from(system.f_type as u32);
        Ok(Self {
            identifier: rustix::fs::fstatvfs(&folder)?.f_fsid,
            device: look(&folder, "")?.identity.device(),
            in_memory: IN_MEMORY.contains(&kind),
        })
    }

    /// Writes it into the resource that is to be made on it.
    pub(super) fn keep(&self, resource: &mut Resource) -> Result<()> {
        let value = serde_json::to_value(self).map_err(|error| {
            Error::new(ErrorKind::Internal, "a file system cannot be written down").caused_by(error)
        })?;
        resource.details.insert(KEY.to_owned(), value);
        Ok(())
    }

    /// Why nothing can be said about a resource that was not found; `None` when it is gone.
    pub(super) fn hides(resource: &Resource, same_boot: bool) -> Result<Option<String>> {
        // Records of before say nothing.
        let Some(kept) = resource.details.get(KEY) else {
            return Ok(None);
        };
        let recorded: Self = match kept {
            Value::Object(_) => serde_json::from_value(kept.clone()).map_err(|error| {
                Error::new(ErrorKind::Io, "the recorded file system cannot be read")
                    .caused_by(error)
            })?,
            _ => return Ok(None),
        };
        if recorded.in_memory && !same_boot {
            return Ok(None);
        }
        let location = Path::new(&resource.location);
        for folder in location.ancestors() {
            match Self::of(folder) {
                Ok(found) if recorded.is(&found, same_boot) => return Ok(None),
                Ok(_) => break,
                // Somebody removed it: the one above it tells.
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => {
                    return Err(
                        Error::io("its file system cannot be looked at", error.into())
                            .subject(location.display()),
                    );
                }
            }
        }
        Ok(Some(format!(
            "the file system that it was made on is not mounted at {}",
            location.display()
        )))
    }

    fn is(&self, found: &Self, same_boot: bool) -> bool {
        match (self.identifier, found.identifier) {
            (0, _) | (_, 0) => same_boot && self.device == found.device,
            (recorded, found) => recorded == found,
        }
    }
}

//! Reaching a file without following a link, and telling whether it is the one that was recorded.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatxFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::resource::{Details, Resource};
use crate::{Error, ErrorKind, Result};

/// How a file or folder is recognised. An inode number alone is used again soon after a removal, a
/// device number may change with the next boot; the birth time fills both gaps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileIdentity {
    inode: u64,
    device: (u32, u32),
    /// Seconds and nanoseconds since 1970, where the file system knows it.
    born: Option<(i64, u32)>,
}

/// A file as it is now.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) identity: FileIdentity,
    pub(super) file_type: FileType,
    pub(super) uid: u32,
    pub(super) links: u32,
}

/// The folder that a resource lies in, and its name there.
#[derive(Debug)]
pub(super) struct Spot<'a> {
    pub(super) parent: OwnedFd,
    pub(super) name: &'a str,
}

impl FileIdentity {
    pub(super) fn device(&self) -> (u32, u32) {
        self.device
    }

    pub(super) fn from_details(details: &Details) -> Result<Self> {
        serde_json::from_value(Value::Object(details.clone())).map_err(|error| {
            Error::new(ErrorKind::Io, "the recorded identity is not one of a file").caused_by(error)
        })
    }

    pub(super) fn details(&self) -> Result<Details> {
        match serde_json::to_value(self) {
            Ok(Value::Object(details)) => Ok(details),
            _ => Err(Error::new(
                ErrorKind::Internal,
                "a file's identity cannot be written",
            )),
        }
    }

    /// Whether `found` is what was recorded.
    pub(super) fn agrees(&self, found: &Self, same_boot: bool) -> bool {
        let same_file = self.inode == found.inode && self.born == found.born;
        let same_device = self.device == found.device;
        // After a boot the device number proves nothing, so the birth time must.
        same_file && (same_device || (!same_boot && self.born.is_some()))
    }
}

impl<'a> Spot<'a> {
    /// Opens the way to a file or folder; `None` when a folder on the way does not exist.
    pub(super) fn open(resource: &'a Resource) -> Result<Option<Self>> {
        resource.check()?;
        let name = &resource.name;
        let (folders, name) = name.rsplit_once('/').unwrap_or((".", name));
        let opened = open_folder(CWD, &resource.location, ResolveFlags::empty()).and_then(|root| {
            let inside = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV;
            open_folder(root, folders, inside)
        });
        match opened {
            Ok(parent) => Ok(Some(Self { parent, name })),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(unreachable_path(resource, error)),
        }
    }

    /// Looks at the file itself, a link included; `None` when there is none.
    pub(super) fn look(&self) -> Result<Option<Found>, Errno> {
        match look(&self.parent, self.name) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Looks at `name` in a folder, or at the file descriptor itself when `name` is empty.
pub(super) fn look(at: impl AsFd, name: &str) -> Result<Found, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::EMPTY_PATH;
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = rustix::fs::statx(at, name, flags, wanted)?;
    let known = StatxFlags::from_bits_retain(stat.stx_mask);
    let born = known
        .contains(StatxFlags::BTIME)
        .then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec));
    Ok(Found {
        identity: FileIdentity {
            inode: stat.stx_ino,
            device: (stat.stx_dev_major, stat.stx_dev_minor),
            born,
        },
        file_type: FileType::from_raw_mode(stat.stx_mode.into()),
        uid: stat.stx_uid,
        links: stat.stx_nlink,
    })
}

/// What went wrong on the way to a resource.
pub(super) fn unreachable_path(resource: &Resource, error: Errno) -> Error {
    let path = Path::new(&resource.location).join(&resource.name);
    let message = match error {
        Errno::LOOP => "a symbolic link lies on the path, where the ledger recorded none",
        Errno::NOTDIR => "something that is no folder lies on the path",
        Errno::XDEV => "another file system is mounted on the path",
        _ => "it cannot be reached",
    };
    Error::io(message, error.into()).subject(path.display())
}

/// Opens a folder without following any link on the way.
pub(super) fn open_folder(
    at: impl AsFd,
    path: &str,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    // Not NOFOLLOW, with which a link at the end would look like any other file.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let strict = resolve | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // The kernel may answer EAGAIN while something is renamed meanwhile.
    for _ in 0..16 {
        match rustix::fs::openat2(at.as_fd(), path, flags, Mode::empty(), strict) {
            Err(Errno::AGAIN) => {}
            // Old kernels lack the call, and some container filters deny it.
            Err(Errno::NOSYS | Errno::PERM) => return walk(at.as_fd(), path, resolve),
            other => return other,
        }
    }
    Err(Errno::AGAIN)
}

/// The same by one component after the other.
fn walk(at: impl AsFd, path: &str, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let step = |at: &dyn AsFd, name: &str| -> Result<OwnedFd, Errno> {
        let opened = rustix::fs::openat(at.as_fd(), name, flags, Mode::empty());
        opened.map_err(|error| {
            // With O_DIRECTORY a link fails as "not a directory"; the caller wants to know.
            let link = look(at.as_fd(), name).is_ok_and(|found| found.file_type.is_symlink());
            if link { Errno::LOOP } else { error }
        })
    };
    let mut folder = None::<OwnedFd>;
    let mut device = None;
    for component in Path::new(path).components() {
        let name = match component {
            Component::RootDir => "/",
            Component::CurDir => ".",
            Component::Normal(name) => name.to_str().ok_or(Errno::ILSEQ)?,
            Component::ParentDir | Component::Prefix(_) => return Err(Errno::LOOP),
        };
        let next = match &folder {
            Some(folder) => step(folder, name)?,
            None => step(&at, name)?,
        };
        if resolve.contains(ResolveFlags::NO_XDEV) {
            let here = match &folder {
                Some(_) => device,
                None => Some(look(&at, "")?.identity.device),
            };
            let there = look(&next, "")?.identity.device;
            if here.is_some_and(|here| here != there) {
                return Err(Errno::XDEV);
            }
            device = Some(there);
        }
        folder = Some(next);
    }
    folder.ok_or(Errno::NOENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_to_open_a_folder_refuse_links_and_find_the_same() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().canonicalize().unwrap();
        std::fs::create_dir_all(path.join("a/b")).unwrap();
        std::os::unix::fs::symlink("a", path.join("link")).unwrap();
        let text = |name: &str| path.join(name).to_str().unwrap().to_owned();
        type Open = fn(&str) -> Result<OwnedFd, Errno>;
        let ways: [Open; 2] = [
            |path| open_folder(CWD, path, ResolveFlags::empty()),
            |path| walk(CWD, path, ResolveFlags::empty()),
        ];
        for way in ways {
            let found = look(way(&text("a/b")).unwrap(), "").unwrap();
            let direct = look(CWD, &text("a/b")).unwrap();
            assert_eq!(found.identity, direct.identity);
            assert_eq!(way(&text("link")).unwrap_err(), Errno::LOOP);
            assert_eq!(way(&text("link/b")).unwrap_err(), Errno::LOOP);
            assert_eq!(way(&text("a/none")).unwrap_err(), Errno::NOENT);
        }
    }

    #[test]
    fn a_new_boot_trusts_the_birth_time_and_not_the_device() {
        let recorded = FileIdentity {
            inode: 7,
            device: (8, 1),
            born: Some((1, 2)),
        };
        let moved = FileIdentity {
            device: (9, 1),
            ..recorded.clone()
        };
        assert!(recorded.agrees(&recorded, true));
        assert!(!recorded.agrees(&moved, true));
        assert!(recorded.agrees(&moved, false));
        let younger = FileIdentity {
            born: Some((1, 3)),
            ..recorded.clone()
        };
        assert!(!recorded.agrees(&younger, true));
        let unborn = FileIdentity {
            born: None,
            ..recorded.clone()
        };
        let unborn_moved = FileIdentity {
            born: None,
            ..moved
        };
        assert!(!unborn.agrees(&unborn_moved, false));
    }
}

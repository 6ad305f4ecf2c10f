//! The folder that the records lie in.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, FlockOperation, Mode, OFlags};
use rustix::process::geteuid;

use super::journal::{RECORD_LIMIT, broken};
use crate::rename::rename_new;
use crate::{Error, ErrorKind, Identifier, Result};

const SUFFIX: &str = ".jsonl";

/// An open folder that belongs to us alone.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
}

/// What the name of a file in the folder says.
#[derive(Debug, PartialEq)]
pub(super) enum Name {
    Record(Identifier),
    /// A record that was not published yet, or never will be.
    Unpublished,
    Foreign,
}

impl Folder {
    /// Opens `<root>/ledger`, making what is missing with mode 0700.
    pub(super) fn open(root: &Path) -> Result<Self> {
        if !root.is_absolute() {
            return Err(Error::new(
                ErrorKind::Configuration,
                "the ledger's folder must be an absolute path",
            )
            .subject(root.display()));
        }
        if let Some(parent) = root.parent() {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(parent)
                .map_err(|error| {
                    Error::io("the folder above the ledger cannot be made", error)
                        .subject(parent.display())
                        .advice("SEE_STATE_DIR chooses another place")
                })?;
        }
        let outer = open_own(CWD, root, root)?;
        let path = root.join("ledger");
        let fd = open_own(&outer, Path::new("ledger"), &path)?;
        Ok(Self { path, fd })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes an empty file under a name that no reader takes for a record.
    pub(super) fn create_unpublished(&self, identifier: Identifier) -> Result<(String, File)> {
        let name = format!(".{identifier}.{}.new", Identifier::random().short());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(
            &self.fd,
            &name,
            flags | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )
        .map_err(|error| self.failed("a ledger record cannot be made", &name, error))?;
        Ok((name, fd.into()))
    }

    /// Gives a whole, locked record its name; false when somebody collected it before.
    pub(super) fn publish(&self, unpublished: &str, identifier: Identifier) -> Result<bool> {
        let name = record_name(identifier);
        match rename_new(&self.fd, unpublished, &*name) {
            Ok(()) => rustix::fs::fsync(&self.fd)
                .map(|()| true)
                .map_err(|error| self.failed("the ledger cannot be written to disk", ".", error)),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => {
                // Without a name nobody reads it, and gc takes it should this fail.
                let _ = rustix::fs::unlinkat(&self.fd, unpublished, AtFlags::empty());
                Err(self.failed("a ledger record cannot be made", &name, error))
            }
        }
    }

    /// Opens a file of the folder for reading and writing; `None` when it is not there any more.
    pub(super) fn open_file(&self, name: &str) -> Result<Option<File>> {
        let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(rustix::io::Errno::LOOP) => {
                return Err(broken("a ledger record is a symbolic link")
                    .subject(self.path.join(name).display()));
            }
            Err(error) => return Err(self.failed("a ledger record cannot be opened", name, error)),
        };
        let stat = rustix::fs::fstat(&fd)
            .map_err(|error| self.failed("a ledger record cannot be examined", name, error))?;
        let wrong = if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            Some("is not a regular file".to_owned())
        } else if stat.st_uid != geteuid().as_raw() {
            Some(format!("belongs to user {}, not to us", stat.st_uid))
        } else if stat.st_size as u64 > RECORD_LIMIT {
            Some(format!(
                "has {} bytes, at most {RECORD_LIMIT}",
                stat.st_size
            ))
        } else {
            None
        };
        match wrong {
            Some(wrong) => {
                Err(broken(format!("a ledger record {wrong}"))
                    .subject(self.path.join(name).display()))
            }
            None => Ok(Some(fd.into())),
        }
    }

    /// Whether `file` is still what `name` leads to.
    pub(super) fn is_named(&self, name: &str, file: &File) -> bool {
        let named = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW);
        let opened = rustix::fs::fstat(file);
        match (named, opened) {
            (Ok(named), Ok(opened)) => {
                (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)
            }
            _ => false,
        }
    }

    /// Takes the lock that a collection of all records holds until the file is closed; `None` while another
    /// one does.
    pub(super) fn lock_for_collection(&self) -> Result<Option<File>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // Opened anew: a lock belongs to the opening, which clones of the ledger share.
        let folder = rustix::fs::openat(&self.fd, ".", flags, Mode::empty())
            .map_err(|error| self.failed("the ledger cannot be opened", ".", error))?;
        match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(folder.into())),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(self.failed("the ledger cannot be locked", ".", error)),
        }
    }

    /// Removes a file whose lock we hold. Nobody waits for the disk: a record that comes back after a power failure
    /// names what is gone, and the next collection finds that it is.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed("a ledger record cannot be removed", name, error)),
        }
    }

    /// The names of all files, sorted.
    pub(super) fn names(&self) -> Result<Vec<(String, Name)>> {
        let failed = |error| self.failed("the ledger cannot be read", ".", error);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                let meaning = meaning(&name);
                names.push((name, meaning));
            }
        }
        names.sort_unstable_by(|left, right| left.0.cmp(&right.0));
        Ok(names)
    }

    fn failed(&self, message: &'static str, name: &str, error: rustix::io::Errno) -> Error {
        Error::io(message, error.into()).subject(self.path.join(name).display())
    }
}

/// The file name of a record.
pub(super) fn record_name(identifier: Identifier) -> String {
    format!("{identifier}{SUFFIX}")
}

fn meaning(name: &str) -> Name {
    if let Some(stem) = name.strip_suffix(SUFFIX)
        && let Ok(identifier) = stem.parse::<Identifier>()
        && record_name(identifier) == name
    {
        return Name::Record(identifier);
    }
    // As `create_unpublished` makes them: dot, identifier, dot, eight digits.
    match name
        .strip_prefix('.')
        .and_then(|rest| rest.strip_suffix(".new"))
        .and_then(|rest| rest.split_once('.'))
    {
        Some((identifier, random))
            if identifier.parse::<Identifier>().is_ok() && random.len() == 8 =>
        {
            Name::Unpublished
        }
        _ => Name::Foreign,
    }
}

/// Opens the folder, which is made when it is missing, and refuses one that others can reach.
fn open_own(at: impl std::os::fd::AsFd, name: &Path, path: &Path) -> Result<OwnedFd> {
    let failed = |message: &'static str, error: rustix::io::Errno| {
        Error::io(message, error.into())
            .subject(path.display())
            .advice("SEE_STATE_DIR chooses another place")
    };
    match rustix::fs::mkdirat(&at, name, Mode::RWXU) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {}
        Err(error) => return Err(failed("the ledger's folder cannot be made", error)),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match rustix::fs::openat(&at, name, flags, Mode::empty()) {
        Ok(fd) => fd,
        // With O_DIRECTORY a link is not a folder, so both errors mean the same here.
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return Err(Error::io(
                "the ledger's folder must be a real folder, not a link or a file",
                io::ErrorKind::NotADirectory.into(),
            )
            .subject(path.display()));
        }
        Err(error) => return Err(failed("the ledger's folder cannot be opened", error)),
    };
    let stat = rustix::fs::fstat(&fd)
        .map_err(|error| failed("the ledger's folder cannot be examined", error))?;
    let us = geteuid().as_raw();
    if stat.st_uid != us {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!(
                "the ledger's folder belongs to user {}, we are user {us}",
                stat.st_uid
            ),
        )
        .subject(path.display())
        .advice("SEE_STATE_DIR chooses another place"));
    }
    let mode = stat.st_mode & 0o7777;
    if mode & 0o077 != 0 {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            format!("the ledger's folder has mode {mode:04o}, so others can reach it"),
        )
        .subject(path.display())
        .advice("give it mode 0700"));
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_our_own_making_are_records() {
        let identifier = Identifier::random();
        assert_eq!(meaning(&record_name(identifier)), Name::Record(identifier));
        assert_eq!(
            meaning(&format!(".{identifier}.01234567.new")),
            Name::Unpublished
        );
        for name in [
            "notes.txt".to_owned(),
            "x.jsonl".to_owned(),
            format!("{identifier}.jsonl~"),
            format!("{}.jsonl", identifier.to_string().to_uppercase()),
            format!(".{identifier}.new"),
        ] {
            assert_eq!(meaning(&name), Name::Foreign, "{name}");
        }
    }
}

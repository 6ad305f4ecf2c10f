//! The folders of the store: everything below them is reached by plain names, never through a link.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use rustix::process::geteuid;
use see_core::{Error, ErrorKind, Result};

use super::settings::STORE_VARIABLE;

/// The most bytes that a small file of ours has.
const SMALL: u64 = 64 << 10;

/// An open folder that belongs to us alone.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    fd: OwnedFd,
}

impl Folder {
    /// Opens the store's own folder; makes it, and what is above it, with mode 0700.
    pub(crate) fn root(path: &Path) -> Result<Self> {
        if let Err(error) = std::fs::symlink_metadata(path)
            && error.kind() == std::io::ErrorKind::NotFound
        {
            std::fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(|error| elsewhere(told("the image store cannot be made", error, path)))?;
        }
        // A link above the store, such as a home elsewhere, is the user's business; the store itself is none.
        Self::open(CWD, path, path)
    }

    /// Opens a folder in this one; makes it, so that a loss of power leaves it there, when it is missing.
    pub(crate) fn folder(&self, name: &str) -> Result<Self> {
        let path = self.path.join(name);
        let is_missing = self.stat(name)?.is_none();
        if is_missing {
            match rustix::fs::mkdirat(&self.fd, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(self.failed("a folder cannot be made", name, error)),
            }
        }
        let folder = Self::open(&self.fd, Path::new(name), &path)?;
        if is_missing {
            folder.sync()?;
            self.sync()?;
        }
        Ok(folder)
    }

    fn open(at: impl AsFd, name: &Path, path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(at, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOTDIR | Errno::LOOP) => {
                return Err(elsewhere(
                    Error::new(
                        ErrorKind::PermissionDenied,
                        "found a link or a file where the image store has a folder",
                    )
                    .subject(path.display()),
                ));
            }
            Err(error) => {
                let failure = told("the image store cannot be opened", error.into(), path);
                return Err(elsewhere(failure));
            }
        };
        let failed = |error: Errno| told("the image store cannot be looked at", error.into(), path);
        let stat = rustix::fs::fstat(&fd).map_err(failed)?;
        let us = geteuid().as_raw();
        if stat.st_uid != us {
            let found = stat.st_uid;
            return Err(elsewhere(
                Error::new(
                    ErrorKind::PermissionDenied,
                    format!("the image store belongs to user {found}, we are user {us}"),
                )
                .subject(path.display()),
            ));
        }
        let mode = stat.st_mode & 0o7777;
        if mode & 0o077 != 0 {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                format!("the image store has mode {mode:04o}, so others can reach it"),
            )
            .subject(path.display())
            .advice("give it mode 0700"));
        }
        let path = path.to_owned();
        Ok(Self { path, fd })
    }

    /// The folder's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What a name leads to; `None` where there is nothing.
    pub(crate) fn stat(&self, name: &str) -> Result<Option<Stat>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failed("a file cannot be looked at", name, error)),
        }
    }

    /// The length of a file; zero where there is none.
    pub(crate) fn length(&self, name: &str) -> u64 {
        let stat = self.stat(name).ok().flatten();
        stat.map_or(0, |stat| u64::try_from(stat.st_size).unwrap_or(0))
    }

    /// When a file was last changed; `None` where there is none.
    pub(crate) fn modified(&self, name: &str) -> Option<(i64, i64)> {
        let stat = self.stat(name).ok().flatten()?;
        #[expect(
            clippy::unnecessary_cast,
            reason = "the type of nanoseconds differs between platforms"
        )]
        Some((stat.st_mtime as i64, stat.st_mtime_nsec as i64))
    }

    /// Opens a file for reading; `None` where there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<File>> {
        self.open_file(name, OFlags::RDONLY)
    }

    /// Opens a file for reading and writing, and makes it when it is missing.
    pub(crate) fn write(&self, name: &str) -> Result<File> {
        let file = self.open_file(name, OFlags::RDWR | OFlags::CREATE)?;
        file.ok_or_else(|| self.failed("a file cannot be made", name, Errno::NOENT))
    }

    fn open_file(&self, name: &str, flags: OFlags) -> Result<Option<File>> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => fd,
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(self.foreign(name, "is a symbolic link")),
            Err(error) => return Err(self.failed("a file cannot be opened", name, error)),
        };
        let stat = rustix::fs::fstat(&fd)
            .map_err(|error| self.failed("a file cannot be looked at", name, error))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.foreign(name, "is not a regular file"));
        }
        if stat.st_uid != geteuid().as_raw() {
            return Err(self.foreign(name, "belongs to another user"));
        }
        Ok(Some(fd.into()))
    }

    fn foreign(&self, name: &str, what: &str) -> Error {
        Error::new(
            ErrorKind::PermissionDenied,
            format!("a file in the image store {what}, so it is not ours"),
        )
        .subject(self.path.join(name).display())
        .advice("look where it comes from, and remove it")
    }

    /// The text of a small file of ours; `None` where there is none.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>> {
        use std::io::Read as _;
        let Some(file) = self.read(name)? else {
            return Ok(None);
        };
        let mut text = String::new();
        let read = file.take(SMALL).read_to_string(&mut text);
        read.map_err(|error| told("a file cannot be read", error, &self.path.join(name)))?;
        Ok(Some(text))
    }

    /// A record of ours; `None` where there is none, or one that this version does not understand.
    pub(crate) fn record<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let text = self.text(name)?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }

    /// Puts a record in place of the one of this name, if any: whole, or not at all.
    pub(crate) fn put<T: serde::Serialize>(&self, name: &str, record: &T) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|error| {
            Error::new(ErrorKind::Internal, "a record cannot be written").caused_by(error)
        })?;
        let temporary = format!(".{name}.{}", see_core::Identifier::random());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let written = rustix::fs::openat(&self.fd, &temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(std::io::Error::from)
            .and_then(|fd| {
                let mut file = File::from(fd);
                file.write_all(&text)?;
                file.sync_all()?;
                rustix::fs::renameat(&self.fd, &temporary, &self.fd, name)?;
                Ok(rustix::fs::fsync(&self.fd)?)
            });
        written.map_err(|error| {
            // It carries a name that no reader knows.
            let _ = rustix::fs::unlinkat(&self.fd, &temporary, AtFlags::empty());
            written_out("a record cannot be written", error, &self.path.join(name))
        })
    }

    /// Moves a file into another folder of the store, over what has the name there.
    pub(crate) fn rename(&self, name: &str, to: &Self, new: &str) -> Result<()> {
        rustix::fs::renameat(&self.fd, name, &to.fd, new)
            .map_err(|error| self.failed("a file cannot be moved", name, error))?;
        self.sync()?;
        to.sync()
    }

    /// Removes a file; that it is gone already is fine.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.failed("a file cannot be removed", name, error)),
        }
    }

    /// Whether `file` is still what `name` leads to.
    pub(crate) fn is_named(&self, name: &str, file: &File) -> bool {
        match (self.stat(name), rustix::fs::fstat(file)) {
            (Ok(Some(named)), Ok(open)) => {
                (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino)
            }
            _ => false,
        }
    }

    /// The names of all files, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let failed = |error| self.failed("the image store cannot be read", ".", error);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.fd).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if let Ok(name) = entry.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Takes the exclusive lock of a small file; `None` while somebody else has it.
    pub(crate) fn lock(&self, name: &str) -> Result<Option<Lock>> {
        use rustix::fs::{FlockOperation, flock};
        loop {
            let file = self.write(name)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if self.is_named(name, &file) => return Ok(Some(Lock(file))),
                // Its last holder took the name away meanwhile.
                Ok(()) | Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(self.failed("a lock cannot be taken", name, error)),
            }
        }
    }

    /// The bytes that are free for us where the folder lies.
    pub(crate) fn free(&self) -> Result<u64> {
        let found = rustix::fs::fstatvfs(&self.fd)
            .map_err(|error| self.failed("the free space cannot be told", ".", error))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn sync(&self) -> Result<()> {
        rustix::fs::fsync(&self.fd)
            .map_err(|error| self.failed("a folder cannot be written to disk", ".", error))
    }

    fn failed(&self, message: &'static str, name: &str, error: Errno) -> Error {
        written_out(message, error.into(), &self.path.join(name))
    }
}

/// A lock that is held until it is dropped, or its process ends.
#[derive(Debug)]
pub(crate) struct Lock(File);

impl Lock {
    /// Shows those who wait for it that its holder gets on.
    pub(crate) fn touch(&self) {
        touch(&self.0);
    }
}

/// Says that a file was used just now; one that cannot be written keeps its time.
pub(crate) fn touch(file: &File) {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: rustix::fs::UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    let _ = rustix::fs::futimens(file, &times);
}

fn told(message: &'static str, error: std::io::Error, path: &Path) -> Error {
    Error::io(message, error).subject(path.display())
}

/// The same for what writes: a full or read-only disk says what to do.
pub(crate) fn written_out(message: &'static str, error: std::io::Error, path: &Path) -> Error {
    let kind = error.kind();
    let failure = told(message, error, path);
    match kind {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => failure.advice(
            "the disk is full: make room, `seectl image gc --partial` and `rm` help; nothing is kept of what did \
             not fit",
        ),
        std::io::ErrorKind::ReadOnlyFilesystem | std::io::ErrorKind::PermissionDenied => {
            elsewhere(failure)
        }
        _ => failure,
    }
}

fn elsewhere(error: Error) -> Error {
    error.advice(format!(
        "`cache.folder` of the provider, or {STORE_VARIABLE}, chooses another place for images"
    ))
}

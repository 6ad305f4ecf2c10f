//! The folders of the store. Its owner alone passes the one at their root, so that all below is our own.

use std::fs::{DirBuilder, File, Metadata, OpenOptions, TryLockError};
use std::io::{ErrorKind as Io, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;
use rustix::process::geteuid;
use see_core::{Error, ErrorKind, Result};

use super::settings::STORE_VARIABLE;

/// The most bytes that a small file of ours has.
const SMALL: u64 = 64 << 10;

/// A folder that belongs to us alone.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The store's own folder; makes it, and what is above it, with mode 0700.
    pub(crate) fn root(path: &Path) -> Result<Self> {
        if std::fs::symlink_metadata(path).is_err_and(|error| error.kind() == Io::NotFound) {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.map_err(|error| elsewhere(told("the image store cannot be made", error, path)))?;
        }
        Self::checked(path.to_owned())
    }

    /// A folder in this one; makes it, so that a loss of power leaves it there, when it is missing.
    pub(crate) fn folder(&self, name: &str) -> Result<Self> {
        let path = self.path.join(name);
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => {
                let folder = Self { path };
                folder.sync()?;
                self.sync()?;
                Ok(folder)
            }
            Err(error) if error.kind() == Io::AlreadyExists => Self::checked(path),
            Err(error) => Err(self.failed("a folder cannot be made", name, error)),
        }
    }

    /// A link above the store, such as a home elsewhere, is the user's business; the store itself is none.
    fn checked(path: PathBuf) -> Result<Self> {
        let found = std::fs::symlink_metadata(&path)
            .map_err(|error| elsewhere(told("the image store cannot be opened", error, &path)))?;
        let refused =
            |what: String| Error::new(ErrorKind::PermissionDenied, what).subject(path.display());
        if !found.is_dir() {
            let what = "found a link or a file where the image store has a folder";
            return Err(elsewhere(refused(what.to_owned())));
        }
        let (owner, us) = (found.uid(), geteuid().as_raw());
        if owner != us {
            let what = format!("the image store belongs to user {owner}, we are user {us}");
            return Err(elsewhere(refused(what)));
        }
        let mode = found.mode() & 0o7777;
        if mode & 0o077 != 0 {
            let what = format!("the image store has mode {mode:04o}, so others can reach it");
            return Err(refused(what).advice("give it mode 0700"));
        }
        Ok(Self { path })
    }

    /// The folder's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What is known of a file; `None` where there is none.
    pub(crate) fn stat(&self, name: &str) -> Option<Metadata> {
        std::fs::symlink_metadata(self.path.join(name)).ok()
    }

    /// The length of a file; zero where there is none.
    pub(crate) fn length(&self, name: &str) -> u64 {
        self.stat(name).map_or(0, |found| found.len())
    }

    /// When a file was last changed; `None` where there is none.
    pub(crate) fn modified(&self, name: &str) -> Option<SystemTime> {
        self.stat(name)?.modified().ok()
    }

    /// Opens a file for reading; `None` where there is none.
    pub(crate) fn read(&self, name: &str) -> Result<Option<File>> {
        match self.open(name, OpenOptions::new().read(true)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == Io::NotFound => Ok(None),
            Err(error) => Err(self.failed("a file cannot be opened", name, error)),
        }
    }

    /// Opens a file for reading and writing, and makes it when it is missing.
    pub(crate) fn write(&self, name: &str) -> Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        self.open(name, &mut options)
            .map_err(|error| self.failed("a file cannot be opened", name, error))
    }

    /// Never through a link: none of ours is one.
    fn open(&self, name: &str, options: &mut OpenOptions) -> std::io::Result<File> {
        let flags = OFlags::NOFOLLOW.bits().cast_signed();
        options.custom_flags(flags).open(self.path.join(name))
    }

    /// A record of ours; `None` where there is none, or one that this version does not understand.
    pub(crate) fn record<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let Some(file) = self.read(name)? else {
            return Ok(None);
        };
        let mut text = Vec::new();
        let read = file.take(SMALL).read_to_end(&mut text);
        read.map_err(|error| self.failed("a file cannot be read", name, error))?;
        Ok(serde_json::from_slice(&text).ok())
    }

    /// Puts a record in place of the one of this name, if any: whole, or not at all.
    pub(crate) fn put<T: serde::Serialize>(&self, name: &str, record: &T) -> Result<()> {
        let text = serde_json::to_vec(record).map_err(|error| {
            Error::new(ErrorKind::Internal, "a record cannot be written").caused_by(error)
        })?;
        let write = || {
            // It carries a name that no reader knows.
            let mut file = tempfile::Builder::new()
                .prefix(&format!(".{name}."))
                .tempfile_in(&self.path)?;
            file.write_all(&text)?;
            file.as_file().sync_all()?;
            file.persist(self.path.join(name))?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|error| self.failed("a record cannot be written", name, error))
    }

    /// Moves a file into another folder of the store, over what has the name there.
    pub(crate) fn rename(&self, name: &str, to: &Self, new: &str) -> Result<()> {
        std::fs::rename(self.path.join(name), to.path.join(new))
            .map_err(|error| self.failed("a file cannot be moved", name, error))?;
        self.sync()?;
        to.sync()
    }

    /// Removes a file; that it is gone already is fine.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        match std::fs::remove_file(self.path.join(name)) {
            Err(error) if error.kind() != Io::NotFound => {
                Err(self.failed("a file cannot be removed", name, error))
            }
            _ => Ok(()),
        }
    }

    /// The names of all files, sorted.
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        let failed = |error| self.failed("the image store cannot be read", ".", error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path).map_err(failed)? {
            names.extend(entry.map_err(failed)?.file_name().into_string());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Takes the exclusive lock of a small file; `None` while somebody else has it.
    pub(crate) fn lock(&self, name: &str) -> Result<Option<Lock>> {
        loop {
            let file = self.write(name)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => {
                    return Err(self.failed("a lock cannot be taken", name, error));
                }
            }
            // Its last holder may have taken the name away meanwhile.
            let id = |found: Metadata| (found.dev(), found.ino());
            let named = self.stat(name).map(id);
            if named.is_some() && named == file.metadata().ok().map(id) {
                return Ok(Some(Lock(file)));
            }
        }
    }

    /// The bytes that are free for us where the folder lies.
    pub(crate) fn free(&self) -> Result<u64> {
        let found = rustix::fs::statvfs(&self.path)
            .map_err(|error| self.failed("the free space cannot be told", ".", error.into()))?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }

    fn sync(&self) -> Result<()> {
        File::open(&self.path)
            .and_then(|folder| folder.sync_all())
            .map_err(|error| self.failed("a folder cannot be written to disk", ".", error))
    }

    fn failed(&self, message: &'static str, name: &str, error: std::io::Error) -> Error {
        written_out(message, error, &self.path.join(name))
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
    let _ = file.set_modified(SystemTime::now());
}

fn told(message: &'static str, error: std::io::Error, path: &Path) -> Error {
    Error::io(message, error).subject(path.display())
}

/// The same for what writes: a full or read-only disk says what to do.
pub(crate) fn written_out(message: &'static str, error: std::io::Error, path: &Path) -> Error {
    let kind = error.kind();
    let failure = told(message, error, path);
    match kind {
        Io::StorageFull | Io::QuotaExceeded => failure.advice(
            "the disk is full: make room, `seectl image gc --partial` and `rm` help; nothing is kept of what did \
             not fit",
        ),
        _ => elsewhere(failure),
    }
}

fn elsewhere(error: Error) -> Error {
    error.advice(format!(
        "`cache.folder` of the provider, or {STORE_VARIABLE}, chooses another place for images"
    ))
}

//! The token that says: this is written down, it may be made now.

use std::fs::File;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use super::Record;
use crate::ledger::blocking;
use crate::ledger::files;
use crate::ledger::journal::Line;
use crate::ledger::path::{Spot, look, unreachable_path};
use crate::ledger::process::{self, MARK, ProcessIdentity};
use crate::ledger::resource::{Details, Resource};
use crate::{Error, ErrorKind, Identifier, Result};

/// The proof that a resource was written down before it is made.
///
/// Whatever makes a resource asks for the entry. It is not `Clone`: one entry stands for one thing.
/// Dropping it changes nothing in the record.
///
/// As with [`Record`], `_blocking` methods wait for the disk on the calling thread, and the others
/// finish their work even when their future is dropped.
#[derive(Debug)]
#[must_use = "what was written down is collected only once its owner is gone, unless it is marked gone"]
pub struct Entry {
    record: Record,
    number: u32,
    resource: Resource,
}

impl Entry {
    pub(super) fn new(record: Record, number: u32, resource: Resource) -> Self {
        Self {
            record,
            number,
            resource,
        }
    }

    /// The environment that it belongs to.
    pub fn identifier(&self) -> Identifier {
        self.record.identifier()
    }

    /// What it stands for.
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// The path of a file or folder, free of links; `None` for other kinds.
    pub fn path(&self) -> Option<PathBuf> {
        self.resource.path()
    }

    /// The environment variable that a process of this entry is started with, so that it and its
    /// children can be recognised.
    pub fn mark(&self) -> (&'static str, String) {
        (MARK, process::mark(self.identifier(), self.number))
    }

    /// Records that the resource exists, and how its collector recognises it, such as a domain's
    /// UUID. Called again, the last identity counts.
    ///
    /// # Errors
    /// When the record is closed or the disk refuses. The resource exists nevertheless: remove it.
    pub async fn created(&self, identity: Details) -> Result<()> {
        let (record, line) = (self.record.clone(), self.created_line(identity));
        blocking(move || record.progress(line, true)).await
    }

    /// [`Entry::created`] on the calling thread.
    ///
    /// # Errors
    /// As [`Entry::created`].
    pub fn created_blocking(&self, identity: Details) -> Result<()> {
        self.record.progress(self.created_line(identity), true)
    }

    /// Records that the resource is gone, or never came to be.
    ///
    /// # Errors
    /// When the record is closed or the disk refuses; a collection then finds that it is gone.
    pub async fn gone(self) -> Result<()> {
        blocking(move || self.gone_blocking()).await
    }

    /// [`Entry::gone`] on the calling thread.
    ///
    /// # Errors
    /// As [`Entry::gone`].
    pub fn gone_blocking(self) -> Result<()> {
        // Not synchronised: a collection after a power cut finds nothing to remove.
        let line = Line::Gone { entry: self.number };
        self.record.progress(line, false)
    }

    /// Makes the folder, empty and with mode 0700, and records its identity.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] when something has the name, and errors of the file system. What
    /// was made then stays for collection.
    pub fn create_folder_blocking(&self) -> Result<PathBuf> {
        let failed = |error| unreachable_path(&self.resource, error);
        let (spot, path) = self.spot(&[Resource::FOLDER])?;
        rustix::fs::mkdirat(&spot.parent, spot.name, Mode::RWXU).map_err(failed)?;
        self.identify_blocking()?;
        Ok(path)
    }

    /// [`Entry::create_folder_blocking`] on a thread for blocking calls.
    ///
    /// # Errors
    /// As [`Entry::create_folder_blocking`].
    pub async fn create_folder(&self) -> Result<PathBuf> {
        let entry = self.same();
        blocking(move || entry.create_folder_blocking()).await
    }

    /// Makes the file or lease, empty and with mode 0600, records its identity, and returns it open for
    /// reading and writing.
    ///
    /// # Errors
    /// As [`Entry::create_folder_blocking`].
    pub fn create_file_blocking(&self) -> Result<File> {
        let failed = |error| unreachable_path(&self.resource, error);
        let (spot, _) = self.spot(&[Resource::FILE, Resource::LEASE])?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = rustix::fs::openat(&spot.parent, spot.name, flags | OFlags::CLOEXEC, mode)
            .map_err(failed)?;
        let identity = look(&file, "").map_err(failed)?.identity;
        self.created_blocking(identity.details()?)?;
        Ok(file.into())
    }

    /// [`Entry::create_file_blocking`] on a thread for blocking calls.
    ///
    /// # Errors
    /// As [`Entry::create_folder_blocking`].
    pub async fn create_file(&self) -> Result<File> {
        let entry = self.same();
        blocking(move || entry.create_file_blocking()).await
    }

    /// Records the identity of the file or folder that another program, such as `qemu-img`, has just
    /// made at the entry's path.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it is not there, [`ErrorKind::Io`] when something else is, and
    /// errors of the file system.
    pub fn identify_blocking(&self) -> Result<()> {
        self.path_kind()?;
        self.created_blocking(files::identify(&self.resource)?.details()?)
    }

    /// [`Entry::identify_blocking`] on a thread for blocking calls.
    ///
    /// # Errors
    /// As [`Entry::identify_blocking`].
    pub async fn identify(&self) -> Result<()> {
        let entry = self.same();
        blocking(move || entry.identify_blocking()).await
    }

    /// Records the identity of the process that was just started with the entry's
    /// [mark](Entry::mark).
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it has ended already, and as [`Entry::created`].
    pub fn spawned_blocking(&self, pid: u32) -> Result<()> {
        self.created_blocking(ProcessIdentity::of(pid)?.details()?)
    }

    /// [`Entry::spawned_blocking`] on a thread for blocking calls.
    ///
    /// # Errors
    /// As [`Entry::spawned_blocking`].
    pub async fn spawned(&self, pid: u32) -> Result<()> {
        let entry = self.same();
        blocking(move || entry.spawned_blocking(pid)).await
    }

    /// A second handle, for work that must outlive its future; never given out.
    fn same(&self) -> Self {
        Self::new(self.record.clone(), self.number, self.resource.clone())
    }

    fn created_line(&self, identity: Details) -> Line {
        Line::Created {
            entry: self.number,
            identity,
        }
    }

    fn path_kind(&self) -> Result<PathBuf> {
        self.path().ok_or_else(|| self.wrong_kind("file or folder"))
    }

    fn spot(&self, kinds: &[&str]) -> Result<(Spot<'_>, PathBuf)> {
        if !kinds.contains(&&*self.resource.kind) {
            return Err(self.wrong_kind(&kinds.join(" or ")));
        }
        let path = self.path_kind()?;
        let spot = Spot::open(&self.resource)?.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the folder above it does not exist")
                .subject(path.display())
        })?;
        Ok((spot, path))
    }

    fn wrong_kind(&self, wanted: &str) -> Error {
        Error::new(
            ErrorKind::Internal,
            format!(
                "a ledger entry of kind {:?} was used for a {wanted}",
                self.resource.kind
            ),
        )
        .subject(&self.resource.name)
    }
}

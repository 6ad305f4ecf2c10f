//! The ledger of one user on one host.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::folder::{Folder, Name, record_name};
use super::journal::{Header, VERSION};
use super::record::{Record, milliseconds};
use super::{blocking, process, root};
use crate::fault::Faults;
use crate::{Error, Identifier, Result};

/// How long a collection waits for somebody who only looks at a record.
const LOOK: Duration = Duration::from_secs(2);

/// The ledger: all records of one user on one host. Cheap to clone.
///
/// As with [`Record`], `_blocking` methods wait for the disk on the calling thread.
#[derive(Debug, Clone)]
pub struct Ledger {
    pub(super) folder: Arc<Folder>,
    /// What goes wrong in the records that are begun here.
    pub(super) faults: Faults,
}

/// What trying to take a record's lock came to.
#[derive(Debug)]
pub(super) enum Taken {
    /// It is ours until the file is closed.
    Locked(File),
    /// Its owner, or another collection, has it.
    Busy,
    /// The record was removed in the meantime.
    Vanished,
}

impl Ledger {
    /// The place for the ledger: `$SEE_STATE_DIR`, else `$XDG_STATE_HOME/see`, else
    /// `$HOME/.local/state/see`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) when none of them is an absolute
    /// path.
    pub fn default_root() -> Result<PathBuf> {
        root::default_root(|name| std::env::var_os(name))
    }

    /// Opens the ledger beneath `root`, which is made with mode 0700 when it is missing.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`](crate::ErrorKind::PermissionDenied) when the folder belongs to
    /// somebody else or can be reached by others, and an error of the file system when it is a link
    /// or cannot be made.
    pub async fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        blocking(move || Self::open_blocking(&root)).await
    }

    /// [`Ledger::open`] on the calling thread.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn open_blocking(root: impl AsRef<Path>) -> Result<Self> {
        Ok(Self {
            folder: Arc::new(Folder::open(root.as_ref())?),
            faults: Faults::default(),
        })
    }

    /// The same ledger, in whose new records these faults happen.
    #[cfg(feature = "testing")]
    pub(crate) fn with_faults(&self, faults: Faults) -> Self {
        Self {
            folder: Arc::clone(&self.folder),
            faults,
        }
    }

    /// The folder that the records lie in.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Begins the record of a new environment; `note` says to people what it is.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`](crate::ErrorKind::AlreadyExists) when there is a record of that
    /// name, and errors of the disk.
    pub async fn begin(&self, identifier: Identifier, note: impl Into<String>) -> Result<Record> {
        let (ledger, note) = (self.clone(), note.into());
        blocking(move || ledger.begin_blocking(identifier, note)).await
    }

    /// [`Ledger::begin`] on the calling thread.
    ///
    /// # Errors
    /// As [`Ledger::begin`].
    pub fn begin_blocking(
        &self,
        identifier: Identifier,
        note: impl Into<String>,
    ) -> Result<Record> {
        let header = Header {
            see_ledger: VERSION,
            identifier,
            uid: rustix::process::geteuid().as_raw(),
            pid: std::process::id(),
            process_started: process::started(std::process::id())?.unwrap_or(0),
            created: milliseconds(SystemTime::now()),
            boot: process::boot(),
            note: note.into(),
        };
        Record::begin(self.folder.clone(), header, self.faults.clone())
    }

    /// Tries to become the only one who may change the record.
    pub(super) fn take(&self, identifier: Identifier) -> Result<Taken> {
        let name = record_name(identifier);
        let Some(file) = self.folder.open_file(&name)? else {
            return Ok(Taken::Vanished);
        };
        let deadline = Instant::now() + LOOK;
        let failed = |error: io::Error| {
            Error::io("a ledger record cannot be locked", error).subject(identifier)
        };
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) => {}
            }
            // An owner's lock excludes the shared one as well; that of a listing does not.
            match file.try_lock_shared() {
                Ok(()) => file.unlock().map_err(failed)?,
                Err(TryLockError::Error(error)) => return Err(failed(error)),
                Err(TryLockError::WouldBlock) => return Ok(Taken::Busy),
            }
            if Instant::now() >= deadline {
                return Ok(Taken::Busy);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        // Whoever had the lock before may have removed the record.
        if self.folder.is_named(&name, &file) {
            Ok(Taken::Locked(file))
        } else {
            Ok(Taken::Vanished)
        }
    }

    /// Removes what owners left that died before their record had its name: they made nothing yet.
    pub(super) fn sweep(&self) -> Result<()> {
        for (name, meaning) in self.folder.names()? {
            if meaning == Name::Unpublished
                && let Some(file) = self.folder.open_file(&name)?
                && file.try_lock().is_ok()
            {
                self.folder.remove(&name)?;
            }
        }
        Ok(())
    }
}

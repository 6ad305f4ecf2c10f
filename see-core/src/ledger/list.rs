//! What `seectl ls` shows.

use std::fs::{File, TryLockError};
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime};

use super::blocking;
use super::folder::{Name, record_name};
use super::process;
use super::record::{milliseconds, read, release};
use super::resource::Resource;
use super::store::Ledger;
use crate::{Error, Identifier, Result};

/// One environment of the ledger.
#[derive(Debug)]
#[non_exhaustive]
pub struct Listed {
    /// Its name.
    pub identifier: Identifier,
    /// Whether somebody owns it.
    pub state: RecordState,
    /// The user it belongs to.
    pub uid: u32,
    /// The process that made it, where the record could be read. For display: it may be long dead,
    /// and its number in use by another.
    pub pid: Option<u32>,
    /// When that process started; `None` where the host was booted since, too.
    pub started: Option<SystemTime>,
    /// Since the record was made; for a broken one, since it was last written.
    pub age: Duration,
    /// What its owner said it is. It may hold anything: escape it before showing it.
    pub note: String,
    /// What may exist, in order of intention.
    pub holdings: Vec<Resource>,
}

/// Whether an environment has an owner.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecordState {
    /// Its owner, or a collection, holds the record's lock.
    Alive,
    /// It has no owner, and was asked to be kept until then.
    Kept(SystemTime),
    /// It has no owner: it will be collected.
    Orphaned,
    /// Its record cannot be read, so nothing of it is touched.
    Broken(Error),
}

impl Ledger {
    /// All environments, sorted by identifier. It disturbs neither owners nor collections.
    ///
    /// # Errors
    /// When the ledger's folder cannot be read. A record that cannot is [`RecordState::Broken`].
    pub async fn list(&self) -> Result<Vec<Listed>> {
        let ledger = self.clone();
        blocking(move || ledger.list_blocking()).await
    }

    /// [`Ledger::list`] on the calling thread.
    ///
    /// # Errors
    /// As [`Ledger::list`].
    pub fn list_blocking(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        for (_, meaning) in self.folder.names()? {
            if let Name::Record(identifier) = meaning {
                match self.look(identifier) {
                    Ok(Some(one)) => listed.push(one),
                    Ok(None) => {}
                    Err(error) => listed.push(broken(identifier, None, error)),
                }
            }
        }
        Ok(listed)
    }

    /// `None` when it is gone by now.
    fn look(&self, identifier: Identifier) -> Result<Option<Listed>> {
        let name = record_name(identifier);
        let Some(mut file) = self.folder.open_file(&name)? else {
            return Ok(None);
        };
        // A shared lock: two who look do not take each other for an owner.
        let alive = match file.try_lock_shared() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => {
                return Err(
                    Error::io("a ledger record cannot be locked", error).subject(identifier)
                );
            }
        };
        let vanished = !alive && !self.folder.is_named(&name, &file);
        let journal = read(&mut file, identifier);
        release(&file);
        if vanished {
            return Ok(None);
        }
        let journal = match journal {
            Ok((journal, ..)) => journal,
            Err(error) => return Ok(Some(broken(identifier, Some(&file), error))),
        };
        let now = milliseconds(SystemTime::now());
        let state = match journal.keep_until {
            _ if alive => RecordState::Alive,
            Some(until) if until > now => {
                RecordState::Kept(time(until).unwrap_or_else(|| SystemTime::now() + FOREVER))
            }
            _ => RecordState::Orphaned,
        };
        let holdings = journal.resources();
        Ok(Some(Listed {
            identifier,
            state,
            uid: journal.header.uid,
            pid: Some(journal.header.pid),
            started: process::start(&journal.header.boot, journal.header.process_started),
            age: Duration::from_millis(now.saturating_sub(journal.header.created)),
            note: journal.header.note,
            holdings,
        }))
    }
}

/// Stands for a time that the clock cannot express.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

fn time(milliseconds: u64) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
}

fn broken(identifier: Identifier, file: Option<&File>, error: Error) -> Listed {
    let metadata = file.and_then(|file| file.metadata().ok());
    let written = metadata.as_ref().and_then(|data| data.modified().ok());
    Listed {
        identifier,
        state: RecordState::Broken(error),
        uid: metadata
            .as_ref()
            .map_or_else(|| rustix::process::geteuid().as_raw(), MetadataExt::uid),
        pid: None,
        started: None,
        age: written
            .and_then(|written| written.elapsed().ok())
            .unwrap_or_default(),
        note: String::new(),
        holdings: Vec::new(),
    }
}

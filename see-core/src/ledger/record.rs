//! One environment's record, held by its owner or by a collection.

mod entry;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::SystemTime;

pub use self::entry::Entry;
use super::anchor::Anchor;
use super::blocking;
use super::collector::CollectRequest;
use super::collectors::Collectors;
use super::folder::{Folder, record_name};
use super::journal::{Header, INTENT_LIMIT, Journal, Line, RECORD_LIMIT, broken, encode};
use super::resource::Resource;
use crate::fault::{Faults, Point};
use crate::{Error, ErrorKind, Identifier, Result};

/// The record of an environment that is alive: as long as one of its clones or entries exists and it
/// is not closed, or a collector is still at work on it, its lock is held and nobody else collects what it names.
///
/// A method whose name ends in `_blocking` waits for the disk on the calling thread. The others do
/// the same work on a thread for blocking calls: they need a tokio runtime, and the work is finished
/// even when their future is dropped.
#[derive(Debug, Clone)]
pub struct Record {
    shared: Arc<Shared>,
}

/// What a record's clones and its entries share.
#[derive(Debug)]
pub(super) struct Shared {
    folder: Arc<Folder>,
    identifier: Identifier,
    faults: Faults,
    /// Those of an allocation, once they are known.
    collectors: OnceLock<Collectors>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` once the record is closed.
    file: Option<Arc<Locked>>,
    /// Where the next line goes.
    end: u64,
    /// Whether something half-written follows `end`.
    torn: bool,
    journal: Journal,
}

impl Record {
    /// The environment that it belongs to.
    pub fn identifier(&self) -> Identifier {
        self.shared.identifier
    }

    /// Writes down, in one go, what is about to be made; afterwards it is safe against a crash.
    ///
    /// The folder that a file or folder lies in is taken as it is now, its links resolved. Entries
    /// that are dropped stay in the record until they are collected.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] for a path that exists, [`ErrorKind::Configuration`] for one that
    /// does not contain the identifier (it could not be told from others' after a crash) or for a
    /// malformed resource, [`ErrorKind::Unsupported`] within an allocation for a kind that has no collector,
    /// [`ErrorKind::Exhausted`] when the record or the disk is full. The record is then as before.
    pub async fn intend(
        &self,
        resources: impl IntoIterator<Item = Resource>,
    ) -> Result<Vec<Entry>> {
        let resources: Vec<Resource> = resources.into_iter().collect();
        let record = self.clone();
        blocking(move || record.intend_blocking(resources)).await
    }

    /// [`Record::intend`] on the calling thread.
    ///
    /// # Errors
    /// As [`Record::intend`].
    pub fn intend_blocking(
        &self,
        resources: impl IntoIterator<Item = Resource>,
    ) -> Result<Vec<Entry>> {
        self.shared.faults.reach(Point::Intend)?;
        let mut resources: Vec<Resource> = resources.into_iter().collect();
        for resource in &mut resources {
            resource.check()?;
            if let Some(collectors) = self.shared.collectors.get() {
                collectors.find(&resource.kind)?;
            }
            settle_path(resource, self.identifier())?;
        }
        let mut state = self.shared.state();
        let first = state.journal.next;
        let lines: Vec<Line> = (first..)
            .zip(&resources)
            .map(|(entry, resource)| Line::Intend {
                entry,
                resource: resource.clone(),
            })
            .collect();
        state.append(lines, INTENT_LIMIT, true)?;
        drop(state);
        Ok((first..)
            .zip(resources)
            .map(|(number, resource)| Entry::new(self.clone(), number, resource))
            .collect())
    }

    /// [`Record::intend`] for a single resource.
    ///
    /// # Errors
    /// As [`Record::intend`].
    pub async fn intend_one(&self, resource: Resource) -> Result<Entry> {
        let record = self.clone();
        blocking(move || record.intend_one_blocking(resource)).await
    }

    /// [`Record::intend_one`] on the calling thread.
    ///
    /// # Errors
    /// As [`Record::intend`].
    pub fn intend_one_blocking(&self, resource: Resource) -> Result<Entry> {
        let mut entries = self.intend_blocking([resource])?;
        entries.pop().ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "the ledger gave no entry for a resource",
            )
        })
    }

    /// Keeps the environment alive without its owner, until `time`: nobody collects it before.
    ///
    /// # Errors
    /// When the disk refuses.
    pub async fn keep_until(&self, time: SystemTime) -> Result<()> {
        let record = self.clone();
        blocking(move || record.keep_until_blocking(time)).await
    }

    /// [`Record::keep_until`] on the calling thread.
    ///
    /// # Errors
    /// As [`Record::keep_until`].
    pub fn keep_until_blocking(&self, time: SystemTime) -> Result<()> {
        let until = milliseconds(time);
        self.shared
            .state()
            .append(vec![Line::Keep { until }], RECORD_LIMIT, true)
    }

    /// What may still exist, in order of intention.
    pub fn holdings(&self) -> Vec<Resource> {
        self.shared.state().journal.resources()
    }

    /// Everything that was ever written down, in order of intention, also once the record is closed.
    pub(super) fn recorded(&self) -> Vec<CollectRequest> {
        let recorded = self.shared.state().journal.recorded.clone();
        recorded
            .into_iter()
            .map(|held| {
                let mut request = CollectRequest::new(self.identifier(), held.resource);
                request.entry = held.entry;
                request.identity = held.identity;
                request
            })
            .collect()
    }

    /// Refuses from now on to intend what none of these could remove.
    pub(crate) fn only_for(&self, collectors: Collectors) {
        // Said once, when the record was begun.
        let _ = self.shared.collectors.set(collectors);
    }

    /// Ends the ownership. When everything is gone the record is removed; else it stays for
    /// collection, and what may still exist is returned.
    ///
    /// Later calls, and calls on entries that are left, find the record closed; closing it twice is
    /// harmless.
    ///
    /// # Errors
    /// When the record cannot be removed; it is closed nevertheless, and will be collected.
    pub async fn close(&self) -> Result<Vec<Resource>> {
        let record = self.clone();
        blocking(move || record.close_blocking()).await
    }

    /// [`Record::close`] on the calling thread.
    ///
    /// # Errors
    /// As [`Record::close`].
    pub fn close_blocking(&self) -> Result<Vec<Resource>> {
        let mut state = self.shared.state();
        let left = state.journal.resources();
        let Some(_locked) = state.file.take() else {
            return Ok(left);
        };
        // While nobody else can take the record.
        if left.is_empty() {
            self.shared
                .folder
                .remove(&record_name(self.shared.identifier))?;
        }
        Ok(left)
    }

    /// Keeps the record locked, also after it is closed, for as long as the caller works on what it names. `None` once
    /// it is closed.
    pub(super) fn locked(&self) -> Option<Arc<Locked>> {
        self.shared.state().file.clone()
    }

    /// Makes the record of a new environment.
    pub(super) fn begin(folder: Arc<Folder>, header: Header, faults: Faults) -> Result<Self> {
        // Each round loses only to a collector that took the file between its creation and its lock.
        for _ in 0..64 {
            let (name, file) = folder.create_unpublished(header.identifier)?;
            if file.try_lock().is_err() {
                continue;
            }
            let bytes = encode(&header)?;
            let written = file.write_all_at(&bytes, 0).and_then(|()| file.sync_all());
            if let Err(error) = written {
                let _ = folder.remove(&name);
                return Err(Error::io("a ledger record cannot be written", error)
                    .subject(folder.path().display()));
            }
            if folder.publish(&name, header.identifier)? {
                let end = bytes.len() as u64;
                let journal = Journal::new(header);
                return Ok(Self::new(folder, faults, file, journal, end, false));
            }
        }
        Err(Error::new(
            ErrorKind::Internal,
            "new ledger records are taken away at once by somebody else",
        )
        .subject(folder.path().display()))
    }

    /// Takes over a record whose lock the caller holds.
    pub(super) fn take_over(
        folder: Arc<Folder>,
        identifier: Identifier,
        mut file: File,
    ) -> Result<Self> {
        let (journal, end, torn) = read(&mut file, identifier)?;
        Ok(Self::new(
            folder,
            Faults::default(),
            file,
            journal,
            end,
            torn,
        ))
    }

    pub(super) fn journal(&self) -> Journal {
        self.shared.state().journal.clone()
    }

    /// Appends progress on an entry. `sync` where a loss would matter.
    pub(super) fn progress(&self, line: Line, sync: bool) -> Result<()> {
        let point = match line {
            Line::Gone { .. } => Point::Gone,
            _ => Point::Created,
        };
        self.shared.faults.reach(point)?;
        self.shared.state().append(vec![line], RECORD_LIMIT, sync)
    }

    fn new(
        folder: Arc<Folder>,
        faults: Faults,
        file: File,
        journal: Journal,
        end: u64,
        torn: bool,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                folder,
                identifier: journal.header.identifier,
                faults,
                collectors: OnceLock::new(),
                state: Mutex::new(State {
                    file: Some(Arc::new(Locked(file))),
                    end,
                    torn,
                    journal,
                }),
            }),
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic leaves the state as it was: it changes last, in one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A record's file, whose lock is given back with the last who works on the record.
#[derive(Debug)]
pub(super) struct Locked(File);

impl Drop for Locked {
    fn drop(&mut self) {
        release(&self.0);
    }
}

/// Gives the lock back at once. Closing the file would do so only when no child process that is just
/// being started still has a copy of it.
pub(super) fn release(file: &File) {
    // Should it fail, the lock ends with the file.
    let _ = file.unlock();
}

impl State {
    /// Writes all lines or none.
    fn append(&mut self, lines: Vec<Line>, limit: u64, sync: bool) -> Result<()> {
        let identifier = self.journal.header.identifier;
        let Some(Locked(file)) = self.file.as_deref() else {
            return Err(Error::new(
                ErrorKind::IllegalTransition,
                "the environment's ledger record is closed",
            )
            .subject(identifier));
        };
        let mut journal = self.journal.clone();
        let mut bytes = Vec::new();
        for line in lines {
            bytes.extend_from_slice(&encode(&line)?);
            journal.apply(line)?;
        }
        if self.end + bytes.len() as u64 > limit {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!("the environment's ledger record is full: {limit} bytes"),
            )
            .subject(identifier));
        }
        let torn = std::mem::replace(&mut self.torn, true);
        let written = if torn { file.set_len(self.end) } else { Ok(()) }
            .and_then(|()| file.write_all_at(&bytes, self.end))
            .and_then(|()| if sync { file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            // Best effort: the next append repeats it, and a reader ignores a torn end.
            let _ = file.set_len(self.end);
            return Err(Error::io("the ledger cannot be written", error).subject(identifier));
        }
        self.torn = false;
        self.end += bytes.len() as u64;
        self.journal = journal;
        Ok(())
    }
}

impl Journal {
    pub(super) fn resources(&self) -> Vec<Resource> {
        self.held.iter().map(|held| held.resource.clone()).collect()
    }
}

/// Reads a record from its beginning.
pub(super) fn read(file: &mut File, identifier: Identifier) -> Result<(Journal, u64, bool)> {
    let mut bytes = Vec::new();
    // A little more than allowed, so that too much is seen as such.
    file.take(RECORD_LIMIT + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("a ledger record cannot be read", error).subject(identifier))?;
    let checked = (|| {
        if bytes.len() as u64 > RECORD_LIMIT {
            return Err(broken("the record is too long"));
        }
        let (journal, end) = Journal::replay(&bytes)?;
        if journal.header.identifier != identifier {
            return Err(broken("the record names another environment"));
        }
        if journal.header.uid != rustix::process::geteuid().as_raw() {
            return Err(broken("the record names another owner"));
        }
        Ok((journal, end))
    })();
    let (journal, end) = checked.map_err(|error| error.subject(identifier))?;
    Ok((journal, end, end < bytes.len() as u64))
}

/// Milliseconds since 1970; times before count as 1970.
pub(super) fn milliseconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis().try_into().unwrap_or(u64::MAX))
}

/// Resolves the folder of a file or folder, and makes sure that it can be recognised later.
fn settle_path(resource: &mut Resource, identifier: Identifier) -> Result<()> {
    let Some(path) = resource.path() else {
        return Ok(());
    };
    if !path.to_string_lossy().contains(&identifier.to_string()) {
        return Err(Error::new(
            ErrorKind::Configuration,
            "the path of an environment's file must contain its identifier",
        )
        .subject(path.display())
        .advice(format!("put {identifier} into the name")));
    }
    let root = std::fs::canonicalize(&resource.location).map_err(|error| {
        Error::io(
            "the folder for an environment's files cannot be found",
            error,
        )
        .subject(&resource.location)
    })?;
    let Some(text) = root.to_str() else {
        return Err(Error::new(
            ErrorKind::Configuration,
            "a path that the ledger keeps must be UTF-8",
        )
        .subject(root.display()));
    };
    let path = Path::new(text).join(&resource.name);
    match std::fs::symlink_metadata(&path) {
        Ok(_) => Err(Error::new(ErrorKind::AlreadyExists, "it exists already")
            .subject(path.display())
            .advice("nothing is reused: remove it, or choose another place")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            resource.location = text.to_owned();
            let anchor = Anchor::of(&root).map_err(|error| {
                Error::io("a file system cannot be examined", error.into()).subject(root.display())
            })?;
            anchor.keep(resource)
        }
        Err(error) => Err(Error::io("a path cannot be examined", error).subject(path.display())),
    }
}

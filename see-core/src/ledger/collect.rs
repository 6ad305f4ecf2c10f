//! Removing what dead owners left.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use super::collector::{CollectRequest, Collected};
use super::collectors::Collectors;
use super::folder::Name;
use super::journal::{Held, Journal, Line};
use super::record::{Record, milliseconds};
use super::resource::Resource;
use super::store::{Ledger, Taken};
use super::{blocking, process};
use crate::{Error, ErrorKind, Identifier, Result};

/// The longest removal of one resource: hypervisors take their time to end a machine on a slow host.
pub(crate) const REMOVAL: Duration = Duration::from_secs(60);
/// What a collector gets beyond its deadline before it is left behind.
const GRACE: Duration = Duration::from_secs(2);

/// What a collection does.
#[derive(Debug, Clone)]
pub struct CollectOptions {
    /// Find out what would be removed, and change nothing.
    pub dry_run: bool,
    /// Leave records alone that are younger.
    pub older_than: Duration,
    /// Only this environment.
    pub only: Option<Identifier>,
    /// Also those whose owner asked for them to be kept and died.
    pub include_kept: bool,
    /// The time for each resource.
    pub deadline: Duration,
    /// The time for all of it: what is not begun by then is left for later. `None`: as long as it takes.
    pub within: Option<Duration>,
}

impl Default for CollectOptions {
    /// All orphans, of any age, with a minute for each resource.
    fn default() -> Self {
        Self {
            dry_run: false,
            older_than: Duration::ZERO,
            only: None,
            include_kept: false,
            deadline: REMOVAL,
            within: None,
        }
    }
}

/// What a collection came to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// Whether it only looked.
    pub dry_run: bool,
    /// One for each record, sorted by identifier.
    pub records: Vec<RecordReport>,
    /// What is wrong with the ledger itself.
    pub problems: Vec<Error>,
    /// Files in the ledger's folder that are no records: somebody else's, so they are left alone.
    pub foreign: Vec<PathBuf>,
}

/// What became of one record.
#[derive(Debug)]
#[non_exhaustive]
pub struct RecordReport {
    /// The environment.
    pub identifier: Identifier,
    /// The sum.
    pub outcome: RecordOutcome,
    /// Each resource that it named, in the order of collection: what runs, then the rest in the reverse of their
    /// intention, then leases.
    pub resources: Vec<(Resource, Outcome)>,
}

/// What became of a record as a whole.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecordOutcome {
    /// Everything is gone, and so is the record; in a dry run, both would be.
    Collected,
    /// Something could not be removed, so the record stays.
    Left,
    /// It was not touched: its owner, or another collection, holds it.
    Alive,
    /// It was not touched: it is to be kept until then.
    Kept(SystemTime),
    /// It was not touched: it is younger than asked for.
    Young(Duration),
    /// It was not touched: the time for the collection was over.
    Postponed,
    /// The record cannot be read, locked or removed.
    Broken(Error),
}

/// What became of a resource.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// It was removed; in a dry run, it would be.
    Removed,
    /// It was not there.
    AlreadyGone,
    /// Nothing showed that it is the environment's; the text says what was found.
    Refused(String),
    /// It could not be removed, or nobody knows how.
    Failed(Error),
    /// It was left because something else was, which may need it or lie in it.
    Waiting,
}

impl Report {
    /// Whether everything that was to be removed was, and nothing is wrong.
    pub fn is_clean(&self) -> bool {
        let fine = |record: &RecordReport| {
            !matches!(
                record.outcome,
                RecordOutcome::Left | RecordOutcome::Broken(_)
            )
        };
        self.problems.is_empty() && self.records.iter().all(fine)
    }
}

impl RecordReport {
    fn untouched(identifier: Identifier, outcome: RecordOutcome) -> Self {
        Self {
            identifier,
            outcome,
            resources: Vec::new(),
        }
    }
}

impl Outcome {
    /// Whether the resource does not exist any more, or in a dry run would not.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Removed | Self::AlreadyGone)
    }
}

impl Ledger {
    /// Removes what dead owners left, and their records once everything is gone: first what runs, then the
    /// rest, the last intended first, and leases last. What cannot be removed is reported and stops no
    /// other record. Records of living owners, and those that another collection has, are not touched.
    ///
    /// The work goes on when this future is dropped.
    ///
    /// # Errors
    /// When the ledger's folder cannot be read, and [`ErrorKind::NotFound`] when there is no record
    /// of the one environment that was asked for.
    pub async fn collect(
        &self,
        collectors: &Collectors,
        options: CollectOptions,
    ) -> Result<Report> {
        let (ledger, collectors) = (self.clone(), collectors.clone());
        joined(tokio::spawn(async move {
            let folder = ledger.folder.clone();
            // So that nobody begins to tidy meanwhile; whoever does already is no hindrance.
            let _first = blocking(move || folder.lock_for_collection()).await?;
            ledger.collect_all(&collectors, &options).await
        }))
        .await?
    }

    /// Removes what dead owners left before something new is made: for at most `within`, and not where
    /// somebody else collects at the moment, which gives `None`.
    ///
    /// The work goes on when this future is dropped, or later than `within`; both end it for the caller
    /// alone.
    ///
    /// # Errors
    /// As [`Ledger::collect`]; [`ErrorKind::Timeout`] where a collector is still at work.
    pub async fn tidy(&self, collectors: &Collectors, within: Duration) -> Result<Option<Report>> {
        let (ledger, collectors) = (self.clone(), collectors.clone());
        let options = CollectOptions {
            deadline: within,
            within: Some(within),
            ..CollectOptions::default()
        };
        let work = tokio::spawn(async move {
            let folder = ledger.folder.clone();
            match blocking(move || folder.lock_for_collection()).await? {
                None => Ok(None),
                Some(_first) => ledger.collect_all(&collectors, &options).await.map(Some),
            }
        });
        match tokio::time::timeout(within, joined(work)).await {
            Ok(done) => done?,
            Err(_) => Err(Error::timeout("the collection of what was left", within)),
        }
    }

    async fn collect_all(
        &self,
        collectors: &Collectors,
        options: &CollectOptions,
    ) -> Result<Report> {
        let ledger = self.clone();
        let (sweeping, dry_run) = (options.only.is_none(), options.dry_run);
        let (names, swept) = blocking(move || {
            let names = ledger.folder.names()?;
            let sweep = sweeping && !dry_run;
            Ok((names, if sweep { ledger.sweep() } else { Ok(()) }))
        })
        .await?;
        let mut report = Report {
            dry_run,
            records: Vec::new(),
            problems: swept.err().into_iter().collect(),
            foreign: Vec::new(),
        };
        let end = options.within.map(|within| Instant::now() + within);
        for (name, meaning) in names {
            match meaning {
                Name::Record(identifier) if options.only.is_none_or(|only| only == identifier) => {
                    let late = end.is_some_and(|end| Instant::now() >= end);
                    let record = match late {
                        true => Some(RecordReport::untouched(
                            identifier,
                            RecordOutcome::Postponed,
                        )),
                        false => self.collect_one(identifier, collectors, options).await,
                    };
                    report.records.extend(record);
                }
                Name::Foreign if sweeping => report.foreign.push(self.path().join(name)),
                _ => {}
            }
        }
        if let Some(only) = options.only
            && report.records.is_empty()
        {
            return Err(
                Error::new(ErrorKind::NotFound, "the ledger has no such environment").subject(only),
            );
        }
        Ok(report)
    }

    /// `None` when the record is gone by now.
    async fn collect_one(
        &self,
        identifier: Identifier,
        collectors: &Collectors,
        options: &CollectOptions,
    ) -> Option<RecordReport> {
        let untouched = |outcome| Some(RecordReport::untouched(identifier, outcome));
        let ledger = self.clone();
        let taken = blocking(move || {
            Ok(match ledger.take(identifier)? {
                Taken::Vanished => Err(None),
                Taken::Busy => Err(Some(RecordOutcome::Alive)),
                Taken::Locked(file) => {
                    Ok(Record::take_over(ledger.folder.clone(), identifier, file)?)
                }
            })
        });
        let record = match taken.await {
            Ok(Ok(record)) => record,
            Ok(Err(None)) => return None,
            Ok(Err(Some(outcome))) => return untouched(outcome),
            Err(error) => return untouched(RecordOutcome::Broken(error)),
        };
        let journal = record.journal();
        let now = milliseconds(SystemTime::now());
        if let Some(until) = journal.keep_until
            && until > now
            && !options.include_kept
        {
            let left = Duration::from_millis(until - now);
            let until = SystemTime::now().checked_add(left);
            return untouched(RecordOutcome::Kept(until.unwrap_or_else(SystemTime::now)));
        }
        let age = Duration::from_millis(now.saturating_sub(journal.header.created));
        if age < options.older_than {
            return untouched(RecordOutcome::Young(age));
        }
        let resources = collect_held(&record, collectors, options).await;
        let gone = resources.iter().all(|(_, outcome)| outcome.is_gone());
        let outcome = if !gone {
            RecordOutcome::Left
        } else if options.dry_run {
            RecordOutcome::Collected
        } else {
            match record.close().await {
                Ok(left) if left.is_empty() => RecordOutcome::Collected,
                Ok(_) => RecordOutcome::Left,
                Err(error) => RecordOutcome::Broken(error),
            }
        };
        Some(RecordReport {
            identifier,
            outcome,
            resources,
        })
    }
}

impl Record {
    /// Removes everything that the record still names, in the order of [`Ledger::collect`]: the owner's own last
    /// step, which finds also what was made and then forgotten. `deadline` is for each resource.
    ///
    /// The work goes on when this future is dropped, and ends with the resource at which the record is closed.
    ///
    /// # Errors
    /// Only when the work panicked; what could not be removed is in the outcomes.
    pub async fn collect(
        &self,
        collectors: &Collectors,
        deadline: Duration,
    ) -> Result<Vec<(Resource, Outcome)>> {
        let (record, collectors) = (self.clone(), collectors.clone());
        let options = CollectOptions {
            deadline,
            ..CollectOptions::default()
        };
        joined(tokio::spawn(async move {
            collect_held(&record, &collectors, &options).await
        }))
        .await
    }
}

/// Collects all that a locked record holds, in the order of [`rank`].
async fn collect_held(
    record: &Record,
    collectors: &Collectors,
    options: &CollectOptions,
) -> Vec<(Resource, Outcome)> {
    let Journal {
        header, mut held, ..
    } = record.journal();
    let same_boot = header.boot == process::boot();
    held.sort_by_key(|held| rank(held, collectors));
    let mut left: Vec<Held> = Vec::new();
    let mut outcomes = Vec::new();
    for held in held {
        let is_needed = left.iter().any(|left| needs(left, &held, collectors));
        let outcome = if is_needed && !collectors.runs(&held.resource.kind) {
            Outcome::Waiting
        } else {
            attempt(record, held.clone(), same_boot, collectors, options).await
        };
        let resource = held.resource.clone();
        if !outcome.is_gone() {
            left.push(held);
        }
        outcomes.push((resource, outcome));
    }
    outcomes
}

/// The order of removal: what runs, the first intended first, so that the machine is not kept waiting by what hooks
/// made later; then the rest, the last intended first; then the leases.
fn rank(held: &Held, collectors: &Collectors) -> (u8, u32) {
    let backwards = u32::MAX - held.entry;
    match &*held.resource.kind {
        kind if collectors.runs(kind) => (0, held.entry),
        Resource::LEASE => (2, backwards),
        _ => (1, backwards),
    }
}

/// Whether something that could not be removed may need `held`: a machine its disk, its network and that network's
/// firewall, which were intended before it; a file the folder that it lies in; anything a lease.
fn needs(left: &Held, held: &Held, collectors: &Collectors) -> bool {
    if held.resource.kind == Resource::LEASE {
        return left.resource.kind != Resource::LEASE;
    }
    if left.entry < held.entry {
        return false;
    }
    match (left.resource.path(), held.resource.path()) {
        (Some(left), Some(path)) => left.starts_with(path),
        (Some(_), None) => false,
        (None, _) => collectors.needs(&left.resource.kind, &held.resource),
    }
}

async fn attempt(
    record: &Record,
    held: Held,
    same_boot: bool,
    collectors: &Collectors,
    options: &CollectOptions,
) -> Outcome {
    match run(record, held, same_boot, collectors, options).await {
        Ok(Collected::Removed) => Outcome::Removed,
        Ok(Collected::AlreadyGone) => Outcome::AlreadyGone,
        Ok(Collected::Refused(reason)) => Outcome::Refused(reason),
        Err(error) => Outcome::Failed(error),
    }
}

async fn run(
    record: &Record,
    held: Held,
    same_boot: bool,
    collectors: &Collectors,
    options: &CollectOptions,
) -> Result<Collected> {
    let collector = collectors.find(&held.resource.kind)?.clone();
    let request = CollectRequest {
        identifier: record.identifier(),
        entry: held.entry,
        resource: held.resource,
        identity: held.identity,
        same_boot,
        dry_run: options.dry_run,
        deadline: Instant::now() + options.deadline,
    };
    let what = format!(
        "the {} {:?} to go",
        request.resource.kind, request.resource.name
    );
    let Some(locked) = record.locked() else {
        return Err(Error::new(
            ErrorKind::IllegalTransition,
            "the environment's ledger record was closed before this was removed",
        ));
    };
    let record = record.clone();
    // In a task of its own, which keeps the record locked should it outlast our patience, or the record be closed.
    let task = tokio::spawn(async move {
        let collected = collector.collect(&request).await?;
        if !request.dry_run && !matches!(collected, Collected::Refused(_)) {
            let line = Line::Gone {
                entry: request.entry,
            };
            // It is gone nevertheless, and keeps nothing else: a later collection finds that it is.
            if let Err(error) = blocking(move || record.progress(line, false)).await {
                tracing::warn!("the ledger keeps something that is gone: {}", error.chain());
            }
        }
        drop(locked);
        Ok(collected)
    });
    match tokio::time::timeout(options.deadline + GRACE, joined(task)).await {
        Ok(done) => done?,
        Err(_) => Err(Error::timeout(what, options.deadline)),
    }
}

/// A task's result; a panic is an error.
async fn joined<T>(task: tokio::task::JoinHandle<T>) -> Result<T> {
    task.await
        .map_err(|error| Error::new(ErrorKind::Internal, "a collection panicked").caused_by(error))
}

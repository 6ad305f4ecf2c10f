//! Where a candidate is tried: a ledger of its own, a host, and the eye for what is left.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use super::candidate::Candidate;
use crate::config::{Configuration, HooksSection};
use crate::fault::Faults;
use crate::ledger::{Collectors, Ledger, Record, Resource};
use crate::testing::report::{Outcome, Stumble, ensure};
use crate::testing::suite;
use crate::{
    AllocateOptions, Allocation, EndLimits, Environment, Error, Host, Identifier, Machine,
    Prepared, PreparedBackend, Registries, Result, SandboxState, Stop,
};

/// How often something is looked at that is waited for.
const POLL: Duration = Duration::from_millis(10);

pub(super) struct Bench {
    pub(super) candidate: Arc<dyn Candidate>,
    pub(super) ledger: Ledger,
    pub(super) collectors: Collectors,
    pub(super) host: Host,
    _folder: Folder,
}

/// A folder for the ledger, which goes also where a check failed or left a task behind.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to whoever cleans the folder for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// One allocation without a host.
pub(super) struct Attempt {
    pub(super) identifier: Identifier,
    pub(super) record: Record,
    pub(super) outcome: Result<Machine>,
    /// As long as it lives, the allocation's token does not read as stopped.
    _stop: Stop,
}

impl suite::Bench for Bench {
    type Candidate = dyn Candidate;

    fn new(candidate: Arc<dyn Candidate>) -> Outcome<Self> {
        let folder = std::env::temp_dir().join(format!("see-conformance-{}", Identifier::random()));
        let ledger = Ledger::open_blocking(&folder)?;
        let folder = Folder(folder);
        let registries = candidate.registries()?;
        Ok(Self {
            collectors: registries.collectors.clone(),
            host: Host::new(registries, ledger.clone())?,
            candidate,
            ledger,
            _folder: folder,
        })
    }

    /// Waits for the environments that a check dropped; then the ledger must be empty.
    async fn finish(self: Arc<Self>) -> Outcome<()> {
        let Some(bench) = Arc::into_inner(self) else {
            return Err(Stumble::Failed("a task of the check still runs".to_owned()));
        };
        bench.host.finish(bench.candidate.patience()).await?;
        let left = bench.ledger.list().await?;
        ensure(left.is_empty(), || {
            format!("{} records are left in the ledger", left.len())
        })
    }
}

impl Bench {
    pub(super) fn registries(&self) -> &Registries {
        self.host.registries()
    }

    /// Waits for a step, up to the candidate's patience.
    pub(super) async fn within<T>(
        &self,
        what: impl std::fmt::Display,
        step: impl Future<Output = T>,
    ) -> Outcome<T> {
        suite::within(self.candidate.patience(), what, step).await
    }

    /// Waits until something holds, up to the candidate's patience.
    pub(super) async fn until<F, Fut>(&self, mut holds: F) -> bool
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = bool>,
    {
        let look = || {
            let holds = holds();
            async { holds.await.then_some(()) }
        };
        self.first(look).await.is_some()
    }

    /// Looks until there is something to see, up to the candidate's patience.
    pub(super) async fn first<T, F, Fut>(&self, mut look: F) -> Option<T>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Option<T>>,
    {
        let deadline = Instant::now() + self.candidate.patience();
        loop {
            let seen = look().await;
            if seen.is_some() || Instant::now() >= deadline {
                return seen;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    pub(super) fn context(&self) -> Configuration {
        Configuration::from_json(self.candidate.context())
    }

    async fn backend(&self) -> Result<PreparedBackend> {
        let registries = self.registries();
        let context = self.context();
        registries
            .backends
            .prepare(&context, &registries.images)
            .await
    }

    pub(super) async fn prepared(&self) -> Outcome<Prepared> {
        let (context, hooks) = (self.context(), HooksSection::default());
        let prepared = self.host.prepare(&context, &hooks);
        Ok(self.within("prepare", prepared).await??)
    }

    /// An environment of the host, as users get it.
    pub(super) async fn environment(&self) -> Outcome<Environment> {
        let prepared = self.prepared().await?;
        let allocation = self
            .host
            .allocate(prepared, AllocateOptions::default(), Stop::new());
        Ok(self.within("allocate", allocation).await??)
    }

    /// Ends an environment, which must leave nothing.
    pub(super) async fn end(&self, environment: Environment) -> Outcome<()> {
        let identifier = environment.identifier();
        let teardown = self.within("deallocate", environment.deallocate()).await?;
        if let Some(error) = teardown.errors.first() {
            return Err(Stumble::Failed(error.chain()).during("deallocate"));
        }
        self.nothing_left(identifier).await
    }

    /// Allocates without a host, with these faults on the way.
    pub(super) async fn attempt(
        &self,
        identifier: Identifier,
        stop: Stop,
        faults: &Faults,
    ) -> Outcome<Attempt> {
        let backend = self.within("prepare", self.backend()).await??;
        let ledger = self.ledger.with_faults(faults.clone());
        let record = ledger.begin(identifier, "conformance").await?;
        let stopped = stop.with_faults(faults.clone()).token();
        let allocation = Allocation::new(record.clone(), stopped);
        let changes = allocation.changes.clone();
        let work = tokio::spawn(async move { backend.allocate(&allocation).await });
        let outcome = suite::survived("the backend", self.within("allocate", work).await?)?;
        let (runtime, limit) = (Handle::current(), EndLimits::default().power);
        let outcome =
            outcome.map(|driver| Machine::new(identifier, driver, changes, runtime, limit));
        Ok(Attempt {
            identifier,
            record,
            outcome,
            _stop: stop,
        })
    }

    /// A whole machine, allocated without a host and without faults.
    pub(super) async fn whole(&self) -> Outcome<(Machine, Attempt)> {
        let identifier = Identifier::random();
        let mut attempt = self
            .attempt(identifier, Stop::new(), &Faults::default())
            .await?;
        let machine = std::mem::replace(&mut attempt.outcome, Err(Error::stopped("taken")))?;
        Ok((machine, attempt))
    }

    /// What the host does to a sandbox in the end: releases it, and removes what was made for it.
    pub(super) async fn end_of(&self, machine: &Machine, record: &Record) -> Outcome<()> {
        let released = self.within("release", machine.release()).await?;
        released.map_err(|error| Stumble::from(error).during("release"))?;
        self.settle(record).await
    }

    /// The host's last step: removes what the record still names, and looks whether all of it is gone.
    pub(super) async fn settle(&self, record: &Record) -> Outcome<()> {
        let outcomes = record
            .collect(&self.collectors, self.candidate.patience())
            .await?;
        let left = record.close().await?;
        let stuck: Vec<String> = outcomes
            .iter()
            .filter(|(_, outcome)| !outcome.is_gone())
            .map(|(resource, outcome)| format!("{}: {outcome:?}", named(resource)))
            .collect();
        ensure(left.is_empty(), || {
            format!("the ledger still holds {}", stuck.join(", "))
        })?;
        self.nothing_left(record.identifier()).await
    }

    pub(super) async fn nothing_left(&self, identifier: Identifier) -> Outcome<()> {
        let remains = self.candidate.remains(identifier);
        let remains = self.within("the look for remains", remains).await?;
        let look = move || processes_of(identifier);
        let processes = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        let left = [remains, processes].concat();
        ensure(left.is_empty(), || {
            format!("left behind: {}", left.join(", "))
        })
    }
}

impl Attempt {
    /// Ends what was made, if anything was, and looks whether all of it is gone.
    pub(super) async fn end(self, bench: &Bench) -> Outcome<()> {
        match &self.outcome {
            Ok(machine) => bench.end_of(machine, &self.record).await,
            Err(_) => bench.settle(&self.record).await,
        }
    }
}

/// The processes of this host that name the identifier in their arguments or their environment. What is no file in
/// `/proc`, or ends meanwhile, names nothing.
fn processes_of(identifier: Identifier) -> Vec<String> {
    let name = identifier.to_string();
    let names = |process: &Path, file| {
        let text = std::fs::read(process.join(file)).unwrap_or_default();
        String::from_utf8_lossy(&text).contains(&name)
    };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .map(|process| process.path())
        .filter(|process| names(process, "cmdline") || names(process, "environ"))
        .map(|process| format!("the process {}", process.display()))
        .collect()
}

/// What kind of thing, and its name.
pub(super) fn named(resource: &Resource) -> String {
    format!("{} {:?}", resource.kind, resource.name)
}

/// The machine's state, which must be one of these.
pub(super) async fn stands(machine: &Machine, wanted: SandboxState) -> Outcome<()> {
    let state = machine.state().await?;
    ensure(state == wanted, || {
        format!("the machine is {state}, it should be {wanted}")
    })
}

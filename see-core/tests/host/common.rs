//! Environments of the fake backend, for tests of the core.

use std::time::Duration;

use see_core::ledger::Ledger;
use see_core::testing::{FakeBackend, FakeConfiguration};
use see_core::{
    AgentSettings, AllocateOptions, Environment, Event, HandlerFuture, Host, Limits, Prepared,
    PreparedBackend, PreparedHook, Registries, Stop, Turn,
};
use tempfile::TempDir;

/// A host with its folder: `state` is the ledger's, the rest are the fake backend's resources.
pub(crate) struct TestHost {
    pub(crate) host: Host,
    pub(crate) folder: TempDir,
}

impl TestHost {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let ledger = Ledger::open_blocking(folder.path().join("state")).unwrap();
        std::fs::create_dir(folder.path().join("made")).unwrap();
        Self {
            host: Host::new(Registries::new(), ledger).unwrap(),
            folder,
        }
    }

    /// A fake backend that never fails.
    pub(crate) fn fake(&self) -> FakeConfiguration {
        FakeConfiguration::new(self.folder.path().join("made"))
    }

    /// What the fake backend made and did not remove.
    pub(crate) fn left(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("made"))
            .unwrap()
            .count()
    }

    /// Removes the empty folders that stand in its place.
    pub(crate) fn remove_left(&self) {
        for folder in std::fs::read_dir(self.folder.path().join("made")).unwrap() {
            std::fs::remove_dir(folder.unwrap().path()).unwrap();
        }
    }
}

pub(crate) fn prepared(fake: FakeConfiguration, hooks: Vec<PreparedHook>) -> Prepared {
    Prepared {
        backend: PreparedBackend::new(FakeBackend::new(fake)),
        hooks,
        agent: AgentSettings::default(),
        limits: Limits::default(),
    }
}

pub(crate) async fn environment_with(options: AllocateOptions) -> (TestHost, Environment) {
    let host = TestHost::new();
    let prepared = prepared(host.fake(), Vec::new());
    let environment = host
        .host
        .allocate(prepared, options, Stop::new())
        .await
        .unwrap();
    (host, environment)
}

pub(crate) async fn environment() -> (TestHost, Environment) {
    environment_with(AllocateOptions::default()).await
}

/// Waits until something is so, for at most ten seconds.
pub(crate) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What `seectl gc` does.
pub(crate) async fn collect(host: &TestHost) -> see_core::ledger::Report {
    let collectors = see_core::ledger::Collectors::core();
    let options = see_core::ledger::CollectOptions::default();
    host.host
        .ledger()
        .collect(&collectors, options)
        .await
        .unwrap()
}

/// Gives a closure the type of a serial handler.
pub(crate) fn serial<F>(handler: F) -> F
where
    F: for<'a> Fn(&'a mut Turn, &'a Event) -> HandlerFuture<'a> + Send + Sync + 'static,
{
    handler
}

/// Gives a closure the type of a beside handler.
pub(crate) fn beside<F>(handler: F) -> F
where
    F: Fn(Event) -> HandlerFuture<'static> + Send + Sync + 'static,
{
    handler
}

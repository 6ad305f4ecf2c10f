//! An environment of the fake backend with one hook in it, and what happens there.

use see_core::config::{Configuration, HooksSection};
use see_core::ledger::Ledger;
use see_core::testing::{FakeBackend, FakeConfiguration, FakeControl};
use see_core::{
    AgentSettings, AllocateOptions, Environment, Event, Host, Limits, Prepared, PreparedBackend,
    PreparedHook, Registries, Result, Stop,
};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;

/// How long a test waits.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    pub(crate) environment: Environment,
    pub(crate) control: FakeControl,
    events: Arc<Mutex<Vec<Event>>>,
    folder: TempDir,
    host: Host,
}

/// The registries with this crate's hooks.
pub(crate) fn registries() -> Registries {
    let mut registries = Registries::new();
    see_hooks_std::register(&mut registries).expect("no name twice");
    registries
}

/// The hooks of a section, checked.
pub(crate) fn prepare(section: &str) -> Result<Vec<PreparedHook>> {
    let section = Configuration::from_str("hooks.json", section)?;
    registries().hooks.prepare(&HooksSection::read(&section)?)
}

impl World {
    /// An environment with the hooks of this section; `RESULTS` in it is the results folder.
    pub(crate) async fn new(section: &str) -> Self {
        Self::with(section, AgentSettings::default(), false)
            .await
            .expect("an environment")
    }

    pub(crate) async fn with(section: &str, agent: AgentSettings, network: bool) -> Result<Self> {
        let folder = TempDir::new().expect("a folder");
        let made = folder.path().join("made");
        std::fs::create_dir(&made).expect("a folder");
        let results = folder.path().join("results");
        let section = section.replace("RESULTS", results.to_str().expect("text"));
        let ledger = Ledger::open_blocking(folder.path().join("state")).expect("a ledger");
        let host = Host::new(registries(), ledger).expect("a host");
        let mut fake = FakeConfiguration::new(made);
        fake.network = network;
        // Nobody has to prove anything of them before `FakeControl::close`.
        fake.walls = network;
        let prepared = Prepared {
            backend: PreparedBackend::new(FakeBackend::new(fake)),
            hooks: prepare(&section)?,
            agent,
            limits: Limits::default(),
        };
        let options = AllocateOptions::default();
        let mut environment = host.allocate(prepared, options, Stop::new()).await?;
        let control = FakeControl::of(environment.machine()).expect("a fake");
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        environment.context("test").observe(move |event| {
            seen.lock().expect("unpoisoned").push(event.clone());
        });
        Ok(Self {
            environment,
            control,
            events,
            folder,
            host,
        })
    }

    pub(crate) fn results(&self) -> PathBuf {
        self.folder.path().join("results")
    }

    /// A new file of the host.
    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("a file");
        path
    }

    pub(crate) async fn poweron(&mut self) {
        let mut turn = self.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("powered on");
    }

    pub(crate) async fn trigger(&mut self, event: impl Into<Event>) {
        let mut turn = self.environment.turn().await.expect("the turn");
        turn.trigger(event).await.expect("triggered");
    }

    /// Every event of this name so far.
    pub(crate) fn all(&self, name: &str) -> Vec<Event> {
        let events = self.events.lock().expect("unpoisoned");
        events
            .iter()
            .filter(|event| event.name() == name)
            .cloned()
            .collect()
    }

    /// The names of the events so far, in their order.
    pub(crate) fn names(&self) -> Vec<String> {
        let events = self.events.lock().expect("unpoisoned");
        events.iter().map(|event| event.name().to_owned()).collect()
    }

    /// The first event of this name; waits for it.
    pub(crate) async fn event(&self, name: &str) -> Event {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some(event) = self.all(name).into_iter().next() {
                return event;
            }
            let now = tokio::time::Instant::now();
            assert!(
                now < deadline,
                "waited for {name}, there were {:?}",
                self.names()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Tears everything down, which has to leave nothing.
    pub(crate) async fn end(self) {
        let teardown = self.environment.deallocate().await;
        assert!(teardown.is_clean(), "{:?}", teardown.errors);
        self.host.finish(PATIENCE).await.expect("nothing is left");
    }
}

/// The text of an attribute; empty where there is none.
pub(crate) fn text(event: &Event, name: &str) -> String {
    let value = event.get(name).and_then(|value| value.as_str());
    value.unwrap_or_default().to_owned()
}

/// The number of an attribute.
pub(crate) fn number(event: &Event, name: &str) -> Option<i64> {
    event.get(name)?.as_i64()
}

/// The truth of an attribute.
pub(crate) fn flag(event: &Event, name: &str) -> bool {
    let value = event.get(name).and_then(|value| value.as_bool());
    value.unwrap_or_else(|| panic!("{event:?} has no {name}"))
}

//! The library as a program uses it: a host with everything that comes with SEE, and an environment that is watched.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use see_core::config::{Configuration, RunFile};
use see_core::ledger::Ledger;
use see_core::{
    AllocateOptions, Environment, Event, Host, Identifier, Registries, Result, Stop, Value,
};

use crate::Home;

/// The longest wait for the end of what a test began.
const END: Duration = Duration::from_secs(60);

/// A host whose ledger is the home's. A test that fails drops it, which tears down whatever it made.
#[derive(Debug)]
pub struct Lab {
    host: Host,
}

/// An environment whose every event is kept.
#[derive(Debug)]
pub struct Watched {
    /// The environment.
    pub environment: Environment,
    events: Arc<Mutex<Vec<Event>>>,
}

impl Lab {
    /// A host that knows the hooks, backends and image providers that come with SEE.
    pub fn new(home: &Home) -> Self {
        Self::with(home, |_| Ok(()))
    }

    /// A host that knows more than that.
    pub fn with(home: &Home, more: impl FnOnce(&mut Registries) -> Result<()>) -> Self {
        let mut registries = Registries::new();
        see_context::register(&mut registries).expect("no name is there twice");
        see_hooks_std::register(&mut registries).expect("no name is there twice");
        see_image_providers::register(&mut registries).expect("no name is there twice");
        more(&mut registries).expect("no name is there twice");
        let ledger = Ledger::open_blocking(home.path("state")).expect("the home is writable");
        let host = Host::new(registries, ledger).expect("there are threads");
        Self { host }
    }

    /// Makes the environment that a run file describes; its protocol is left to the test.
    ///
    /// # Errors
    /// What the host reports.
    pub async fn allocate(&self, run_file: &Path) -> Result<Watched> {
        self.allocate_as(run_file, Identifier::random()).await
    }

    /// The same under an identifier that is known beforehand.
    ///
    /// # Errors
    /// What the host reports.
    pub async fn allocate_as(&self, run_file: &Path, identifier: Identifier) -> Result<Watched> {
        self.allocate_with(
            run_file,
            AllocateOptions {
                identifier: Some(identifier),
                ..AllocateOptions::default()
            },
        )
        .await
    }

    /// The same with other limits, say.
    ///
    /// # Errors
    /// What the host reports.
    pub async fn allocate_with(
        &self,
        run_file: &Path,
        options: AllocateOptions,
    ) -> Result<Watched> {
        let run = RunFile::read(&Configuration::from_file(run_file)?)?;
        let prepared = self.host.prepare(&run.context, &run.hooks).await?;
        let allocating = self.host.allocate(prepared, options, Stop::new());
        let mut environment = allocating.await?;
        let events = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&events);
        environment.context("test").observe(move |event| {
            seen.lock().expect("no holder panics").push(event.clone());
        });
        Ok(Watched {
            environment,
            events,
        })
    }

    /// Ends the host; fails where something of it is left.
    pub async fn finish(self) {
        self.host.finish(END).await.expect("everything has ended");
    }
}

impl Watched {
    /// The name of everything that belongs to it.
    pub fn identifier(&self) -> String {
        self.environment.identifier().to_string()
    }

    /// The events of this name so far.
    pub fn all(&self, name: &str) -> Vec<Event> {
        let events = self.events.lock().expect("no holder panics");
        events
            .iter()
            .filter(|event| event.name() == name)
            .cloned()
            .collect()
    }

    /// The names of the events so far, in their order.
    pub fn names(&self) -> Vec<String> {
        let events = self.events.lock().expect("no holder panics");
        events.iter().map(|event| event.name().to_owned()).collect()
    }

    /// Waits for the event of this name that follows `seen` others of it.
    pub async fn event(&self, name: &str, seen: usize, patience: Duration) -> Event {
        let end = tokio::time::Instant::now() + patience;
        loop {
            if let Some(event) = self.all(name).into_iter().nth(seen) {
                return event;
            }
            assert!(
                tokio::time::Instant::now() < end,
                "waited {patience:?} for {name}, there were {:#?}",
                self.events.lock()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Triggers an event, and waits for what handles it.
    pub async fn trigger(&mut self, event: Event) {
        let mut turn = self.environment.turn().await.expect("it is not stopped");
        turn.trigger(event).await.expect("it is not closed");
    }

    /// Runs a command in the guest and gives its exit code and what it printed.
    pub async fn command(&mut self, command: &str, patience: Duration) -> (Option<i64>, String) {
        let seen = self.all("command_finished").len();
        self.trigger(Event::new("run_command").with("command", command.to_owned()))
            .await;
        let finished = self.event("command_finished", seen, patience).await;
        let output = finished.get("output").and_then(Value::as_str);
        (
            finished.get("exit_code").and_then(Value::as_i64),
            output.unwrap_or_default().to_owned(),
        )
    }

    /// Ends it; fails where that was not clean.
    pub async fn end(self) {
        let teardown = self.environment.deallocate().await;
        assert!(teardown.is_clean(), "{:?}", teardown.errors);
    }
}

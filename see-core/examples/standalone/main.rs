//! A backend (in `driver.rs`), an image provider and a hook of one's own, with `see-core` alone: no hypervisor library, no
//! HTTP, no pull request. The "machine" is a child process; `cargo run -p see-core --example standalone`
//! runs one environment of it from start to end.
#![expect(clippy::print_stdout, reason = "an example shows something")]

mod driver;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use see_core::config::{Configuration, HooksSection, Located};
use see_core::ledger::Ledger;
use see_core::{
    AllocateOptions, Context, Error, ErrorKind, Event, Hook, Host, Image, ImageProvider,
    ImageRequest, Protocol, Registries, Result, RunLimits, RunReport, Stop,
};
use serde::Deserialize;

use self::driver::Processes;

/// An image provider: programs are looked up on the `PATH`.
struct OnPath(String);

/// It needs nothing but the image's name.
#[derive(Deserialize)]
struct OnPathConfiguration {}

#[async_trait]
impl ImageProvider for OnPath {
    const NAME: &'static str = "path-variable";
    type Configuration = OnPathConfiguration;

    fn prepare(_: OnPathConfiguration, name: Option<Located<String>>) -> Result<Self> {
        let name = name.ok_or_else(|| {
            Error::new(ErrorKind::Configuration, "the program's `name` is missing")
        })?;
        Ok(Self(name.into_inner()))
    }

    async fn image(&self, _request: &ImageRequest<'_>) -> Result<Image> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders)
            .map(|folder| folder.join(&self.0))
            .find(|path| path.is_file())
            .map(Image::new)
            .ok_or_else(|| {
                Error::new(ErrorKind::NotFound, "no folder of PATH has it").subject(&self.0)
            })
    }
}

/// A hook: counts what happens, and says so at the end.
struct Counter {
    events: Arc<Mutex<Vec<String>>>,
}

/// The counter's configuration.
#[derive(Deserialize)]
struct CounterConfiguration {
    /// What to begin the last line with.
    label: String,
}

#[async_trait]
impl Hook for Counter {
    const NAME: &'static str = "counter";
    type Configuration = CounterConfiguration;

    async fn attach(configuration: CounterConfiguration, context: &Context) -> Result<Self> {
        let events: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = Arc::clone(&events);
        context.observe(move |event: &Event| {
            heard
                .lock()
                .expect("no holder panics")
                .push(event.name().to_owned());
        });
        let label = configuration.label;
        let counted = Arc::clone(&events);
        context.subscribe("start_analysis", move |_| {
            println!(
                "{label}: {} events",
                counted.lock().expect("no holder panics").len()
            );
        });
        Ok(Self { events })
    }

    async fn cleanup(&self) -> Result<()> {
        println!(
            "{}",
            self.events.lock().expect("no holder panics").join(" ")
        );
        Ok(())
    }
}

/// What a run file would hold.
const CONTEXT: &str = r#"{
    "backend": "processes",
    "program": { "provider": "path-variable", "name": "sleep" },
    "arguments": ["60"],
}"#;
const HOOKS: &str =
    r#"{ "hooks": [{ "name": "counter", "configuration": { "label": "counted" } }] }"#;
const PROTOCOL: &str = r#"[
    { "step": "poweron" },
    { "step": "trigger", "event": "start_analysis" },
    { "step": "poweroff" },
]"#;

async fn run(state: PathBuf) -> Result<RunReport> {
    let mut registries = Registries::new();
    registries.backends.add::<Processes>()?;
    registries.images.add::<OnPath>()?;
    registries.hooks.add::<Counter>()?;
    let host = Host::new(registries, Ledger::open(state).await?)?;

    let context = Configuration::from_str("context.json", CONTEXT)?;
    let hooks = HooksSection::read(&Configuration::from_str("hooks.json", HOOKS)?)?;
    let protocol = Configuration::from_str("protocol.json", PROTOCOL)?;
    let protocol = Protocol::from_configuration(&protocol)?;

    let prepared = host.prepare(&context, &hooks).await?;
    let limits = RunLimits::new(&prepared.limits, None);
    let options = AllocateOptions::default();
    let mut environment = host.allocate(prepared, options, Stop::new()).await?;
    let report = environment.run(&protocol, &limits).await;
    let teardown = environment.deallocate().await;
    for error in &teardown.errors {
        println!("left behind: {error}");
    }
    host.finish(Duration::from_secs(10)).await?;
    report
}

#[tokio::main]
async fn main() -> Result<()> {
    let state = std::env::temp_dir().join(format!("see-standalone-{}", std::process::id()));
    let report = run(state.clone()).await?;
    for step in &report.steps {
        println!("{:<24} {:.3} s", step.step, step.seconds);
    }
    std::fs::remove_dir_all(&state)
        .map_err(|error| Error::io("the state folder cannot be removed", error))
}

#[cfg(test)]
mod tests {
    use see_core::Identifier;
    use see_core::testing::conformance::{self, Candidate};
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug)]
    struct Outsider;

    #[async_trait]
    impl Candidate for Outsider {
        fn registries(&self) -> Result<Registries> {
            let mut registries = Registries::new();
            registries.backends.add::<Processes>()?;
            registries.images.add::<OnPath>()?;
            Ok(registries)
        }

        fn context(&self) -> Value {
            json!({
                "backend": "processes",
                "program": { "provider": "path-variable", "name": "sleep" },
                "arguments": ["600"],
            })
        }

        // It makes processes alone, and for those the suite looks by itself.
        async fn remains(&self, _: Identifier) -> Vec<String> {
            Vec::new()
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_driver_of_ninety_lines_passes_the_conformance_suite() {
        conformance::run(Outsider).await.assert_passed();
        let lines = include_str!("driver.rs").lines().count();
        assert!(lines <= 90, "it has {lines} lines");
    }

    #[tokio::test]
    async fn an_outsiders_backend_hook_and_provider_run_an_environment_and_leave_nothing() {
        let folder = tempfile::TempDir::new().unwrap();
        let state = folder.path().join("state");
        let report = run(state.clone()).await.unwrap();
        assert!(report.failure.is_none(), "{:?}", report.failure);
        let steps: Vec<&str> = report.steps.iter().map(|step| step.step.as_str()).collect();
        assert_eq!(steps, ["poweron", "trigger start_analysis", "poweroff"]);
        let left = Ledger::open(state).await.unwrap().list().await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

//! A backend, an image provider and a hook of one's own, with `see-core` alone: no hypervisor library, no
//! HTTP, no pull request. The "machine" is a child process; `cargo run -p see-core --example standalone`
//! runs one environment of it from start to end.
#![expect(clippy::print_stdout, reason = "an example shows something")]

use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use see_core::config::{Configuration, HooksSection, Located};
use see_core::ledger::{Entry, Ledger, Resource};
use see_core::{
    Address, AllocateOptions, Allocation, Backend, Context, Error, ErrorKind, Event, Hook, Host,
    Identifier, Image, ImageProvider, ImageRequest, ImageSource, Preparation, Protocol, Registries,
    Result, RunLimits, RunReport, Sandbox, SandboxChange, SandboxState, Stop,
};
use serde::Deserialize;
use tokio::sync::mpsc;

/// A backend whose machines are processes.
struct Processes {
    program: ImageSource,
    arguments: Vec<String>,
}

/// The context section that it wants.
#[derive(Deserialize)]
struct ProcessesConfiguration {
    /// The program: a path, or an image section.
    program: Configuration,
    /// Its arguments.
    #[serde(default)]
    arguments: Vec<String>,
}

#[async_trait]
impl Backend for Processes {
    const NAME: &'static str = "processes";
    type Configuration = ProcessesConfiguration;

    async fn prepare(
        configuration: ProcessesConfiguration,
        preparation: &Preparation<'_>,
    ) -> Result<Self> {
        Ok(Self {
            program: preparation.image(&configuration.program)?,
            arguments: configuration.arguments,
        })
    }

    async fn allocate(&self, allocation: &Allocation) -> Result<Arc<dyn Sandbox>> {
        let image = self.program.image(&allocation.image_request()).await?;
        // Written down before it is made: if we die from here on, the ledger knows what to look for.
        let entry = allocation
            .record
            .intend_one(Resource::process("the machine"))
            .await?;
        Ok(Arc::new(Process {
            identifier: allocation.identifier,
            program: image.path,
            arguments: self.arguments.clone(),
            run: Mutex::new(Run {
                child: None,
                entry: Some(entry),
            }),
            watchers: Mutex::default(),
        }))
    }
}

/// One machine.
#[derive(Debug)]
struct Process {
    identifier: Identifier,
    program: PathBuf,
    arguments: Vec<String>,
    run: Mutex<Run>,
    watchers: Mutex<Vec<mpsc::Sender<SandboxChange>>>,
}

#[derive(Debug)]
struct Run {
    child: Option<Child>,
    /// Gone after the release.
    entry: Option<Entry>,
}

impl Process {
    fn tell(&self, state: SandboxState) {
        let mut watchers = self.watchers.lock().expect("no holder panics");
        watchers.retain(|watcher| watcher.try_send(SandboxChange::State(state)).is_ok());
    }

    fn now(&self) -> Result<SandboxState> {
        let mut run = self.run.lock().expect("no holder panics");
        let Some(child) = &mut run.child else {
            return Ok(SandboxState::Shutoff);
        };
        let ended = child
            .try_wait()
            .map_err(|error| Error::io("the process cannot be asked", error))?;
        Ok(if ended.is_some() {
            SandboxState::Shutoff
        } else {
            SandboxState::Running
        })
    }

    fn kill(&self) -> Result<()> {
        if let Some(mut child) = self.run.lock().expect("no holder panics").child.take() {
            child
                .kill()
                .and_then(|()| child.wait())
                .map_err(|error| Error::io("the process cannot be ended", error))?;
        }
        Ok(())
    }
}

#[async_trait]
impl Sandbox for Process {
    fn identifier(&self) -> Identifier {
        self.identifier
    }

    async fn state(&self) -> Result<SandboxState> {
        self.now()
    }

    async fn start(&self) -> Result<()> {
        {
            let mut run = self.run.lock().expect("no holder panics");
            let Some(entry) = &run.entry else {
                return Err(Error::new(ErrorKind::NotFound, "the process was released"));
            };
            let child = Command::new(&self.program)
                .args(&self.arguments)
                // By this mark in its environment its collector recognises it.
                .envs([entry.mark()])
                .spawn()
                .map_err(|error| Error::io("the program cannot be started", error))?;
            entry.spawned_blocking(child.id())?;
            run.child = Some(child);
        }
        self.tell(SandboxState::Running);
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        self.kill()?;
        self.tell(SandboxState::Shutoff);
        Ok(())
    }

    async fn suspend(&self) -> Result<()> {
        Err(Error::unsupported("suspending a process"))
    }

    async fn resume(&self) -> Result<()> {
        Err(Error::unsupported("resuming a process"))
    }

    async fn shutdown(&self) -> Result<()> {
        self.destroy().await
    }

    async fn reboot(&self) -> Result<()> {
        Err(Error::unsupported("restarting a process"))
    }

    async fn addresses(&self) -> Result<Vec<Address>> {
        Ok(Vec::new())
    }

    fn has_network(&self) -> bool {
        false
    }

    fn watch(&self) -> mpsc::Receiver<SandboxChange> {
        let (sender, receiver) = mpsc::channel(16);
        self.watchers.lock().expect("no holder panics").push(sender);
        receiver
    }

    async fn release(&self) -> Result<()> {
        self.run.lock().expect("no holder panics").entry = None;
        // What is left of it, by the ledger's entry, core removes.
        self.kill()
    }
}

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
    use super::*;

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

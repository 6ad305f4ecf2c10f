//! A backend whose machines are child processes: all that a backend has to say.

use async_trait::async_trait;
use see_core::ledger::{Entry, Resource};
use see_core::{Allocation, Backend, ChangeSender, Driver, Image, ImageSource, Preparation};
use see_core::{Error, Result, SandboxChange, SandboxState, Transition, config::Configuration};
use tokio::{process::Command, sync::watch};

/// The backend: its context section is a program, which is a path or an image section, and its arguments.
pub(crate) struct Processes(ImageSource, Vec<String>);

#[derive(serde::Deserialize)]
pub(crate) struct ProcessesConfiguration {
    program: Configuration,
    arguments: Vec<String>,
}

#[async_trait]
impl Backend for Processes {
    const NAME: &'static str = "processes";
    type Configuration = ProcessesConfiguration;

    async fn prepare(wanted: ProcessesConfiguration, host: &Preparation<'_>) -> Result<Self> {
        Ok(Self(host.image(&wanted.program)?, wanted.arguments))
    }

    async fn allocate(&self, allocation: &Allocation) -> Result<Box<dyn Driver>> {
        allocation.stop.check("allocate")?;
        // Written down before it is made: if we die from here on, the ledger knows what to look for.
        let process = Resource::process("the machine");
        Ok(Box::new(Process {
            image: self.0.image(&allocation.image_request()).await?,
            arguments: self.1.clone(),
            entry: allocation.record.intend_one(process).await?,
            changes: allocation.changes.clone(),
            wanted: watch::Sender::new(SandboxState::Shutoff),
            state: watch::Sender::new(SandboxState::Shutoff),
        }))
    }
}

#[derive(Debug)]
struct Process {
    image: Image,
    arguments: Vec<String>,
    entry: Entry,
    changes: ChangeSender,
    wanted: watch::Sender<SandboxState>,
    state: watch::Sender<SandboxState>,
}

#[async_trait]
impl Driver for Process {
    async fn state(&self) -> Result<SandboxState> {
        Ok(*self.state.borrow())
    }

    async fn start(&self) -> Result<()> {
        Transition::Poweron.check(self.state().await?)?;
        let mut command = Command::new(&self.image.path);
        // By the mark in its environment its collector recognises it.
        let command = command.args(&self.arguments).envs([self.entry.mark()]);
        let spawned = command.kill_on_drop(true).spawn();
        let mut child = spawned.map_err(|error| Error::io("it cannot be started", error))?;
        self.entry.spawned(child.id().unwrap_or_default()).await?;
        let (state, changes) = (self.state.clone(), self.changes.clone());
        let turn_to = move |now| {
            state.send_replace(now);
            changes.send(SandboxChange::State(now));
        };
        turn_to(SandboxState::Running);
        self.wanted.send_replace(SandboxState::Running);
        let mut wanted = self.wanted.subscribe();
        tokio::spawn(async move {
            tokio::select! {
                _ = child.wait() => {}
                () = async { drop(wanted.wait_for(|now| now.is_off()).await) } => {}
            }
            drop(child.kill().await);
            turn_to(SandboxState::Shutoff);
        });
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        self.wanted.send_replace(SandboxState::Shutoff);
        drop(self.state.subscribe().wait_for(|now| now.is_off()).await);
        Ok(())
    }
}

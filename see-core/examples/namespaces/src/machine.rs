//! The sandbox: commands that queue up, a state that follows the process, and an end that leaves nothing.

use std::any::Any;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use see_core::ledger::Entry;
use see_core::{
    Address, Console, Error, ErrorKind, Identifier, Result, Sandbox, SandboxChange, SandboxState,
};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};

use crate::process::Process;

/// The longest that killed processes take to be gone.
const GONE: Duration = Duration::from_secs(20);
/// How many changes a watcher may be behind.
const BEHIND: usize = 64;

/// A machine that is processes in namespaces. It is its own [`native`](Sandbox::native) object.
#[derive(Debug)]
pub struct Machine {
    identifier: Identifier,
    shared: Arc<Shared>,
}

/// What the machine, its commands and the wait for its end have in common.
#[derive(Debug)]
struct Shared {
    program: Vec<String>,
    root: PathBuf,
    console: ConsoleLog,
    /// One command at a time; held by the work, not by who asked for it. The ledger's entry for the process, which is
    /// gone after the release.
    commands: tokio::sync::Mutex<Option<Entry>>,
    state: watch::Sender<SandboxState>,
    power: Mutex<Power>,
    watchers: Mutex<Vec<mpsc::Sender<SandboxChange>>>,
}

#[derive(Debug, Default)]
struct Power {
    process: Option<Arc<Process>>,
    /// The host asked for the end: whatever it looks like, it is no crash.
    ending: bool,
}

#[derive(Debug)]
struct ConsoleLog(PathBuf);

impl Console for ConsoleLog {
    fn log(&self) -> &Path {
        &self.0
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Machine {
    pub(crate) fn new(program: Vec<String>, path: &Path, process: Entry) -> Self {
        Self {
            identifier: process.identifier(),
            shared: Arc::new(Shared {
                program,
                // The walls are built upon the folder itself, where the host sees nothing of them.
                root: path.to_owned(),
                console: ConsoleLog(path.join("console.log")),
                commands: tokio::sync::Mutex::new(Some(process)),
                state: watch::Sender::new(SandboxState::Shutoff),
                power: Mutex::default(),
                watchers: Mutex::default(),
            }),
        }
    }

    /// The number of the machine's first process, while it runs.
    pub fn first_process(&self) -> Option<u32> {
        let power = lock(&self.shared.power);
        let process = power.process.as_ref()?;
        Some(process.pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// Runs a command behind those that were given before. It ends even when this future is dropped.
    async fn command<Fut>(&self, command: impl FnOnce(Arc<Shared>) -> Fut) -> Result<()>
    where
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        let work = tokio::spawn(command(Arc::clone(&self.shared)));
        work.await.unwrap_or_else(|failed| {
            Err(Error::new(ErrorKind::Internal, "the command was cut off").caused_by(failed))
        })
    }
}

impl Shared {
    fn turn_to(&self, state: SandboxState) {
        self.state.send_replace(state);
        lock(&self.watchers).retain(|watcher| {
            !matches!(
                watcher.try_send(SandboxChange::State(state)),
                Err(mpsc::error::TrySendError::Closed(_))
            )
        });
    }

    fn process(&self) -> Result<Arc<Process>> {
        let process = lock(&self.power).process.clone();
        process.ok_or_else(|| Error::new(ErrorKind::IllegalTransition, "the machine does not run"))
    }

    async fn start(self: Arc<Self>) -> Result<()> {
        let process = self.commands.lock().await;
        let Some(entry) = &*process else {
            return Err(Error::new(ErrorKind::NotFound, "the machine was released"));
        };
        if lock(&self.power).process.is_some() {
            return Err(Error::new(
                ErrorKind::IllegalTransition,
                "the machine is on already",
            ));
        }
        let (process, child) =
            Process::start(&self.program, &self.root, &self.console.0, entry).await?;
        *lock(&self.power) = Power {
            process: Some(Arc::new(process)),
            ending: false,
        };
        self.turn_to(SandboxState::Running);
        // Begun only now, so that an end is never overtaken by the beginning.
        tokio::spawn(Arc::clone(&self).end_of(child));
        Ok(())
    }

    /// Waits for the end, whoever brings it about.
    async fn end_of(self: Arc<Self>, mut child: Child) {
        let orderly = child.wait().await.is_ok_and(|status| status.success());
        let ending = std::mem::take(&mut *lock(&self.power)).ending;
        self.turn_to(if orderly || ending {
            SandboxState::Shutoff
        } else {
            SandboxState::Crashed
        });
    }

    async fn cut_power(&self) -> Result<()> {
        let process = {
            let mut power = lock(&self.power);
            power.ending = true;
            power.process.clone()
        };
        if let Some(process) = process {
            // With the first process of its namespace the kernel ends all others.
            process.signal(Signal::KILL)?;
            let mut state = self.state.subscribe();
            let off = state.wait_for(|state| state.is_off());
            let waited = tokio::time::timeout(GONE, off).await.map(drop);
            waited.map_err(|_| Error::timeout("the machine's processes to end", GONE))?;
        }
        if *self.state.borrow() == SandboxState::Crashed {
            self.turn_to(SandboxState::Shutoff);
        }
        Ok(())
    }
}

#[async_trait]
impl Sandbox for Machine {
    fn identifier(&self) -> Identifier {
        self.identifier
    }

    async fn state(&self) -> Result<SandboxState> {
        Ok(*self.shared.state.borrow())
    }

    async fn start(&self) -> Result<()> {
        self.command(Shared::start).await
    }

    async fn destroy(&self) -> Result<()> {
        self.command(|shared| async move {
            let _turn = shared.commands.lock().await;
            shared.cut_power().await
        })
        .await
    }

    async fn suspend(&self) -> Result<()> {
        self.command(|shared| async move {
            let _turn = shared.commands.lock().await;
            let process = shared.process()?;
            let still = tokio::task::spawn_blocking(move || process.stop_all()).await;
            still.unwrap_or_else(|failed| {
                Err(Error::new(ErrorKind::Internal, "the suspension was cut off").caused_by(failed))
            })?;
            shared.turn_to(SandboxState::Paused);
            Ok(())
        })
        .await
    }

    async fn resume(&self) -> Result<()> {
        self.command(|shared| async move {
            let _turn = shared.commands.lock().await;
            let process = shared.process()?;
            // Told first: a program that ends as soon as it goes on is off afterwards, and not before.
            shared.turn_to(SandboxState::Running);
            process.continue_all()
        })
        .await
    }

    async fn shutdown(&self) -> Result<()> {
        self.command(|shared| async move {
            let _turn = shared.commands.lock().await;
            lock(&shared.power).ending = true;
            shared.process()?.signal(Signal::TERM)
        })
        .await
    }

    async fn reboot(&self) -> Result<()> {
        Err(Error::unsupported("restarting a program"))
    }

    async fn addresses(&self) -> Result<Vec<Address>> {
        Ok(Vec::new())
    }

    fn has_network(&self) -> bool {
        false
    }

    fn watch(&self) -> mpsc::Receiver<SandboxChange> {
        let (sender, receiver) = mpsc::channel(BEHIND);
        lock(&self.shared.watchers).push(sender);
        receiver
    }

    async fn release(&self) -> Result<()> {
        self.command(|shared| async move {
            let mut process = shared.commands.lock().await;
            // It can be started no more. What is left of it, and its folder, core removes.
            process.take();
            shared.cut_power().await
        })
        .await
    }

    fn console(&self) -> Option<&dyn Console> {
        Some(&self.shared.console)
    }

    fn native(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

//! The driver: a state that follows the process, and an end that leaves nothing.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::Signal;
use see_core::ledger::Entry;
use see_core::{
    ChangeSender, Console, Driver, Error, ErrorKind, Result, SandboxChange, SandboxState,
};
use tokio::process::Child;
use tokio::sync::watch;

use crate::process::Process;

/// The longest that killed processes take to be gone.
const GONE: Duration = Duration::from_secs(20);

/// A machine that is processes in namespaces. It is its own [`native`](Driver::native) object.
#[derive(Debug)]
pub struct NamespacesMachine {
    program: Vec<String>,
    root: PathBuf,
    console: ConsoleLog,
    /// The ledger's entry for the process.
    entry: Entry,
    shared: Arc<Shared>,
}

/// What the machine and the wait for its end have in common.
#[derive(Debug)]
struct Shared {
    changes: ChangeSender,
    state: watch::Sender<SandboxState>,
    power: Mutex<Power>,
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

impl NamespacesMachine {
    pub(crate) fn new(
        program: Vec<String>,
        path: &Path,
        entry: Entry,
        changes: ChangeSender,
    ) -> Self {
        Self {
            program,
            // The walls are built upon the folder itself, where the host sees nothing of them.
            root: path.to_owned(),
            console: ConsoleLog(path.join("console.log")),
            entry,
            shared: Arc::new(Shared {
                changes,
                state: watch::Sender::new(SandboxState::Shutoff),
                power: Mutex::default(),
            }),
        }
    }

    /// The number of the machine's first process, while it runs.
    pub fn first_process(&self) -> Option<u32> {
        let power = lock(&self.shared.power);
        let process = power.process.as_ref()?;
        Some(process.pid.as_raw_nonzero().get().unsigned_abs())
    }

    fn process(&self) -> Result<Arc<Process>> {
        let process = lock(&self.shared.power).process.clone();
        process.ok_or_else(|| Error::new(ErrorKind::IllegalTransition, "the machine does not run"))
    }
}

impl Shared {
    fn turn_to(&self, state: SandboxState) {
        self.state.send_replace(state);
        self.changes.send(SandboxChange::State(state));
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
}

#[async_trait]
impl Driver for NamespacesMachine {
    async fn state(&self) -> Result<SandboxState> {
        Ok(*self.shared.state.borrow())
    }

    async fn start(&self) -> Result<()> {
        if lock(&self.shared.power).process.is_some() {
            return Err(Error::new(
                ErrorKind::IllegalTransition,
                "the machine is on already",
            ));
        }
        let (process, child) =
            Process::start(&self.program, &self.root, &self.console.0, &self.entry).await?;
        *lock(&self.shared.power) = Power {
            process: Some(Arc::new(process)),
            ending: false,
        };
        self.shared.turn_to(SandboxState::Running);
        // Begun only now, so that an end is never overtaken by the beginning.
        tokio::spawn(Arc::clone(&self.shared).end_of(child));
        Ok(())
    }

    async fn destroy(&self) -> Result<()> {
        let process = {
            let mut power = lock(&self.shared.power);
            power.ending = true;
            power.process.clone()
        };
        let state = &self.shared.state;
        if let Some(process) = process {
            // With the first process of its namespace the kernel ends all others.
            process.signal(Signal::KILL)?;
            let mut state = state.subscribe();
            let off = state.wait_for(|state| state.is_off());
            let waited = tokio::time::timeout(GONE, off).await.map(drop);
            waited.map_err(|_| Error::timeout("the machine's processes to end", GONE))?;
        }
        let crashed = *state.borrow() == SandboxState::Crashed;
        if crashed {
            self.shared.turn_to(SandboxState::Shutoff);
        }
        Ok(())
    }

    async fn suspend(&self) -> Result<()> {
        let process = self.process()?;
        let still = tokio::task::spawn_blocking(move || process.stop_all()).await;
        still.unwrap_or_else(|failed| {
            Err(Error::new(ErrorKind::Internal, "the suspension was cut off").caused_by(failed))
        })?;
        self.shared.turn_to(SandboxState::Paused);
        Ok(())
    }

    async fn resume(&self) -> Result<()> {
        let process = self.process()?;
        // Told first: a program that ends as soon as it goes on is off afterwards, and not before.
        self.shared.turn_to(SandboxState::Running);
        process.continue_all()
    }

    async fn shutdown(&self) -> Result<()> {
        let process = self.process()?;
        lock(&self.shared.power).ending = true;
        process.signal(Signal::TERM)
    }

    async fn release(&self) -> Result<()> {
        // What is left of it, and its folder, core removes.
        self.destroy().await
    }

    fn console(&self) -> Option<&dyn Console> {
        Some(&self.console)
    }

    fn native(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

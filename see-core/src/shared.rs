//! What an environment, its turn and its contexts have in common: the machine, the queue of posted events, and the
//! stop.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

use crate::changes::Changes;
use crate::ledger::{Collectors, Record};
use crate::proof::{Proof, is_owed};
use crate::quota::Captures;
use crate::settings::AgentSettings;
use crate::sync::lock;
use crate::{
    Error, ErrorKind, Event, Identifier, Machine, Result, SandboxChange, Stop, StopToken,
    Transition,
};

/// What environment, turn and contexts have in common.
pub(crate) struct Shared {
    pub(crate) identifier: Identifier,
    pub(crate) machine: Machine,
    pub(crate) runtime: Handle,
    pub(crate) record: Record,
    pub(crate) collectors: Collectors,
    pub(crate) agent: AgentSettings,
    pub(crate) captures: Captures,
    pub(crate) proof: Arc<Proof>,
    pub(crate) turn: Arc<tokio::sync::Mutex<TurnState>>,
    pub(crate) stop_token: StopToken,
    /// Wakes the turn's holder when something was posted or changed.
    pub(crate) noticed: Notify,
    /// Wakes the pump, which handles posted events while nobody holds the turn.
    pub(crate) pump: Notify,
    stop: Stop,
    scopes: Mutex<Vec<Stop>>,
    posted: mpsc::Sender<Event>,
    /// How many posted events may wait.
    queue: usize,
    pub(crate) closed: AtomicBool,
    pub(crate) limits: EndLimits,
}

/// What only the holder of the turn may touch.
#[derive(Debug)]
pub(crate) struct TurnState {
    /// Events that were posted and are not handled yet.
    pub(crate) posted: mpsc::Receiver<Event>,
}

/// How long the steps of an environment's end may take.
#[derive(Debug, Clone)]
pub struct EndLimits {
    /// The longest wait for handlers that run, before they are cancelled. 10 s.
    pub turn: Duration,
    /// The longest wait for one hook's tasks, and again for its cleanup. 30 s.
    pub hook: Duration,
    /// The longest wait for the sandbox's release. 60 s.
    pub release: Duration,
    /// The longest wait for the removal of everything that was made, the machine first; each resource gets at most a
    /// minute of it. What has not begun by then is left to a collection. 180 s.
    pub removal: Duration,
    /// The longest wait for one change of power, or for what the hypervisor tells of the machine. 120 s.
    pub power: Duration,
}

impl Default for EndLimits {
    fn default() -> Self {
        Self {
            turn: Duration::from_secs(10),
            hook: Duration::from_secs(30),
            release: Duration::from_secs(60),
            removal: Duration::from_secs(180),
            power: Duration::from_secs(120),
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.identifier).finish()
    }
}

impl Shared {
    pub(crate) fn new(
        machine: Machine,
        record: Record,
        runtime: Handle,
        parts: Parts,
    ) -> Arc<Self> {
        let (posted, waiting) = mpsc::channel(parts.queue);
        let stop = parts.stop;
        Arc::new(Self {
            identifier: machine.identifier(),
            machine,
            runtime,
            record,
            collectors: parts.collectors,
            agent: parts.agent,
            captures: Captures::default(),
            proof: Arc::default(),
            turn: Arc::new(tokio::sync::Mutex::new(TurnState { posted: waiting })),
            stop_token: stop.token(),
            noticed: Notify::new(),
            pump: Notify::new(),
            stop,
            scopes: Mutex::default(),
            posted,
            queue: parts.queue,
            closed: AtomicBool::new(false),
            limits: parts.limits,
        })
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// A stop that is asked for together with the environment's.
    pub(crate) fn new_stop(&self) -> Stop {
        let stop = Stop::new();
        let mut scopes = lock(&self.scopes);
        if self.stop.is_stopped() {
            stop.stop();
        }
        scopes.push(stop.clone());
        stop
    }

    pub(crate) fn stop(&self) {
        let scopes = lock(&self.scopes);
        self.stop.stop();
        for scope in scopes.iter() {
            scope.stop();
        }
    }

    pub(crate) fn post(&self, mut event: Event) -> Result<()> {
        if self.is_closed() {
            return Err(Error::stopped("post").subject(event.name()));
        }
        event.stamp();
        self.posted
            .try_send(event)
            .map_err(|refused| queue_full(&refused.into_inner(), self.queue))?;
        self.notice();
        Ok(())
    }

    pub(crate) fn notice(&self) {
        self.noticed.notify_one();
        self.pump.notify_one();
    }

    /// Fails where the guest runs already, owes the proof that its network is closed, and nobody delivers it.
    pub(crate) async fn check_running_guest(&self) -> Result<()> {
        match is_owed(&self.machine) && !self.machine.is_off().await {
            true => self.proof.check_start(&self.machine),
            false => Ok(()),
        }
    }

    /// Changes the machine's power; a guest whose network may be open does not go on.
    pub(crate) async fn act(&self, transition: Transition) -> Result<()> {
        if matches!(transition, Transition::Poweron | Transition::Resume) {
            // The network may have been found open while the handlers before it ran.
            let open = self.proof.check_ended();
            open.map_err(|error| error.during(transition.name()))?;
        }
        self.machine.act(transition).await
    }

    /// Posts what the guest does to its own power.
    pub(crate) async fn watch(self: Arc<Self>, mut changes: Changes) {
        loop {
            let change = tokio::select! {
                biased;
                () = self.stop_token.stopped() => {
                    // Whoever asked for the stop may not know of the hooks' own.
                    self.stop();
                    return;
                }
                change = changes.recv() => match change {
                    Some(change) => change,
                    None => return,
                },
                () = self.machine.acted() => SandboxChange::Missed,
            };
            match self.machine.hear(change).await {
                Some(name) => self.tell(Event::new(name)),
                None => self.notice(),
            }
        }
    }

    fn tell(&self, event: Event) {
        if let Err(error) = self.post(event.source("environment")) {
            tracing::warn!("an event of the guest is lost: {error}");
        }
    }
}

/// What an environment is built of, beside its machine.
pub(crate) struct Parts {
    pub(crate) collectors: Collectors,
    /// How many posted events may wait.
    pub(crate) queue: usize,
    pub(crate) agent: AgentSettings,
    pub(crate) stop: Stop,
    pub(crate) limits: EndLimits,
}

/// The error of a post that found the queue full.
fn queue_full(event: &Event, limit: usize) -> Error {
    Error::new(
        ErrorKind::Exhausted,
        format!("{limit} posted events wait already"),
    )
    .during("post")
    .subject(event.name())
}

//! What an environment, its turn and its contexts have in common: the machine's power, the queue of posted
//! events, and the stop.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

use crate::ledger::{Collectors, Record};
use crate::proof::{Proof, is_owed};
use crate::quota::Captures;
use crate::settings::AgentSettings;
use crate::sync::{died, lock};
use crate::{
    Error, ErrorKind, Event, Identifier, Result, Sandbox, SandboxChange, SandboxState, Stop,
    StopToken, Transition,
};

/// What environment, turn and contexts have in common.
pub(crate) struct Shared {
    pub(crate) identifier: Identifier,
    pub(crate) sandbox: Arc<dyn Sandbox>,
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
    pub(crate) power: Mutex<Power>,
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
    /// The longest wait for one change of power, above the backend's own deadlines. 120 s.
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

/// How a guest ended that went to sleep: nothing in it fires an event until something wakes it.
const ASLEEP: &str = "the guest suspended itself, and nothing wakes it";

/// What the host wants the machine to be, so that the guest's own changes can be told apart.
#[derive(Debug, Default)]
pub(crate) struct Power {
    pub(crate) wanted: Option<SandboxState>,
    /// Changes that the host began. While not all of them are done, what the machine looks like says
    /// nothing about the guest.
    begun: u64,
    /// Changes of the host that are done.
    done: u64,
    /// Restarts that were asked for and have not been seen yet.
    restarts_asked: u32,
    guest_end: Option<&'static str>,
}

/// A change of the host's, over when this is dropped: also where a backend panics.
struct Change<'a> {
    number: u64,
    /// What the host wanted before.
    before: Option<SandboxState>,
    succeeded: bool,
    power: &'a Mutex<Power>,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let mut power = lock(self.power);
        power.done += 1;
        // One that failed is wanted no more, unless another was begun since.
        if !self.succeeded && power.begun == self.number {
            power.wanted = self.before;
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
        sandbox: Arc<dyn Sandbox>,
        record: Record,
        runtime: Handle,
        parts: Parts,
    ) -> Arc<Self> {
        let (posted, waiting) = mpsc::channel(parts.queue);
        let stop = parts.stop;
        Arc::new(Self {
            identifier: sandbox.identifier(),
            sandbox,
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
            power: Mutex::default(),
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
        match is_owed(&*self.sandbox) && !self.is_off().await {
            true => self.proof.check_start(&*self.sandbox),
            false => Ok(()),
        }
    }

    /// Whether the machine is off, as far as the hypervisor says.
    pub(crate) async fn is_off(&self) -> bool {
        self.state().await.is_ok_and(SandboxState::is_off)
    }

    /// Whether the host wants the machine to be off.
    pub(crate) fn is_wanted_off(&self) -> bool {
        lock(&self.power).wanted == Some(SandboxState::Shutoff)
    }

    /// How the guest ended itself, if it did.
    pub(crate) fn guest_end(&self) -> Option<&'static str> {
        lock(&self.power).guest_end
    }

    /// Acts on the machine in a task of its own, so that a dropped caller cuts nothing off. The sandbox itself
    /// lets commands queue: hooks may give it some, too.
    pub(crate) async fn act(self: &Arc<Self>, transition: Transition) -> Result<()> {
        let shared = Arc::clone(self);
        let work = self.runtime.spawn(async move {
            let mut change = shared.begin_change(transition);
            let sandbox = &shared.sandbox;
            let done = match transition {
                // The network may have been found open while the handlers before it ran.
                Transition::Poweron => match shared.proof.check_ended() {
                    Ok(()) => sandbox.start().await,
                    Err(open) => Err(open),
                },
                Transition::Resume => match shared.proof.check_ended() {
                    Ok(()) => sandbox.resume().await,
                    Err(open) => Err(open),
                },
                Transition::Pause => sandbox.suspend().await,
                Transition::Poweroff => sandbox.destroy().await,
                Transition::Shutdown => sandbox.shutdown().await,
                Transition::Restart => sandbox.reboot().await,
            };
            change.succeeded = done.is_ok();
            drop(change);
            // What the guest did meanwhile was not looked at.
            shared.look().await;
            done
        });
        let limit = self.limits.power;
        match tokio::time::timeout(limit, work).await {
            Ok(joined) => joined.unwrap_or_else(|failed| Err(died(failed))),
            Err(_) => Err(Error::timeout("the hypervisor", limit)),
        }
        .map_err(|error| match error.operation() {
            Some(_) => error,
            None => error.during(transition.name()),
        })
    }

    /// The machine's state, for a change of its power.
    pub(crate) async fn state(&self) -> Result<SandboxState> {
        let limit = self.limits.power;
        tokio::time::timeout(limit, self.sandbox.state())
            .await
            .unwrap_or_else(|_| Err(Error::timeout("the hypervisor to tell the state", limit)))
    }

    /// Posts what the guest does to its own power.
    pub(crate) async fn watch(self: Arc<Self>, mut changes: mpsc::Receiver<SandboxChange>) {
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
            };
            match change {
                SandboxChange::Rebooted => {
                    let asked = {
                        let mut power = lock(&self.power);
                        let asked = power.restarts_asked > 0;
                        power.restarts_asked = power.restarts_asked.saturating_sub(1);
                        asked
                    };
                    self.tell(Event::new(if asked { "restarted" } else { "guest_reboot" }));
                }
                // Reports may be late or lost: what counts is how the machine stands now.
                SandboxChange::State(_) | SandboxChange::Missed => self.look().await,
            }
        }
    }

    /// Notes that the host begins to change the machine's power.
    fn begin_change(&self, transition: Transition) -> Change<'_> {
        let mut power = lock(&self.power);
        power.begun += 1;
        power.restarts_asked += u32::from(transition == Transition::Restart);
        if matches!(transition, Transition::Poweron | Transition::Resume) {
            power.guest_end = None;
        }
        Change {
            number: power.begun,
            before: power.wanted.replace(transition.leads_to()),
            succeeded: false,
            power: &self.power,
        }
    }

    /// Looks whether the guest ended, went to sleep or woke by itself, and posts it.
    async fn look(&self) {
        let begun = lock(&self.power).begun;
        let state = match self.sandbox.state().await {
            Ok(state) => state,
            Err(error) => {
                tracing::debug!("the machine's state is not to be had: {error}");
                return;
            }
        };
        let news = {
            let mut power = lock(&self.power);
            let ours = power.done != power.begun || power.begun != begun;
            let unwanted = power
                .wanted
                .is_some_and(|wanted| wanted != SandboxState::Shutoff);
            let end = match state {
                SandboxState::Shutoff => Some(("the guest switched itself off", "guest_poweroff")),
                SandboxState::Crashed => Some(("the guest crashed", "guest_crash")),
                SandboxState::Suspended => Some((ASLEEP, "guest_suspend")),
                _ => None,
            };
            let wakes = state == SandboxState::Running && power.guest_end == Some(ASLEEP);
            // A change under way, or made meanwhile, looks again when it is done.
            if ours {
                None
            } else if wakes {
                power.guest_end = None;
                Some("guest_wakeup")
            } else {
                end.filter(|_| unwanted && power.guest_end.is_none())
                    .map(|(words, name)| {
                        power.guest_end = Some(words);
                        name
                    })
            }
        };
        if let Some(name) = news {
            self.tell(Event::new(name));
        }
        self.notice();
    }

    fn tell(&self, event: Event) {
        if let Err(error) = self.post(event.source("environment")) {
            tracing::warn!("an event of the guest is lost: {error}");
        }
    }
}

/// What an environment is built of, beside its sandbox.
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

//! A sandbox and its hooks, from allocation to teardown.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Notify, mpsc};

use crate::bus::{lock, panic_message, queue_full};
use crate::event::Text;
use crate::hook::Attached;
use crate::host::Stay;
use crate::ledger::Record;
use crate::settings::AgentSettings;
use crate::turn::TurnState;
use crate::{
    Context, Error, ErrorKind, Event, EventBus, Identifier, Result, Sandbox, SandboxChange,
    SandboxState, Stop, StopToken, Transition, Turn,
};

/// How long the steps of an environment's end may take.
#[derive(Debug, Clone)]
pub struct EndLimits {
    /// The longest wait for handlers that run, before they are cancelled. 10 s.
    pub turn: Duration,
    /// The longest wait for one hook's tasks, and again for its cleanup. 30 s.
    pub hook: Duration,
    /// The longest wait for the sandbox's release. 60 s.
    pub release: Duration,
    /// The longest wait for one change of power, above the backend's own deadlines. 120 s.
    pub power: Duration,
}

impl Default for EndLimits {
    fn default() -> Self {
        Self {
            turn: Duration::from_secs(10),
            hook: Duration::from_secs(30),
            release: Duration::from_secs(60),
            power: Duration::from_secs(120),
        }
    }
}

/// What environment, turn and contexts have in common.
pub(crate) struct Shared {
    pub(crate) identifier: Identifier,
    pub(crate) sandbox: Arc<dyn Sandbox>,
    pub(crate) bus: Arc<EventBus>,
    pub(crate) runtime: Handle,
    pub(crate) record: Record,
    pub(crate) agent: AgentSettings,
    pub(crate) turn: Arc<tokio::sync::Mutex<TurnState>>,
    pub(crate) stop_token: StopToken,
    /// Wakes the turn's holder when something was posted or changed.
    pub(crate) noticed: Notify,
    /// Wakes the pump, which handles posted events while nobody holds the turn.
    pump: Notify,
    stop: Stop,
    scopes: Mutex<Vec<Stop>>,
    posted: mpsc::Sender<Event>,
    closed: AtomicBool,
    power: Mutex<Power>,
    /// Commands to the machine queue up here; the lock is held by the work, not by who asked for it.
    commands: Arc<tokio::sync::Mutex<()>>,
    limits: EndLimits,
}

/// What the host wants the machine to be, so that the guest's own changes can be told apart.
#[derive(Debug, Default)]
struct Power {
    wanted: Option<SandboxState>,
    restart_asked: bool,
    guest_end: Option<&'static str>,
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
        let (posted, queue) = mpsc::channel(parts.bus.limits.queue);
        let stop = parts.stop;
        Arc::new(Self {
            identifier: sandbox.identifier(),
            sandbox,
            bus: Arc::new(parts.bus),
            runtime,
            record,
            agent: parts.agent,
            turn: Arc::new(tokio::sync::Mutex::new(TurnState { posted: queue })),
            stop_token: stop.token(),
            noticed: Notify::new(),
            pump: Notify::new(),
            stop,
            scopes: Mutex::default(),
            posted,
            closed: AtomicBool::new(false),
            power: Mutex::default(),
            commands: Arc::default(),
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
            .map_err(|refused| queue_full(&refused.into_inner(), self.bus.limits.queue))?;
        self.notice();
        Ok(())
    }

    fn notice(&self) {
        self.noticed.notify_one();
        self.pump.notify_one();
    }

    /// How the guest ended itself, if it did.
    pub(crate) fn guest_end(&self) -> Option<&'static str> {
        lock(&self.power).guest_end
    }

    /// Acts on the machine in a task of its own, so that a dropped caller cuts nothing off.
    pub(crate) async fn act(&self, transition: Transition) -> Result<()> {
        {
            let mut power = lock(&self.power);
            power.wanted = Some(transition.leads_to());
            power.restart_asked = transition == Transition::Restart;
            if transition == Transition::Poweron {
                power.guest_end = None;
            }
        }
        let sandbox = Arc::clone(&self.sandbox);
        let commands = Arc::clone(&self.commands);
        let work = self.runtime.spawn(async move {
            let _queue = commands.lock_owned().await;
            match transition {
                Transition::Poweron => sandbox.start().await,
                Transition::Pause => sandbox.suspend().await,
                Transition::Resume => sandbox.resume().await,
                Transition::Poweroff => sandbox.destroy().await,
                Transition::Shutdown => sandbox.shutdown().await,
                Transition::Restart => sandbox.reboot().await,
            }
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

    /// Handles posted events whenever nobody holds the turn.
    async fn pump(self: Arc<Self>) {
        while !self.is_closed() {
            tokio::select! {
                biased;
                () = self.stop_token.stopped() => return,
                () = self.pump.notified() => {}
            }
            let mut turn = Turn::take(Arc::clone(&self)).await;
            if let Err(error) = turn.handle_posted().await {
                tracing::debug!("posted events are left: {error}");
            }
        }
    }

    /// Posts what the guest does to its own power.
    async fn watch(self: Arc<Self>, mut changes: mpsc::Receiver<SandboxChange>) {
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
            let state = match change {
                SandboxChange::Rebooted => {
                    let asked = std::mem::take(&mut lock(&self.power).restart_asked);
                    self.tell(Event::new(if asked { "restarted" } else { "guest_reboot" }));
                    continue;
                }
                // Reports may be late or lost: what counts is how the machine stands now.
                SandboxChange::State(_) | SandboxChange::Missed => {
                    match self.sandbox.state().await {
                        Ok(state) => state,
                        Err(error) => {
                            tracing::debug!("the machine's state is not to be had: {error}");
                            continue;
                        }
                    }
                }
            };
            self.compare(state);
        }
    }

    fn compare(&self, state: SandboxState) {
        let news = {
            let mut power = lock(&self.power);
            let unwanted = power.wanted != Some(SandboxState::Shutoff) && power.wanted.is_some();
            match state {
                SandboxState::Shutoff if unwanted && power.guest_end.is_none() => {
                    power.guest_end = Some("the guest switched itself off");
                    Some("guest_poweroff")
                }
                SandboxState::Crashed if unwanted && power.guest_end.is_none() => {
                    power.guest_end = Some("the guest crashed");
                    Some("guest_crash")
                }
                _ => None,
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

/// A task of ours that did not end by itself.
pub(crate) fn died(failed: tokio::task::JoinError) -> Error {
    let what = match failed.try_into_panic() {
        Ok(panic) => format!("a task panicked: {}", panic_message(&*panic)),
        Err(_) => "a task was cancelled with its runtime".to_owned(),
    };
    Error::new(ErrorKind::Internal, what)
}

/// What an environment is built of, beside its sandbox.
pub(crate) struct Parts {
    pub(crate) bus: EventBus,
    pub(crate) agent: AgentSettings,
    pub(crate) stop: Stop,
    pub(crate) limits: EndLimits,
}

/// A hook that was attached, with what belongs to it.
pub(crate) struct Resident {
    pub(crate) name: &'static str,
    pub(crate) context: Context,
    pub(crate) hook: Box<dyn Attached>,
}

/// A sandbox and its hooks.
///
/// It is allocated by a [`Host`](crate::Host) and ends by [`Environment::deallocate`]. One that is
/// dropped is stopped and torn down by its host in the background.
pub struct Environment {
    shared: Arc<Shared>,
    rest: Option<Rest>,
}

/// What is taken apart at the end.
pub(crate) struct Rest {
    pub(crate) hooks: Vec<Resident>,
    /// Contexts that were given to the environment's owner.
    owners: Vec<Context>,
    pub(crate) stay: Stay,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Environment")
            .field(&self.shared.identifier)
            .finish()
    }
}

impl Environment {
    pub(crate) fn new(shared: Arc<Shared>, stay: Stay) -> Self {
        let changes = shared.sandbox.watch();
        let tasks = vec![
            shared.runtime.spawn(Arc::clone(&shared).watch(changes)),
            shared.runtime.spawn(Arc::clone(&shared).pump()),
        ];
        Self {
            shared,
            rest: Some(Rest {
                hooks: Vec::new(),
                owners: Vec::new(),
                stay,
                tasks,
            }),
        }
    }

    pub(crate) fn add_hook(&mut self, resident: Resident) {
        if let Some(rest) = &mut self.rest {
            rest.hooks.push(resident);
        }
    }

    pub(crate) fn end_limits(&self) -> &EndLimits {
        &self.shared.limits
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The identifier: the name of everything that belongs to it.
    pub fn identifier(&self) -> Identifier {
        self.shared.identifier
    }

    /// A context of the environment's owner; its handlers and tasks end at the latest with the environment.
    pub fn context(&mut self, owner: impl Into<Text>) -> Context {
        let context = Context::new(&self.shared, owner.into());
        if let Some(rest) = &mut self.rest {
            rest.owners.push(context.clone());
        }
        context
    }

    /// The bus, to look at.
    pub fn bus(&self) -> &EventBus {
        &self.shared.bus
    }

    /// The sandbox, to look at.
    pub fn sandbox(&self) -> &Arc<dyn Sandbox> {
        &self.shared.sandbox
    }

    /// The turn, as soon as it is free.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`] when the environment is stopped before.
    pub async fn turn(&mut self) -> Result<TurnGuard<'_>> {
        let shared = Arc::clone(&self.shared);
        let turn = shared
            .stop_token
            .or("turn", Turn::take(Arc::clone(&shared)))
            .await?;
        Ok(TurnGuard {
            turn,
            _environment: self,
        })
    }

    /// What can stop the environment from elsewhere, a signal handler say.
    pub fn stopper(&self) -> Stopper {
        Stopper(Arc::downgrade(&self.shared))
    }

    /// Ends the environment: no new triggers, running handlers joined up to a deadline, then the hooks in
    /// reverse, then the sandbox. Every step runs even when one before it failed, and the work goes on
    /// when this future is dropped.
    pub async fn deallocate(mut self) -> Teardown {
        let Some(rest) = self.rest.take() else {
            return Teardown::default();
        };
        let work = self
            .shared
            .runtime
            .spawn(tear_down(Arc::clone(&self.shared), rest));
        work.await.unwrap_or_else(|failed| Teardown {
            errors: vec![died(failed)],
        })
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            tracing::warn!(environment = %self.shared.identifier, "dropped without deallocate: torn down in the background");
            self.shared.stop();
            self.shared
                .runtime
                .spawn(tear_down(Arc::clone(&self.shared), rest));
        }
    }
}

async fn tear_down(shared: Arc<Shared>, mut rest: Rest) -> Teardown {
    let mut errors = Vec::new();
    let limits = shared.limits.clone();
    // Whoever holds the turn may finish, and what was posted is still heard; who does not finish is
    // cancelled.
    let last_turn = async {
        let mut turn = Turn::take(Arc::clone(&shared)).await;
        if !shared.stop_token.is_stopped()
            && let Err(error) = turn.handle_posted().await
        {
            tracing::debug!("posted events are left: {error}");
        }
    };
    let finished = tokio::time::timeout(limits.turn, last_turn).await;
    shared.closed.store(true, Ordering::Release);
    shared.notice();
    if finished.is_err() {
        errors.push(Error::timeout("handlers that run", limits.turn).during("deallocate"));
        shared.stop();
    }
    for resident in rest.hooks.drain(..).rev() {
        errors.extend(end_hook(resident, limits.hook).await);
    }
    for owner in rest.owners.drain(..).rev() {
        owner.end(limits.hook).await;
    }
    shared.stop();
    errors.extend(release(&shared, limits.release).await);
    for task in rest.tasks {
        task.abort();
    }
    match shared.record.close().await {
        Ok(left) if left.is_empty() => {}
        Ok(left) => errors.push(
            Error::new(
                ErrorKind::Hypervisor,
                format!("{} resources could not be removed", left.len()),
            )
            .during("deallocate")
            .advice("they are in the ledger: `seectl gc` collects them"),
        ),
        Err(error) => errors.push(error),
    }
    drop(rest.stay);
    for error in &errors {
        tracing::warn!(environment = %shared.identifier, "teardown: {}", error.chain());
    }
    Teardown { errors }
}

async fn end_hook(resident: Resident, limit: Duration) -> Vec<Error> {
    let mut errors = Vec::new();
    let Resident {
        name,
        context,
        hook,
    } = resident;
    let aborted = context.end(limit).await;
    if aborted > 0 {
        errors.push(
            Error::timeout(format!("{aborted} tasks"), limit)
                .during("cleanup")
                .subject(format!("hook {name}")),
        );
    }
    let cleanup = tokio::spawn(async move { hook.leave().await });
    let failed = match tokio::time::timeout(limit, cleanup).await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(error))) => Some(error),
        Ok(Err(failed)) => Some(died(failed)),
        Err(_) => Some(Error::timeout("the hook's cleanup", limit)),
    };
    errors.extend(failed.map(|error| error.during("cleanup").subject(format!("hook {name}"))));
    errors
}

async fn release(shared: &Arc<Shared>, limit: Duration) -> Option<Error> {
    lock(&shared.power).wanted = Some(SandboxState::Shutoff);
    let sandbox = Arc::clone(&shared.sandbox);
    let commands = Arc::clone(&shared.commands);
    let work = shared.runtime.spawn(async move {
        let _queue = commands.lock_owned().await;
        sandbox.release().await
    });
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(error))) => Some(error),
        Ok(Err(failed)) => Some(died(failed)),
        Err(_) => Some(Error::timeout("the sandbox's release", limit)),
    }
}

/// How an environment's end went.
#[derive(Debug, Default)]
pub struct Teardown {
    /// What failed, in the order in which it did. What could not be removed stays in the ledger.
    pub errors: Vec<Error>,
}

impl Teardown {
    /// Whether nothing is left.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }
}

/// Stops an environment from elsewhere; cheap to clone.
#[derive(Debug, Clone)]
pub struct Stopper(Weak<Shared>);

impl Stopper {
    /// Cancels what the environment waits for and the handlers that run. It then only remains to
    /// deallocate it. Asking twice is harmless.
    pub fn stop(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.stop();
        }
    }
}

/// The turn, lent by its environment until this is dropped.
#[derive(Debug)]
pub struct TurnGuard<'environment> {
    turn: Turn,
    _environment: &'environment mut Environment,
}

impl Deref for TurnGuard<'_> {
    type Target = Turn;

    fn deref(&self) -> &Turn {
        &self.turn
    }
}

impl DerefMut for TurnGuard<'_> {
    fn deref_mut(&mut self) -> &mut Turn {
        &mut self.turn
    }
}

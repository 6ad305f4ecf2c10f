//! What a hook sees of its environment.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;

use crate::bus::{BesideHandler, Handler, SerialHandler, Subscription, Tasks, catch};
use crate::event::Text;
use crate::ledger::Record;
use crate::mishap::MishapKind;
use crate::settings::AgentSettings;
use crate::shared::Shared;
use crate::sync::lock;
use crate::{Error, Event, EventBus, Identifier, Machine, Result, Stop, StopToken};

/// What a hook sees of its environment; cheap to clone.
///
/// Handlers and tasks that come from it belong to its hook and end with it. It never gives out a
/// [`Turn`](crate::Turn): only a serial handler is lent one.
#[derive(Clone)]
pub struct Context {
    shared: Arc<Shared>,
    bus: Arc<EventBus>,
    scope: Arc<Scope>,
}

/// How long tasks have at least to end after they were asked to.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// What ends with the hook.
struct Scope {
    owner: Text,
    subscriptions: Mutex<Vec<Subscription>>,
    /// Beside handlers that run.
    handlers: Tasks,
    /// What was spawned.
    tasks: Tasks,
    stop: Stop,
    token: StopToken,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("environment", &self.shared.identifier)
            .field("owner", &self.scope.owner)
            .finish_non_exhaustive()
    }
}

impl Context {
    pub(crate) fn new(shared: &Arc<Shared>, bus: &Arc<EventBus>, owner: Text) -> Self {
        let stop = shared.new_stop();
        let token = stop.token();
        let tasks = || {
            Tasks::new(
                shared.runtime.clone(),
                Arc::clone(&bus.mishaps),
                token.clone(),
            )
        };
        Self {
            shared: Arc::clone(shared),
            bus: Arc::clone(bus),
            scope: Arc::new(Scope {
                owner,
                subscriptions: Mutex::default(),
                handlers: tasks(),
                tasks: tasks(),
                stop,
                token,
            }),
        }
    }

    /// The environment's identifier.
    pub fn identifier(&self) -> Identifier {
        self.shared.identifier
    }

    /// The machine, to look at; its power is changed through a turn.
    pub fn machine(&self) -> &Machine {
        &self.shared.machine
    }

    /// How the agent in the guest is reached.
    pub fn agent(&self) -> &AgentSettings {
        &self.shared.agent
    }

    /// The environment's record in the ledger, for hooks that make things outside it.
    pub fn record(&self) -> &Record {
        &self.shared.record
    }

    /// Counts a file, or a folder with all it will hold, towards `context.limits.captures`: what a hook
    /// takes down of the machine, such as pictures, dumps and recordings. Said before it is written.
    pub fn capture(&self, path: impl Into<PathBuf>) {
        self.shared.captures.add(path.into());
    }

    /// Announces that this hook has the guest prove that its network is closed, where that is asked for
    /// ([`Isolation::is_verified`](crate::Isolation::is_verified)): after each power-on, before anything runs in
    /// the guest, it posts [`ISOLATION_PROVEN`](crate::ISOLATION_PROVEN),
    /// [`ISOLATION_BROKEN`](crate::ISOLATION_BROKEN) or
    /// [`ISOLATION_NOT_CHECKED`](crate::ISOLATION_NOT_CHECKED), or `not_isolation_proven` where nobody in the
    /// guest answers.
    ///
    /// Where the proof is asked for and no hook announces it, the power does not come on.
    pub fn proves_isolation(&self) {
        self.shared.proof.announce(&self.scope.owner);
    }

    /// The bus, to look at.
    pub fn bus(&self) -> &EventBus {
        &self.bus
    }

    /// Calls `handler` for each event of this name. It must only look, for microseconds: everybody waits.
    pub fn subscribe(
        &self,
        name: &str,
        handler: impl Fn(&Event) + Send + Sync + 'static,
    ) -> Subscription {
        self.add(Some(name), Handler::Plain(Arc::new(handler)))
    }

    /// Calls `handler` for every event, whatever its name.
    pub fn observe(&self, handler: impl Fn(&Event) + Send + Sync + 'static) -> Subscription {
        self.add(None, Handler::Plain(Arc::new(handler)))
    }

    /// Runs `handler` for each event of this name, with the turn, while everybody else waits.
    pub fn subscribe_serial(
        &self,
        name: &str,
        handler: impl SerialHandler + 'static,
    ) -> Subscription {
        self.add(Some(name), Handler::Serial(Arc::new(handler)))
    }

    /// Starts `handler` for each event of this name, and waits for nothing.
    pub fn subscribe_beside(
        &self,
        name: &str,
        handler: impl BesideHandler + 'static,
    ) -> Subscription {
        self.add(Some(name), Handler::Beside(Arc::new(handler)))
    }

    fn add(&self, name: Option<&str>, handler: Handler) -> Subscription {
        let scope = &self.scope;
        let tasks = Some(scope.handlers.clone());
        let mut subscriptions = lock(&scope.subscriptions);
        let subscription = self.bus.subscribe(name, &scope.owner, handler, tasks);
        subscriptions.push(subscription);
        subscription
    }

    /// Ends a subscription of this hook; others' are left alone. Not even a trigger under way calls it again.
    pub fn unsubscribe(&self, subscription: Subscription) {
        let mut subscriptions = lock(&self.scope.subscriptions);
        if let Some(index) = subscriptions.iter().position(|s| *s == subscription) {
            subscriptions.swap_remove(index);
            self.bus.unsubscribe(|gone| gone == subscription);
        }
    }

    /// Posts an event: it is triggered as soon as the turn is free. Never waits.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`](crate::ErrorKind::Exhausted) when too many wait already,
    /// [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) once the environment is closed.
    pub fn post(&self, event: impl Into<Event>) -> Result<()> {
        let event = event.into();
        let event = match event.said_by() {
            "" => event.source(self.scope.owner.clone()),
            _ => event,
        };
        self.shared.post(event)
    }

    /// Runs a task beside everything else. It ends with the hook: joined if it looks at
    /// [`Context::stop_token`], aborted otherwise.
    ///
    /// Returns `false` where the hook has ended, or already runs a thousand tasks. A panic in it is recorded as
    /// a failure of the hook.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> bool {
        let (report, owner) = (self.scope.tasks.clone(), self.scope.owner.clone());
        self.scope.tasks.spawn_within(1000, async move {
            if let Err(message) = catch(task).await {
                report.record("a task", owner.as_str(), MishapKind::Panicked(message));
            }
        })
    }

    /// Reports that the hook could not do what it is for, outside of a handler, whose error is reported by
    /// itself. `doing` says what it was about: an event's name, say.
    ///
    /// Nothing ends by it, but a run in which a required hook failed did not go well
    /// ([`EventBus::hook_failure`]).
    pub fn report_failure(&self, doing: &str, error: &Error) {
        let what = MishapKind::Failed(error.chain());
        self.bus.record(doing, self.scope.owner.as_str(), what);
    }

    /// Stops when the hook ends or the environment is stopped.
    pub fn stop_token(&self) -> &StopToken {
        &self.scope.token
    }

    /// Ends every handler and task: handlers may finish, tasks are asked to. Returns how many of them
    /// were still there after `deadline`, and were aborted.
    pub(crate) async fn end(&self, deadline: Duration) -> usize {
        self.unsubscribe_all();
        self.shared.proof.withdraw(&self.scope.owner);
        let deadline = Instant::now() + deadline;
        let handlers = self.scope.handlers.finish(deadline).await;
        self.scope.stop.stop();
        // Tasks that were only now asked to end have a moment even when the handlers took all the time.
        let tasks = self
            .scope
            .tasks
            .finish(deadline.max(Instant::now() + LAST_MOMENT))
            .await;
        handlers + tasks
    }

    fn unsubscribe_all(&self) {
        let mut ours = lock(&self.scope.subscriptions);
        self.bus.unsubscribe(|gone| ours.contains(&gone));
        ours.clear();
    }
}

//! A sandbox and its hooks, from allocation to teardown.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

use crate::bus::Handler;
use crate::event::Text;
use crate::proof::Proof;
use crate::shared::{EndLimits, Shared};
use crate::sync::died;
use crate::teardown::{Fate, Resident, Rest, Stay, Teardown, tear_down};
use crate::{Context, Event, EventBus, Identifier, Machine, Result, Turn};

/// A sandbox and its hooks.
///
/// It is allocated by a [`Host`](crate::Host) and ends by [`Environment::deallocate`]. One that is
/// dropped is stopped and torn down by its host in the background.
pub struct Environment {
    shared: Arc<Shared>,
    bus: Arc<EventBus>,
    rest: Option<Rest>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Environment")
            .field(&self.shared.identifier)
            .finish()
    }
}

impl Environment {
    pub(crate) fn new(shared: Arc<Shared>, bus: EventBus, stay: Stay) -> Self {
        for name in Proof::EVENTS {
            let proof = Arc::clone(&shared.proof);
            let hears = Handler::Plain(Arc::new(move |event: &Event| proof.hear(event)));
            let owner = Text::literal("environment");
            bus.subscribe(Some(name), &owner, hears, None);
        }
        let bus = Arc::new(bus);
        let changes = shared.machine.watch();
        let tasks = vec![
            shared.runtime.spawn(Arc::clone(&shared).watch(changes)),
            shared
                .runtime
                .spawn(pump(Arc::clone(&shared), Arc::clone(&bus))),
        ];
        Self {
            shared,
            bus,
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

    /// A context of a hook's; the hook's end is its end.
    pub(crate) fn hook_context(&self, name: &'static str) -> Context {
        Context::new(&self.shared, &self.bus, Text::literal(name))
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
        let context = Context::new(&self.shared, &self.bus, owner.into());
        if let Some(rest) = &mut self.rest {
            rest.owners.push(context.clone());
        }
        context
    }

    /// The bus, to look at.
    pub fn bus(&self) -> &EventBus {
        &self.bus
    }

    /// The machine, to look at.
    pub fn machine(&self) -> &Machine {
        &self.shared.machine
    }

    /// The turn, as soon as it is free.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`] when the environment is stopped before.
    pub async fn turn(&mut self) -> Result<TurnGuard<'_>> {
        let shared = Arc::clone(&self.shared);
        let turn = shared
            .stop_token
            .or(
                "turn",
                Turn::take(Arc::clone(&shared), Arc::clone(&self.bus)),
            )
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
    pub async fn deallocate(self) -> Teardown {
        self.end(Fate::Released).await
    }

    /// Ends the environment as [`Environment::deallocate`], but leaves its sandbox on the host as it is:
    /// nobody collects it before `until`. From then on it is one of those that dead owners left, and
    /// before that a collection takes it that is told to
    /// ([`CollectOptions::include_kept`](crate::ledger::CollectOptions::include_kept)).
    pub async fn keep(self, until: SystemTime) -> Teardown {
        self.end(Fate::Kept(until)).await
    }

    async fn end(mut self, fate: Fate) -> Teardown {
        let Some(rest) = self.rest.take() else {
            return Teardown::default();
        };
        let ending = tear_down(Arc::clone(&self.shared), Arc::clone(&self.bus), rest, fate);
        let work = self.shared.runtime.spawn(ending);
        work.await.unwrap_or_else(|failed| Teardown {
            errors: vec![died(failed)],
            kept: false,
        })
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        if let Some(rest) = self.rest.take() {
            tracing::warn!(environment = %self.shared.identifier, "dropped without deallocate: torn down in the background");
            self.shared.stop();
            let (shared, bus) = (Arc::clone(&self.shared), Arc::clone(&self.bus));
            let ending = tear_down(shared, bus, rest, Fate::Released);
            self.shared.runtime.spawn(ending);
        }
    }
}

/// Handles posted events whenever nobody holds the turn.
async fn pump(shared: Arc<Shared>, bus: Arc<EventBus>) {
    while !shared.is_closed() {
        tokio::select! {
            biased;
            () = shared.stop_token.stopped() => return,
            () = shared.pump.notified() => {}
        }
        let mut turn = Turn::take(Arc::clone(&shared), Arc::clone(&bus)).await;
        if let Err(error) = turn.handle_posted().await {
            tracing::debug!("posted events are left: {error}");
        }
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

//! The turn: the right to run handlers and to change power. There is one for each environment.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, mpsc};
use tokio::time::Instant;

use super::{Cached, EventBus, Handler, List, Subscription};
use crate::event::{Text, Value};
use crate::proof::{Standing, ended, unproven};
use crate::shared::{Shared, TurnState};
use crate::sync::lock;
use crate::{Error, ErrorKind, Event, Machine, Result, StopToken, Transition};

/// The right to run handlers and to change power.
///
/// An environment has one, and lends it: to its owner, and to the serial handler that runs. Only the
/// holder waits for handlers, so two of them can never wait for each other; and since the turn can be
/// neither cloned nor kept, a wait that would deadlock does not compile.
pub struct Turn {
    shared: Arc<Shared>,
    bus: Arc<EventBus>,
    state: OwnedMutexGuard<TurnState>,
    handlers: Cached,
    depth: usize,
}

impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn")
            .field("environment", &self.shared.identifier)
            .field("depth", &self.depth)
            .finish_non_exhaustive()
    }
}

impl Turn {
    /// Waits until the turn is free.
    pub(crate) async fn take(shared: Arc<Shared>, bus: Arc<EventBus>) -> Self {
        let state = Arc::clone(&shared.turn).lock_owned().await;
        let handlers = bus.cache();
        Self {
            shared,
            bus,
            state,
            handlers,
            depth: 0,
        }
    }

    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    pub(crate) fn restore_depth(&mut self, depth: usize) {
        self.depth = depth;
    }

    pub(crate) fn stop_token(&self) -> &StopToken {
        &self.shared.stop_token
    }

    /// The machine, to look at; its power is changed through the turn.
    pub fn machine(&self) -> &Machine {
        &self.shared.machine
    }

    /// Triggers an event and waits for its plain and serial handlers; beside handlers are started.
    ///
    /// What goes wrong in a handler is recorded ([`EventBus::mishaps`](crate::EventBus::mishaps)) and
    /// stops nobody.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`] once the environment is closed, [`ErrorKind::Exhausted`] where handlers
    /// trigger events deeper than the limit.
    pub fn trigger(
        &mut self,
        event: impl Into<Event>,
    ) -> impl Future<Output = Result<()>> + Send + '_ {
        // Converted before the future is made, which then holds one event instead of two.
        let mut event = event.into();
        async move {
            event.stamp();
            match self.call_plain(&event)? {
                None => Ok(()),
                Some(list) => self.call_all(&list, &event).await,
            }
        }
    }

    /// Calls the handlers where all are plain, and otherwise says which are to be called.
    #[inline]
    fn call_plain(&mut self, event: &Event) -> Result<Option<Arc<List>>> {
        if self.shared.is_closed() {
            return Err(Error::stopped("trigger").subject(event.name()));
        }
        Ok(self.bus.trigger_plain(&mut self.handlers, event))
    }

    async fn call_all(&mut self, list: &List, event: &Event) -> Result<()> {
        let limit = self.bus.limits.depth;
        if self.depth == limit {
            return Err(Error::new(
                ErrorKind::Exhausted,
                format!("handlers trigger events {limit} deep"),
            )
            .during("trigger")
            .subject(event.name())
            .advice("post the event instead: it is handled when the turn is free"));
        }
        self.depth += 1;
        let bus = Arc::clone(&self.bus);
        bus.trigger_list(list, self, event).await;
        self.depth -= 1;
        Ok(())
    }

    /// Handles what was posted so far; what the handlers post meanwhile stays for the next time.
    ///
    /// # Errors
    /// As [`Turn::trigger`].
    pub async fn handle_posted(&mut self) -> Result<()> {
        for _ in 0..self.state.posted.len() {
            let Ok(event) = self.state.posted.try_recv() else {
                break;
            };
            if let Some(list) = self.call_plain(&event)? {
                self.call_all(&list, &event).await?;
            }
        }
        Ok(())
    }

    /// Starts to listen for an event, so that one that fires before the wait for it is not missed.
    ///
    /// Who finds out that an event `X` will never fire says so with the event `not_X`, whose attribute
    /// `message` tells why; that ends a wait for `X` as well. Its attribute `cause` may be `isolation`: the
    /// walls around the guest have a hole.
    pub fn listen(&mut self, name: &str) -> Listener {
        let (sender, heard) = mpsc::channel(1);
        let handler = Handler::Plain(Arc::new(move |event: &Event| {
            // A full channel means that an earlier one was heard and not taken yet: that one serves.
            let _ = sender.try_send(event.clone());
        }));
        Listener {
            name: name.to_owned(),
            heard,
            _ears: [
                self.hear(name, handler.clone()),
                self.hear(&format!("not_{name}"), handler),
            ],
        }
    }

    /// Waits for the next event that `listener` hears, and handles what is posted meanwhile.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] at the deadline; [`ErrorKind::Stopped`] when the environment is stopped;
    /// [`ErrorKind::Guest`] as soon as the guest switched itself off, crashed or suspended itself, since
    /// nothing in it can fire an event then, or when somebody says that the event will not come; [`ErrorKind::Isolation`] when that is because of
    /// a hole in the walls around the guest.
    pub async fn wait(&mut self, listener: &mut Listener, timeout: Duration) -> Result<Event> {
        let what = format!("wait for {}", listener.name);
        let heard = self
            .until(timeout, &what, || listener.heard.try_recv().ok())
            .await?;
        let heard =
            heard.ok_or_else(|| Error::timeout(format!("the event {}", listener.name), timeout))?;
        if heard.name() == listener.name {
            return Ok(heard);
        }
        let why = heard.get("message").and_then(Value::as_str);
        let why = why.unwrap_or("the event will not come").to_owned();
        let kind = match heard.get("cause").and_then(Value::as_str) {
            Some("isolation") => ErrorKind::Isolation,
            _ => ErrorKind::Guest,
        };
        Err(Error::new(kind, why).during(what))
    }

    /// Waits until something may run in the guest: until its network is proven closed, where that is owed.
    pub(crate) async fn wait_for_proof(&mut self, timeout: Duration) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let what = "wait for the proof that the network is closed";
        let standing = || match shared.proof.standing(&shared.machine) {
            // Nothing runs in a machine that is off.
            Standing::Awaited if shared.machine.is_wanted_off() => Some(Standing::Settled),
            Standing::Awaited => None,
            known => Some(known),
        };
        match self.until(timeout, what, standing).await? {
            Some(Standing::GivenUp(why)) => Err(unproven(why)),
            Some(Standing::Ended(why)) => Err(ended(&why)),
            Some(_) => Ok(()),
            None => Err(Error::timeout(
                "the proof that the network is closed",
                timeout,
            )),
        }
    }

    /// Lets time pass, and handles what is posted meanwhile.
    ///
    /// # Errors
    /// As [`Turn::wait`], but for the timeout.
    pub async fn pass(&mut self, time: Duration) -> Result<()> {
        self.until(time, "wait", || None::<()>).await.map(|_| ())
    }

    /// Handles what is posted until `found` finds something, or the time is over.
    async fn until<T>(
        &mut self,
        time: Duration,
        what: &str,
        mut found: impl FnMut() -> Option<T>,
    ) -> Result<Option<T>> {
        let deadline = Instant::now() + time;
        let shared = Arc::clone(&self.shared);
        loop {
            self.handle_posted().await?;
            if let Some(found) = found() {
                return Ok(Some(found));
            }
            if let Some(end) = shared.machine.guest_end() {
                return Err(Error::new(ErrorKind::Guest, end).during(what.to_owned()));
            }
            tokio::select! {
                biased;
                () = shared.stop_token.stopped() => {
                    return Err(Error::stopped(what.to_owned()));
                }
                () = shared.noticed.notified() => {}
                () = tokio::time::sleep_until(deadline) => {
                    // Something may have been posted in the last instant.
                    self.handle_posted().await?;
                    return Ok(found());
                }
            }
        }
    }

    /// Keeps something of the events of this name from now on.
    pub(crate) fn keep<T: Default + Send + 'static>(
        &mut self,
        name: &str,
        keep: impl Fn(&mut T, &Event) + Send + Sync + 'static,
    ) -> Kept<T> {
        let kept = Arc::new(Mutex::new(T::default()));
        let slot = Arc::clone(&kept);
        let handler = Handler::Plain(Arc::new(move |event: &Event| {
            keep(&mut lock(&slot), event);
        }));
        Kept {
            kept,
            _ear: self.hear(name, handler),
        }
    }

    fn hear(&self, name: &str, handler: Handler) -> Ear {
        let owner = Text::literal("listener");
        Ear {
            subscription: self.bus.subscribe(Some(name), &owner, handler, None),
            bus: Arc::clone(&self.bus),
        }
    }

    /// Starts the machine.
    ///
    /// # Errors
    /// [`ErrorKind::IllegalTransition`] where its state does not allow it, [`ErrorKind::Isolation`] where its
    /// guest has to prove that its network is closed and no hook announced that it sees to that
    /// ([`Context::proves_isolation`](crate::Context::proves_isolation)), or once the network was found open or could
    /// not be tried, and what the hypervisor reports.
    pub async fn poweron(&mut self) -> Result<()> {
        self.change(Transition::Poweron, []).await
    }

    /// Suspends the machine in memory.
    ///
    /// # Errors
    /// As [`Turn::poweron`].
    pub async fn pause(&mut self) -> Result<()> {
        self.change(Transition::Pause, []).await
    }

    /// Continues the machine.
    ///
    /// # Errors
    /// As [`Turn::poweron`].
    pub async fn resume(&mut self) -> Result<()> {
        self.change(Transition::Resume, []).await
    }

    /// Cuts the machine's power.
    ///
    /// # Errors
    /// As [`Turn::poweron`].
    pub async fn poweroff(&mut self) -> Result<()> {
        self.change(Transition::Poweroff, []).await
    }

    /// Asks the guest to restart. `post_restart` follows once it was asked; `restarted` is posted when it
    /// does, and until then the old guest runs on.
    ///
    /// # Errors
    /// As [`Turn::poweron`].
    pub async fn restart(&mut self) -> Result<()> {
        self.change(Transition::Restart, []).await
    }

    /// Changes power with attributes for the events before and after it.
    ///
    /// `pre_X` is triggered once the transition was found allowed, `post_X` after it was done. The work
    /// itself runs in a task of its own: dropping this future does not cut it off.
    ///
    /// # Errors
    /// As [`Turn::poweron`]. For [`Transition::Shutdown`] as [`Turn::shutdown`], with a minute's time.
    pub async fn change(
        &mut self,
        transition: Transition,
        attributes: impl IntoIterator<Item = (Text, Value)> + Send,
    ) -> Result<()> {
        if transition == Transition::Shutdown {
            return self
                .shutdown_with(Duration::from_secs(60), attributes)
                .await
                .map(|_| ());
        }
        let attributes: Vec<_> = attributes.into_iter().collect();
        let (before, after) = transition.events();
        transition.check(self.shared.machine.state().await?)?;
        let checked = match transition {
            Transition::Poweron => self.shared.proof.check_start(&self.shared.machine),
            Transition::Resume => self.shared.proof.check_ended(),
            _ => Ok(()),
        };
        checked.map_err(|error| error.during(transition.name()))?;
        self.trigger(power_event(before, &attributes)).await?;
        self.shared.act(transition).await?;
        self.trigger(power_event(after, &attributes)).await
    }

    /// Asks the guest to shut down, and cuts the power at the deadline if it did not, or if the hypervisor did
    /// not even answer.
    ///
    /// `post_shutdown` carries `forced`: whether the power had to be cut, and then a `message` that says for
    /// what it waited, and how long. A machine that is off already
    /// is left alone and counts as not forced.
    ///
    /// # Errors
    /// As [`Turn::poweron`]; [`ErrorKind::Stopped`] when the environment is stopped meanwhile.
    pub async fn shutdown(&mut self, timeout: Duration) -> Result<Shutdown> {
        self.shutdown_with(timeout, []).await
    }

    async fn shutdown_with(
        &mut self,
        timeout: Duration,
        attributes: impl IntoIterator<Item = (Text, Value)> + Send,
    ) -> Result<Shutdown> {
        let attributes: Vec<_> = attributes.into_iter().collect();
        let (before, after) = Transition::Shutdown.events();
        // A hypervisor that does not answer in time is asked to cut the power, as for a guest that stays.
        let state = answer(Instant::now() + timeout, self.shared.machine.state()).await?;
        let mut hangs = state.is_none();
        if let Some(state) = state {
            Transition::Shutdown.check(state)?;
        }
        self.trigger(power_event(before, &attributes)).await?;
        // The time of the handlers, and of a slow answer, is not the guest's.
        let deadline = Instant::now() + timeout;
        if !hangs {
            let asked = self.shared.act(Transition::Shutdown);
            hangs = answer(deadline, asked).await?.is_none();
        }
        let forced = hangs || !self.off_by(deadline).await?;
        let waited_for = if hangs {
            "the hypervisor to ask the guest to switch itself off"
        } else {
            "the guest to switch itself off"
        };
        if forced {
            tracing::warn!("waited {timeout:.1?} for {waited_for}: its power is cut");
            self.shared.act(Transition::Poweroff).await?;
        }
        let mut told = power_event(after, &attributes).with("forced", forced);
        if forced {
            told = told.with("message", format!("waited {timeout:.1?} for {waited_for}"));
        }
        self.trigger(told).await?;
        Ok(Shutdown { forced })
    }

    /// Whether the machine was off by the deadline; handles what is posted meanwhile.
    async fn off_by(&mut self, deadline: Instant) -> Result<bool> {
        // Backends without events of their own are asked now and then.
        let mut poll = tokio::time::interval(Duration::from_millis(250));
        loop {
            match answer(deadline, self.shared.machine.state()).await? {
                Some(state) if state.is_off() => return Ok(true),
                Some(_) => {}
                // A hypervisor that does not say is asked to cut the power, as for a guest that stays.
                None => return Ok(false),
            }
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                biased;
                () = shared.stop_token.stopped() => return Err(Error::stopped("shutdown")),
                () = tokio::time::sleep_until(deadline) => return Ok(false),
                () = shared.noticed.notified() => self.handle_posted().await?,
                _ = poll.tick() => {}
            }
        }
    }
}

/// What a hypervisor answers; `None` where it has not by then, or where the wait for it was over before.
async fn answer<T>(
    deadline: Instant,
    asked: impl Future<Output = Result<T>> + Send,
) -> Result<Option<T>> {
    match tokio::time::timeout_at(deadline, asked).await {
        Err(_) => Ok(None),
        Ok(Err(error)) if error.kind() == ErrorKind::Timeout => Ok(None),
        Ok(answered) => answered.map(Some),
    }
}

/// How a shutdown went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown {
    /// The guest did not shut down in time, and its power was cut.
    pub forced: bool,
}

fn power_event(name: &'static str, attributes: &[(Text, Value)]) -> Event {
    Event::new(name)
        .source("environment")
        .with_all(attributes.iter().cloned())
}

/// Hears of one event name from [`Turn::listen`] on, until it is dropped.
#[derive(Debug)]
pub struct Listener {
    name: String,
    heard: mpsc::Receiver<Event>,
    _ears: [Ear; 2],
}

impl Listener {
    /// The next event that it hears; `None` once nothing can be heard any more.
    pub(crate) async fn heard(&mut self) -> Option<Event> {
        self.heard.recv().await
    }

    /// The next event, where it has heard one.
    pub(crate) fn heard_already(&mut self) -> Option<Event> {
        self.heard.try_recv().ok()
    }
}

/// What is kept of the events of one name.
#[derive(Debug)]
pub(crate) struct Kept<T> {
    kept: Arc<Mutex<T>>,
    _ear: Ear,
}

impl<T: Default> Kept<T> {
    pub(crate) fn take(&self) -> T {
        std::mem::take(&mut lock(&self.kept))
    }
}

/// A subscription that ends when it is dropped.
#[derive(Debug)]
struct Ear {
    subscription: Subscription,
    bus: Arc<EventBus>,
}

impl Drop for Ear {
    fn drop(&mut self) {
        let ours = self.subscription;
        self.bus.unsubscribe(|subscription| subscription == ours);
    }
}

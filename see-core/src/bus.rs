//! The event bus: who is called when an event is triggered, in which order, and for how long.

mod bounded;
mod roster;
mod sync;
mod tasks;
mod turn;

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as Waker, Poll};
use std::time::Duration;

use roster::{Began, Guest, Roster, Seat, Table};
use sync::Reader;
pub(crate) use tasks::Tasks;
pub(crate) use turn::Kept;
pub use turn::{Listener, Shutdown, Turn};

use crate::event::{Event, Text};
use crate::mishap::{Mishap, MishapKind, Mishaps};
use crate::sync::panic_message;
use crate::{Result, StopToken};

/// A future that a handler returns.
pub type HandlerFuture<'a> = Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// How long things may take and how many there may be, on one bus.
#[derive(Debug, Clone)]
pub struct BusLimits {
    /// The longest a serial or beside handler may run before it is dropped. 10 minutes.
    pub handler_deadline: Duration,
    /// A trigger whose plain handlers took longer than this is reported. 50 ms.
    pub slow_plain: Duration,
    /// How many beside handlers may run at once, for each owner. 1024.
    pub beside: usize,
    /// How many posted events may wait. 1024.
    pub queue: usize,
    /// How deep triggers may nest. 16.
    pub depth: usize,
    /// How many mishaps are kept; older ones are counted only. 256.
    pub mishaps: usize,
}

impl Default for BusLimits {
    fn default() -> Self {
        Self {
            handler_deadline: Duration::from_secs(600),
            slow_plain: Duration::from_millis(50),
            beside: 1024,
            queue: 1024,
            depth: 16,
            mishaps: 256,
        }
    }
}

/// A handler that looks at an event and waits for nothing.
pub(crate) type Plain = Arc<dyn Fn(&Event) + Send + Sync>;

/// A handler that runs while everybody else waits, and may change power and trigger events.
///
/// A closure serves: `|turn, event| Box::pin(async move { … })`.
pub trait SerialHandler: Send + Sync {
    /// Handles the event. The future is dropped at the bus's deadline, so work with effects on the
    /// host belongs in a task of its own.
    fn handle<'a>(&'a self, turn: &'a mut Turn, event: &'a Event) -> HandlerFuture<'a>;
}

impl<F> SerialHandler for F
where
    F: for<'a> Fn(&'a mut Turn, &'a Event) -> HandlerFuture<'a> + Send + Sync,
{
    fn handle<'a>(&'a self, turn: &'a mut Turn, event: &'a Event) -> HandlerFuture<'a> {
        self(turn, event)
    }
}

/// A handler that runs beside everything else.
///
/// A closure serves: `|event| Box::pin(async move { … })`.
pub trait BesideHandler: Send + Sync {
    /// Handles the event.
    fn handle(&self, event: Event) -> HandlerFuture<'static>;
}

impl<F> BesideHandler for F
where
    F: Fn(Event) -> HandlerFuture<'static> + Send + Sync,
{
    fn handle(&self, event: Event) -> HandlerFuture<'static> {
        self(event)
    }
}

#[derive(Clone)]
pub(crate) enum Handler {
    Plain(Plain),
    Serial(Arc<dyn SerialHandler>),
    Beside(Arc<dyn BesideHandler>),
}

/// What a subscription can later be ended with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Subscription(u64);

/// A handler, and whose it is.
#[derive(Clone)]
pub(crate) struct Subscriber {
    owner: Text,
    handler: Handler,
    tasks: Option<Tasks>,
}

type Slot = Seat<Subscriber>;

/// The handlers of one event name, in the order in which they subscribed.
pub(crate) type List = roster::List<Subscriber>;

impl Guest for Subscriber {
    /// The handlers once more, side by side, where all are plain: then nothing can pend, and the loop over
    /// them is what a trigger costs.
    type Sum = Option<Box<[Plain]>>;

    fn sum(seats: &[Slot]) -> Self::Sum {
        seats
            .iter()
            .map(|seat| match &seat.guest.handler {
                Handler::Plain(handler) => Some(Arc::clone(handler)),
                _ => None,
            })
            .collect()
    }
}

/// What the holder of a turn keeps of the bus.
pub(crate) struct Cached {
    table: Reader<Table<Subscriber>>,
    /// When the last trigger ended, by the coarse clock.
    last: Duration,
}

/// Subscriptions and mishaps of one environment.
///
/// Handlers are called in subscription order. One that unsubscribes while an event is triggered is not
/// called for it any more; one that subscribes is called from the next trigger on.
pub struct EventBus {
    roster: Roster<Subscriber>,
    pub(crate) mishaps: Arc<Mishaps>,
    pub(crate) limits: BusLimits,
}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus")
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

impl EventBus {
    pub(crate) fn new(limits: BusLimits) -> Self {
        Self {
            roster: Roster::new(),
            mishaps: Arc::new(Mishaps::new(limits.mishaps)),
            limits,
        }
    }

    /// Subscribes to one event name, or with `None` to every event.
    pub(crate) fn subscribe(
        &self,
        name: Option<&str>,
        owner: &Text,
        handler: Handler,
        tasks: Option<Tasks>,
    ) -> Subscription {
        let subscriber = Subscriber {
            owner: owner.clone(),
            handler,
            tasks,
        };
        Subscription(self.roster.subscribe(name, subscriber))
    }

    /// Ends subscriptions: from now on none of them is called, not even by a trigger under way.
    pub(crate) fn unsubscribe(&self, gone: impl Fn(Subscription) -> bool) {
        self.roster.unsubscribe(|id| gone(Subscription(id)));
    }

    /// What went wrong so far, oldest first, and how many older mishaps were let go.
    pub fn mishaps(&self) -> (Vec<Mishap>, u64) {
        self.mishaps.kept()
    }

    /// The first failure of a hook that is required: in a handler, in a task, or as the hook reported it
    /// ([`Context::report_failure`](crate::Context::report_failure)). A run in which there is one did not go
    /// well, whatever its steps say.
    pub fn hook_failure(&self) -> Option<Mishap> {
        self.mishaps.hook_failure()
    }

    pub(crate) fn record(&self, event: &str, owner: &str, what: MishapKind) {
        self.mishaps.record(event, owner, what);
    }

    /// The table as the holder of a turn keeps it, so that a trigger only looks whether it has changed.
    pub(crate) fn cache(&self) -> Cached {
        Cached {
            table: self.roster.reader(),
            last: coarse_now(),
        }
    }

    /// Calls the plain handlers where there are no others; otherwise hands the list back.
    #[inline]
    pub(crate) fn trigger_plain(&self, cache: &mut Cached, event: &Event) -> Option<Arc<List>> {
        let Cached { table, last } = cache;
        let (began, list) = self.roster.look(table, event.name());
        let Some(plain) = &list.sum else {
            return Some(Arc::clone(list));
        };
        if !plain.is_empty() {
            self.call_all_plain(began, list, plain, event);
            // Nothing since the last trigger took long: neither did this one. That is nearly always so, and
            // spares every trigger one look at the clock.
            let now = coarse_now();
            if now.saturating_sub(std::mem::replace(last, now)) > self.limits.slow_plain {
                self.report_if_slow(list, event);
            }
        }
        None
    }

    fn call_all_plain(&self, began: Began, list: &List, plain: &[Plain], event: &Event) {
        let next = Cell::new(0);
        // One net for all of them; it is spread again behind one that panicked.
        while next.get() < plain.len() {
            let calls = AssertUnwindSafe(|| {
                for (index, handler) in plain.iter().enumerate().skip(next.get()) {
                    next.set(index + 1);
                    if self.roster.calls(began, &list.seats[index]) {
                        handler(event);
                    }
                }
            });
            if let Err(panic) = catch_unwind(calls) {
                let owner = &list.seats[next.get() - 1].guest.owner;
                let message = panic_message(&*panic);
                self.record(event.name(), owner.as_str(), MishapKind::Panicked(message));
            }
        }
    }

    fn call_plain(&self, slot: &Slot, handler: &Plain, event: &Event) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| handler(event))) {
            let message = panic_message(&*panic);
            self.record(
                event.name(),
                slot.guest.owner.as_str(),
                MishapKind::Panicked(message),
            );
        }
    }

    #[cold]
    fn report_if_slow(&self, list: &List, event: &Event) {
        let took = event.timestamp().elapsed().unwrap_or_default();
        if took <= self.limits.slow_plain {
            return;
        }
        let owners = list.seats.iter().map(|slot| slot.guest.owner.as_str());
        let mut owners: Vec<&str> = owners.collect();
        owners.dedup();
        self.record(event.name(), &owners.join(" or "), MishapKind::Slow(took));
    }

    /// Calls the handlers of a list in which some may pend, one after the other.
    pub(crate) async fn trigger_list(&self, list: &List, turn: &mut Turn, event: &Event) {
        for slot in &list.seats {
            if !slot.is_taken() {
                continue;
            }
            match &slot.guest.handler {
                Handler::Plain(handler) => {
                    let started = coarse_now();
                    self.call_plain(slot, handler, event);
                    let took = coarse_now().saturating_sub(started);
                    if took > self.limits.slow_plain {
                        self.record(
                            event.name(),
                            slot.guest.owner.as_str(),
                            MishapKind::Slow(took),
                        );
                    }
                }
                Handler::Serial(handler) => {
                    let depth = turn.depth();
                    let stop = turn.stop_token().clone();
                    let lent = &mut *turn;
                    let outcome = bounded(self.limits.handler_deadline, &stop, || {
                        handler.handle(lent, event)
                    })
                    .await;
                    // A handler dropped in the middle of a nested trigger leaves its depth behind.
                    turn.restore_depth(depth);
                    if let Err(what) = outcome {
                        self.record(event.name(), slot.guest.owner.as_str(), what);
                    }
                }
                Handler::Beside(handler) => self.spawn_beside(slot, handler, event),
            }
        }
    }

    fn spawn_beside(&self, slot: &Slot, handler: &Arc<dyn BesideHandler>, event: &Event) {
        let Some(tasks) = &slot.guest.tasks else {
            return;
        };
        let handler = Arc::clone(handler);
        let (copy, owner, report) = (event.clone(), slot.guest.owner.clone(), tasks.clone());
        let deadline = self.limits.handler_deadline;
        let room = tasks.spawn_within(self.limits.beside, async move {
            let name = copy.name().to_owned();
            let outcome = bounded(deadline, report.stop(), || handler.handle(copy)).await;
            if let Err(what) = outcome {
                report.record(&name, owner.as_str(), what);
            }
        });
        if !room {
            let limit = self.limits.beside;
            self.record(
                event.name(),
                slot.guest.owner.as_str(),
                MishapKind::NoRoom(limit),
            );
        }
    }
}

/// Runs a handler: its panic is caught, its deadline armed only once it pends.
pub(crate) async fn bounded<'a>(
    deadline: Duration,
    stop: &StopToken,
    start: impl FnOnce() -> HandlerFuture<'a>,
) -> Result<(), MishapKind> {
    let future = match catch_unwind(AssertUnwindSafe(start)) {
        Ok(future) => future,
        Err(panic) => return Err(MishapKind::Panicked(panic_message(&*panic))),
    };
    let mut caught = Caught(future);
    let first = std::future::poll_fn(|waker| Poll::Ready(Pin::new(&mut caught).poll(waker))).await;
    let outcome = match first {
        Poll::Ready(outcome) => outcome,
        Poll::Pending => tokio::select! {
            biased;
            outcome = caught => outcome,
            () = stop.stopped() => return Err(MishapKind::Cancelled),
            () = tokio::time::sleep(deadline) => return Err(MishapKind::TimedOut(deadline)),
        },
    };
    match outcome {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(MishapKind::Failed(error.chain())),
        Err(panic) => Err(MishapKind::Panicked(panic)),
    }
}

/// Runs a task to its end; an error is what its panic said.
pub(crate) async fn catch(task: impl Future<Output = ()> + Send) -> Result<(), String> {
    let caught = Caught(Box::pin(async {
        task.await;
        Ok(())
    }));
    caught.await.map(|_| ())
}

/// A future whose panic is its result.
struct Caught<'a>(HandlerFuture<'a>);

impl Future for Caught<'_> {
    type Output = Result<Result<()>, String>;

    fn poll(mut self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<Self::Output> {
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(waker))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(outcome)) => Poll::Ready(Ok(outcome)),
            Err(panic) => Poll::Ready(Err(panic_message(&*panic))),
        }
    }
}

/// A clock that ticks every few milliseconds and costs next to nothing: enough to notice slowness.
fn coarse_now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    Duration::try_from(now).unwrap_or_default()
}

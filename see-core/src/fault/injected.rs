//! Faults at the points that every allocation passes: the writes of the ledger, and the looks at the stop.
//!
//! They belong to core, so that a suite can make any backend fail at any of its steps without knowing it.

use std::any::Any;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::{Notify, watch};

use super::Point;
use crate::{Error, ErrorKind, Result};

/// Of looks in a row, how many are points each.
const EACH_LOOK: u32 = 8;

/// What happens at the point.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// The write of the ledger fails, and nothing of it is done. Looks at the stop are no such points.
    Fail,
    /// The caller panics.
    Panic,
    /// This stop is asked for.
    Stop(Arc<watch::Sender<bool>>),
    /// Who waits for it is told.
    Tell(Arc<Notify>),
}

/// The payload of a panic that was injected, so that it can be told from others.
#[derive(Debug)]
pub(crate) struct Injected;

/// One fault, at the n-th point from when it is armed; without a plan, none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Faults(Option<Arc<Plan>>);

#[derive(Debug)]
struct Plan {
    act: Act,
    /// Counted from 1.
    at: u32,
    armed: AtomicBool,
    reached: AtomicU32,
    struck: OnceLock<Point>,
    /// How many looks there were since the last write.
    in_a_row: AtomicU32,
    /// How often the stop was looked at, and when it was asked for already.
    looks: AtomicU32,
    told: AtomicU32,
}

impl Faults {
    /// This fault at the point of this number, counted from 1, once it is armed.
    pub(crate) fn new(act: Act, at: u32) -> Self {
        Self(Some(Arc::new(Plan {
            act,
            at,
            armed: AtomicBool::new(false),
            reached: AtomicU32::new(0),
            struck: OnceLock::new(),
            in_a_row: AtomicU32::new(0),
            looks: AtomicU32::new(0),
            told: AtomicU32::new(0),
        })))
    }

    /// From now on points count, or no more.
    pub(crate) fn arm(&self, armed: bool) {
        if let Some(plan) = &self.0 {
            plan.armed.store(armed, Ordering::SeqCst);
        }
    }

    /// Where the fault happened, if it did.
    pub(crate) fn struck(&self) -> Option<Point> {
        self.0.as_ref()?.struck.get().copied()
    }

    /// How often a stop was looked at, and how often the look told of the stop.
    pub(crate) fn looks(&self) -> (u32, u32) {
        self.0.as_ref().map_or((0, 0), |plan| {
            let load = |count: &AtomicU32| count.load(Ordering::SeqCst);
            (load(&plan.looks), load(&plan.told))
        })
    }

    /// Passes a point.
    ///
    /// # Errors
    /// The fault, where it is an error.
    pub(crate) fn reach(&self, point: Point) -> Result<()> {
        let Some(plan) = self.0.as_ref() else {
            return Ok(());
        };
        if !plan.armed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let is_look = point == Point::Look;
        let in_a_row = match point {
            Point::Look => plan.in_a_row.fetch_add(1, Ordering::SeqCst) + 1,
            _ => plan.in_a_row.swap(0, Ordering::SeqCst),
        };
        // Work in a loop looks once a turn: of so many the first stand for all, and ever rarer later ones.
        let stands = !is_look || in_a_row <= EACH_LOOK || in_a_row.is_power_of_two();
        let counts = stands && !(is_look && matches!(plan.act, Act::Fail));
        let mut outcome = Ok(());
        if counts && plan.reached.fetch_add(1, Ordering::SeqCst) + 1 == plan.at {
            plan.struck.get_or_init(|| point);
            outcome = plan.act.strike(plan.at, point);
        }
        if is_look {
            plan.looks.fetch_add(1, Ordering::SeqCst);
            if matches!(&plan.act, Act::Stop(stop) if *stop.borrow()) {
                plan.told.fetch_add(1, Ordering::SeqCst);
            }
        }
        outcome
    }
}

impl Act {
    fn strike(&self, at: u32, point: Point) -> Result<()> {
        match self {
            Self::Fail => Err(Error::new(
                ErrorKind::Io,
                format!("the fault injected at point {at} ({point:?})"),
            )),
            // Not by `panic!`: nobody wants to read every one of these.
            Self::Panic => std::panic::resume_unwind(Box::new(Injected)),
            Self::Stop(stop) => {
                stop.send_replace(true);
                Ok(())
            }
            Self::Tell(waiting) => {
                waiting.notify_one();
                Ok(())
            }
        }
    }
}

/// A panic that was injected into work on another thread goes on in the task that asked for the work.
pub(crate) fn pass_on(panic: Box<dyn Any + Send>) -> Box<dyn Any + Send> {
    if panic.is::<Injected>() {
        std::panic::resume_unwind(panic);
    }
    panic
}

//! What goes wrong in handlers and tasks of hooks, and stops nobody.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::sync::lock;

/// Something that went wrong in a handler or a task of a hook, and stopped nobody.
#[derive(Debug, Clone)]
pub struct Mishap {
    /// When it was noticed.
    pub at: SystemTime,
    /// The event whose handler it was, or what else its owner was doing.
    pub event: String,
    /// Who subscribed the handler.
    pub owner: String,
    /// What went wrong.
    pub what: MishapKind,
}

impl Mishap {
    /// Whether the handler did not do what its hook is for; a slow one did, and one that a stop ended was not
    /// to end by itself.
    pub fn is_failure(&self) -> bool {
        !matches!(self.what, MishapKind::Cancelled | MishapKind::Slow(_))
    }
}

/// What can go wrong in a handler.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum MishapKind {
    /// It returned an error: the whole chain in one line.
    Failed(String),
    /// It panicked, with this message.
    Panicked(String),
    /// It was dropped at its deadline.
    TimedOut(Duration),
    /// It was not started: the owner's limit of handlers at once was reached.
    NoRoom(usize),
    /// It was dropped because the environment was stopped.
    Cancelled,
    /// Plain handlers, which cannot be interrupted, took this long.
    Slow(Duration),
}

impl fmt::Display for Mishap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}: ", self.owner, self.event)?;
        match &self.what {
            MishapKind::Failed(chain) => write!(f, "failed: {chain}"),
            MishapKind::Panicked(message) => write!(f, "panicked: {message}"),
            MishapKind::TimedOut(limit) => write!(f, "not done within {limit:.1?}, dropped"),
            MishapKind::NoRoom(limit) => write!(f, "not started: {limit} are running already"),
            MishapKind::Cancelled => f.write_str("dropped: the environment was stopped"),
            MishapKind::Slow(took) => write!(f, "took {took:.1?} without yielding"),
        }
    }
}

/// The mishaps of one environment: the last ones, and what they mean for its run.
#[derive(Debug)]
pub(crate) struct Mishaps {
    /// How many are kept.
    limit: usize,
    kept: Mutex<VecDeque<Mishap>>,
    forgotten: AtomicU64,
    required: Mutex<RequiredHooks>,
}

/// The hooks without which a run is worth nothing.
#[derive(Debug, Default)]
struct RequiredHooks {
    names: Vec<&'static str>,
    /// What went wrong first in one of them.
    failure: Option<Mishap>,
}

impl Mishaps {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            kept: Mutex::default(),
            forgotten: AtomicU64::new(0),
            required: Mutex::default(),
        }
    }

    /// What went wrong so far, oldest first, and how many older mishaps were let go.
    pub(crate) fn kept(&self) -> (Vec<Mishap>, u64) {
        let kept = lock(&self.kept).iter().cloned().collect();
        (kept, self.forgotten.load(Ordering::Relaxed))
    }

    /// The first failure of a hook that is required.
    pub(crate) fn hook_failure(&self) -> Option<Mishap> {
        lock(&self.required).failure.clone()
    }

    /// From now on failures of this hook count.
    pub(crate) fn require(&self, hook: &'static str) {
        lock(&self.required).names.push(hook);
    }

    pub(crate) fn record(&self, event: &str, owner: &str, what: MishapKind) {
        let mishap = Mishap {
            at: SystemTime::now(),
            event: event.to_owned(),
            owner: owner.to_owned(),
            what,
        };
        tracing::warn!("{mishap}");
        let mut required = lock(&self.required);
        if mishap.is_failure() && required.names.contains(&owner) {
            required.failure.get_or_insert_with(|| mishap.clone());
        }
        drop(required);
        let mut kept = lock(&self.kept);
        if kept.len() == self.limit {
            kept.pop_front();
            self.forgotten.fetch_add(1, Ordering::Relaxed);
        }
        kept.push_back(mishap);
    }
}

//! What goes wrong in handlers and tasks of hooks, and stops nobody.

use std::fmt;
use std::time::{Duration, SystemTime};

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

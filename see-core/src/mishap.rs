//! What goes wrong in handlers, and stops nobody.

use std::fmt;
use std::time::{Duration, SystemTime};

/// Something that went wrong in a handler, and stopped nobody.
#[derive(Debug, Clone)]
pub struct Mishap {
    /// When it was noticed.
    pub at: SystemTime,
    /// The event whose handler it was.
    pub event: String,
    /// Who subscribed the handler.
    pub owner: String,
    /// What went wrong.
    pub what: MishapKind,
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

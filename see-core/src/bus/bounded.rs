//! At most so many at once, and none after the end.

use super::sync::{Mutex, lock};

/// Tasks that run, and those that ended and were not swept out yet.
pub(crate) trait Crew {
    /// Forgets those that ended.
    fn sweep(&mut self);

    /// How many there are.
    fn count(&self) -> usize;
}

/// A crew that takes in only as many as there is room for, until it is closed.
pub(crate) struct Bounded<C>(Mutex<Option<C>>);

impl<C: Crew> Bounded<C> {
    pub(crate) fn new(crew: C) -> Self {
        Self(Mutex::new(Some(crew)))
    }

    /// Lets `start` add one, unless `limit` are there or it is closed; says whether it did.
    pub(crate) fn admit(&self, limit: usize, start: impl FnOnce(&mut C)) -> bool {
        let mut crew = lock(&self.0);
        let Some(crew) = crew.as_mut() else {
            return false;
        };
        crew.sweep();
        if crew.count() >= limit {
            return false;
        }
        start(crew);
        true
    }

    /// Closes it, and gives out everybody that was ever admitted and may not have ended; `None` the second
    /// time.
    pub(crate) fn close(&self) -> Option<C> {
        lock(&self.0).take()
    }
}

//! The changes of a machine, from its driver to everybody who watches.

use std::sync::{Arc, Mutex};

use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::broadcast::{self, Receiver, Sender};

use crate::SandboxState;
use crate::sync::lock;

/// How many changes a watcher may be behind before it misses the oldest.
const QUEUE: usize = 64;

/// A change of a machine, as its hypervisor reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SandboxChange {
    /// It is in this state now.
    State(SandboxState),
    /// The guest restarted.
    Rebooted,
    /// Reports were lost; ask for the state.
    Missed,
}

/// Where a driver tells of the changes of its machine; cheap to clone. It never waits.
#[derive(Debug, Clone)]
pub struct ChangeSender(Arc<Mutex<Option<Sender<SandboxChange>>>>);

impl ChangeSender {
    /// One that nobody hears yet.
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Some(Sender::new(QUEUE)))))
    }

    /// Tells a change to everybody who watches. After the machine's release nobody hears it.
    pub fn send(&self, change: SandboxChange) {
        if let Some(sender) = &*lock(&self.0) {
            // An error says that nobody watches.
            let _ = sender.send(change);
        }
    }

    /// Changes from now on.
    pub(crate) fn watch(&self) -> Changes {
        let receiver = match &*lock(&self.0) {
            Some(sender) => sender.subscribe(),
            None => broadcast::channel(1).1,
        };
        Changes(receiver)
    }

    /// Nothing is told from now on.
    pub(crate) fn close(&self) {
        lock(&self.0).take();
    }
}

impl Default for ChangeSender {
    fn default() -> Self {
        Self::new()
    }
}

/// The changes of a machine since [`Machine::watch`](crate::Machine::watch). One who is slow misses the oldest, and is
/// told so by [`SandboxChange::Missed`].
#[derive(Debug)]
pub struct Changes(Receiver<SandboxChange>);

impl Changes {
    /// The next change; `None` once the machine was released.
    pub async fn recv(&mut self) -> Option<SandboxChange> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(RecvError::Lagged(_)) => Some(SandboxChange::Missed),
            Err(RecvError::Closed) => None,
        }
    }

    /// The next change, where there is one already.
    pub fn try_recv(&mut self) -> Option<SandboxChange> {
        match self.0.try_recv() {
            Ok(change) => Some(change),
            Err(TryRecvError::Lagged(_)) => Some(SandboxChange::Missed),
            Err(TryRecvError::Empty | TryRecvError::Closed) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_slow_watcher_is_told_that_it_missed_something_and_delays_nobody() {
        let changes = ChangeSender::new();
        let (mut slow, mut fast) = (changes.watch(), changes.watch());
        let running = SandboxChange::State(SandboxState::Running);
        for _ in 0..=QUEUE {
            changes.send(running);
            assert_eq!(fast.recv().await, Some(running));
        }
        assert_eq!(slow.recv().await, Some(SandboxChange::Missed));
        assert_eq!(slow.try_recv(), Some(running));
    }

    #[tokio::test]
    async fn nothing_is_told_of_a_machine_that_was_released() {
        let changes = ChangeSender::new();
        let mut before = changes.watch();
        changes.close();
        changes.send(SandboxChange::Rebooted);
        assert_eq!(before.recv().await, None);
        assert_eq!(changes.watch().recv().await, None);
    }
}

//! The watches of a connection, which all callbacks reach through here.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use uuid::Uuid;

use super::event::DomainEvent;

/// The watches of a connection, as the callbacks see them.
#[derive(Default)]
pub(crate) struct Sinks(Mutex<Vec<Sink>>);

impl Sinks {
    fn lock(&self) -> MutexGuard<'_, Vec<Sink>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event to the watches of the domain. The lock is only ever held for a look at the
    /// list, so the event thread does not wait noticeably.
    pub(super) fn post(&self, uuid: Uuid, event: &DomainEvent) {
        for sink in self.lock().iter().filter(|sink| sink.uuid == uuid) {
            sink.post(event.clone());
        }
    }

    pub(crate) fn add(&self, sink: Sink) {
        self.lock().push(sink);
    }

    /// Drops the sinks that nobody reads any more.
    pub(crate) fn forget_closed(&self) {
        self.lock().retain(|sink| !sink.sender.is_closed());
    }

    /// Whether nobody watches.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

/// Where the events of one domain go.
pub(crate) struct Sink {
    pub(crate) uuid: Uuid,
    pub(crate) sender: mpsc::Sender<DomainEvent>,
    pub(crate) missed: Arc<AtomicU64>,
}

impl Sink {
    /// Never blocks: it runs on libvirt's event thread.
    fn post(&self, event: DomainEvent) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.sender.try_send(event) {
            self.missed.fetch_add(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_finds_the_queue_full_is_counted() {
        let (sender, mut receiver) = mpsc::channel(1);
        let sink = Sink {
            uuid: Uuid::nil(),
            sender,
            missed: Arc::default(),
        };
        sink.post(DomainEvent::Defined);
        sink.post(DomainEvent::Resumed);
        sink.post(DomainEvent::Rebooted);
        assert_eq!(sink.missed.load(Ordering::Acquire), 2);
        assert_eq!(receiver.try_recv(), Ok(DomainEvent::Defined));
        sink.post(DomainEvent::Crashed);
        assert_eq!(receiver.try_recv(), Ok(DomainEvent::Crashed));
        assert_eq!(sink.missed.load(Ordering::Acquire), 2);
    }
}

//! What happens to a domain, as libvirt tells it.

mod callbacks;
mod event;

use std::fmt;
use std::os::raw::c_int;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use uuid::Uuid;
use virt_sys as sys;

use crate::call;
use crate::connection::{Connection, Inner};
use crate::error::{Cause, Error};

pub use self::event::{
    DomainEvent, IoErrorAction, PauseCause, ShutdownCause, StopCause, WatchdogAction,
};

/// How many events wait for their reader; those beyond it are counted and dropped.
pub const EVENT_QUEUE: usize = 256;

impl Connection {
    /// Watches the domain with this UUID, which need not exist yet: events from now on, in
    /// libvirt's order.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] for drivers without domain events, whatever else libvirt
    /// reports, or the time limit.
    pub async fn domain_events(&self, uuid: Uuid) -> Result<DomainEvents, Error> {
        self.call_on("watch", format!("domain {uuid}"), move |inner| {
            DomainEvents::subscribe(inner, uuid)
        })
        .await
    }
}

/// The events of one domain. Dropping it ends the watch.
pub struct DomainEvents {
    uuid: Uuid,
    receiver: mpsc::Receiver<DomainEvent>,
    missed: Arc<AtomicU64>,
    registrations: Option<Registrations>,
}

impl DomainEvents {
    fn subscribe(connection: &Arc<Inner>, uuid: Uuid) -> Result<Self, Cause> {
        let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
        let missed = Arc::new(AtomicU64::new(0));
        let sink = Sink {
            uuid,
            sender,
            missed: Arc::clone(&missed),
        };
        let mut registrations = Registrations {
            connection: Arc::clone(connection),
            ids: Vec::new(),
        };
        for kind in callbacks::kinds() {
            match callbacks::register(connection.connect(), &kind, sink.clone()) {
                Ok(id) => registrations.ids.push(id),
                // Dropping `registrations` takes back what was registered before.
                Err(cause) if kind.id == sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE => return Err(cause),
                Err(cause) => {
                    tracing::debug!(event = kind.id, %cause, "the driver lacks an event");
                }
            }
        }
        Ok(Self {
            uuid,
            receiver,
            missed,
            registrations: Some(registrations),
        })
    }

    /// The domain's UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The next event; `None` once the connection is lost. Events that found the queue full are
    /// reported as one [`DomainEvent::Missed`], ahead of those still queued. Without events it
    /// waits for ever, so bound it. Cancel safe.
    pub async fn next(&mut self) -> Option<DomainEvent> {
        let missed = self.missed.swap(0, Ordering::AcqRel);
        if missed > 0 {
            return Some(DomainEvent::Missed(missed));
        }
        if let Ok(event) = self.receiver.try_recv() {
            return Some(event);
        }
        let connection = Connection {
            inner: Arc::clone(&self.registrations.as_ref()?.connection),
            limit: crate::CALL_LIMIT,
        };
        tokio::select! {
            biased;
            event = self.receiver.recv() => event,
            _ = connection.closed() => None,
        }
    }
}

impl fmt::Debug for DomainEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DomainEvents")
            .field("uuid", &self.uuid)
            .finish_non_exhaustive()
    }
}

impl Drop for DomainEvents {
    fn drop(&mut self) {
        // Taking a registration back talks to the daemon.
        if let Some(registrations) = self.registrations.take() {
            call::release(move || drop(registrations));
        }
    }
}

/// Callbacks to take back; libvirt keeps a reference to the connection until then.
struct Registrations {
    connection: Arc<Inner>,
    ids: Vec<c_int>,
}

impl Drop for Registrations {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            callbacks::deregister(self.connection.connect(), id);
        }
    }
}

/// Where the callbacks put what they hear.
#[derive(Clone)]
struct Sink {
    uuid: Uuid,
    sender: mpsc::Sender<DomainEvent>,
    missed: Arc<AtomicU64>,
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

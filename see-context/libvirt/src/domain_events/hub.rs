//! One set of libvirt registrations a connection, shared by all its watches.
//!
//! libvirt refuses to register a callback twice on a connection, whatever its opaque value, so
//! the callbacks reach every watch through here.

use std::os::raw::c_int;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use uuid::Uuid;
use virt_sys as sys;

use super::{DomainEvent, Sink, callbacks};
use crate::error::Cause;

/// The watches of a connection, as the callbacks see them.
#[derive(Default)]
pub(super) struct Sinks(Mutex<Vec<Sink>>);

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
}

/// The domain events of one connection.
#[derive(Default)]
pub(crate) struct Hub {
    sinks: Arc<Sinks>,
    /// What libvirt knows the callbacks by; `None` before the first watch.
    registered: Mutex<Option<Vec<c_int>>>,
}

impl Hub {
    /// Registers the callbacks unless that has been done; blocks.
    pub(super) fn register(&self, connect: &virt::connect::Connect) -> Result<(), Cause> {
        let mut registered = self
            .registered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if registered.is_some() {
            return Ok(());
        }
        let mut ids = Vec::new();
        for kind in callbacks::kinds() {
            match callbacks::register(connect, &kind, Arc::clone(&self.sinks)) {
                Ok(id) => ids.push(id),
                // The lifecycle comes first, so there is nothing to take back.
                Err(cause) if kind.id == sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE => return Err(cause),
                Err(cause) => {
                    tracing::debug!(event = kind.id, %cause, "the driver lacks an event");
                }
            }
        }
        *registered = Some(ids);
        Ok(())
    }

    /// Takes the callbacks back; blocks. libvirt keeps a reference to the connection until then.
    pub(crate) fn deregister(&self, connect: &virt::connect::Connect) {
        let ids = self
            .registered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        for id in ids.into_iter().flatten() {
            callbacks::deregister(connect, id);
        }
    }

    pub(super) fn add(&self, sink: Sink) {
        self.sinks.lock().push(sink);
    }

    /// Drops the sinks that nobody reads any more.
    pub(super) fn forget_closed(&self) {
        self.sinks.lock().retain(|sink| !sink.sender.is_closed());
    }
}

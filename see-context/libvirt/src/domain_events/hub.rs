//! The watches of a connection, and one set of libvirt's registrations a session for all of them.
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

    pub(super) fn add(&self, sink: Sink) {
        self.lock().push(sink);
    }

    /// Drops the sinks that nobody reads any more.
    pub(super) fn forget_closed(&self) {
        self.lock().retain(|sink| !sink.sender.is_closed());
    }

    /// Whether nobody watches.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

/// Registers the callbacks; blocks. Returns what libvirt knows them by.
pub(crate) fn register_all(
    connect: &virt::connect::Connect,
    sinks: &Arc<Sinks>,
) -> Result<Vec<c_int>, Cause> {
    let mut ids = Vec::new();
    for kind in callbacks::kinds() {
        match callbacks::register(connect, &kind, Arc::clone(sinks)) {
            Ok(id) => ids.push(id),
            // The lifecycle comes first, so there is nothing to take back.
            Err(cause) if kind.id == sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE => return Err(cause),
            Err(cause) => {
                tracing::debug!(event = kind.id, %cause, "the driver lacks an event");
            }
        }
    }
    Ok(ids)
}

/// Takes the callbacks back; blocks. libvirt keeps a reference to the connection until then.
pub(crate) fn deregister_all(
    connect: &virt::connect::Connect,
    ids: impl IntoIterator<Item = c_int>,
) {
    for id in ids {
        callbacks::deregister(connect, id);
    }
}

//! The C side of domain events: one set of libvirt's registrations a session for all watches, since libvirt
//! refuses to register a callback twice on a connection. The callbacks run on libvirt's event thread: they copy
//! what they are given, queue it, and neither block nor let a panic out.

use std::mem::transmute;
use std::os::raw::{c_char, c_int, c_uchar, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::Arc;

use uuid::Uuid;
use virt_sys as sys;

use super::event::{DomainEvent, IoErrorAction};
use super::sinks::Sinks;
use crate::alive::{CALLBACKS, Counted};
use crate::error::Cause;
use crate::text;

/// What libvirt hands to the callbacks.
struct Opaque {
    sinks: Arc<Sinks>,
    _counted: Counted,
}

type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);

/// One of libvirt's event identifiers with the callback for it.
struct Kind {
    id: u32,
    callback: Generic,
}

/// What is listened to; the lifecycle first.
fn kinds() -> [Kind; 3] {
    type Lifecycle = unsafe extern "C" fn(
        sys::virConnectPtr,
        sys::virDomainPtr,
        c_int,
        c_int,
        *mut c_void,
    ) -> c_int;
    type IoError = unsafe extern "C" fn(
        sys::virConnectPtr,
        sys::virDomainPtr,
        *const c_char,
        *const c_char,
        c_int,
        *const c_char,
        *mut c_void,
    );
    // SAFETY: libvirt takes every callback as the generic type and, by the event identifier it is
    // registered under, casts it back to the type it has here before calling it.
    unsafe {
        [
            Kind {
                id: sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                callback: transmute::<Lifecycle, Generic>(on_lifecycle),
            },
            Kind {
                id: sys::VIR_DOMAIN_EVENT_ID_REBOOT,
                callback: on_reboot,
            },
            Kind {
                id: sys::VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
                callback: transmute::<IoError, Generic>(on_io_error),
            },
        ]
    }
}

/// Registers the callbacks; blocks. Returns what libvirt knows them by.
pub(super) fn register_all(
    connect: &virt::connect::Connect,
    sinks: &Arc<Sinks>,
) -> Result<Vec<c_int>, Cause> {
    let mut ids = Vec::new();
    for kind in kinds() {
        match register(connect, &kind, Arc::clone(sinks)) {
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
pub(super) fn deregister_all(
    connect: &virt::connect::Connect,
    ids: impl IntoIterator<Item = c_int>,
) {
    for id in ids {
        deregister(connect, id);
    }
}

/// Registers for all domains of the connection, since those watched may not exist yet; the
/// sinks are told apart by UUID.
fn register(
    connect: &virt::connect::Connect,
    kind: &Kind,
    sinks: Arc<Sinks>,
) -> Result<c_int, Cause> {
    let opaque = Box::into_raw(Box::new(Opaque {
        sinks,
        _counted: Counted::new(&CALLBACKS),
    }));
    // SAFETY: the connection is valid; the callback has the type that belongs to the identifier;
    // `opaque` is what it and `free_sinks` expect, and lives until libvirt calls the latter, once.
    let id = unsafe {
        sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            ptr::null_mut(),
            kind.id.cast_signed(),
            Some(kind.callback),
            opaque.cast(),
            Some(free_sinks),
        )
    };
    if id < 0 {
        let cause = Cause::last();
        // SAFETY: after a failed registration libvirt does not free the value, so it is ours.
        drop(unsafe { Box::from_raw(opaque) });
        return Err(cause);
    }
    Ok(id)
}

fn deregister(connect: &virt::connect::Connect, id: c_int) {
    // SAFETY: the connection is valid; an unknown identifier is an error, no more.
    if unsafe { sys::virConnectDomainEventDeregisterAny(connect.as_ptr(), id) } < 0 {
        tracing::debug!(id, cause = %Cause::last(), "a domain event stays registered");
    }
}

/// Queues the event for whoever watches `domain`.
///
/// # Safety
/// To be called by a callback with the domain and the opaque value that libvirt gave it.
unsafe fn deliver(
    domain: sys::virDomainPtr,
    opaque: *mut c_void,
    event: impl FnOnce() -> DomainEvent,
) {
    // A panic must not cross into C. It has been printed by the panic hook; there is nobody else
    // to tell.
    let _ = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: libvirt passes the value from `register`, which lives until `free_sinks`.
        let Opaque { sinks, .. } = unsafe { &*opaque.cast::<Opaque>() };
        let mut uuid: [c_uchar; 16] = [0; 16];
        // SAFETY: libvirt keeps the domain valid during the callback, and the buffer has the 16
        // bytes that the function writes.
        let known = unsafe { sys::virDomainGetUUID(domain, uuid.as_mut_ptr()) } == 0;
        if known {
            sinks.post(Uuid::from_bytes(uuid), &event());
        }
    }));
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: the arguments come from libvirt.
    unsafe { deliver(domain, opaque, || DomainEvent::lifecycle(event, detail)) };
    0
}

unsafe extern "C" fn on_reboot(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    opaque: *mut c_void,
) {
    // SAFETY: the arguments come from libvirt.
    unsafe { deliver(domain, opaque, || DomainEvent::Rebooted) };
}

unsafe extern "C" fn on_io_error(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    path: *const c_char,
    device: *const c_char,
    action: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: the arguments come from libvirt; the texts are null or valid during the callback.
    unsafe {
        deliver(domain, opaque, || DomainEvent::IoError {
            device: text::borrowed(device).unwrap_or_default(),
            path: text::borrowed(path).unwrap_or_default(),
            reason: text::borrowed(reason).unwrap_or_default(),
            action: IoErrorAction::new(action),
        });
    }
}

unsafe extern "C" fn free_sinks(opaque: *mut c_void) {
    // SAFETY: libvirt calls this once, with the pointer made by `Box::into_raw` in `register`.
    drop(unsafe { Box::from_raw(opaque.cast::<Opaque>()) });
}

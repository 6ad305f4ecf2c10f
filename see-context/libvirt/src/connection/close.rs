//! Noticing that a connection was lost.

use std::os::raw::{c_int, c_void};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;
use virt_sys as sys;

use crate::close_reason::CloseReason;
use crate::error::Cause;

/// When and why a connection was lost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Loss {
    pub(crate) since: Instant,
    pub(crate) reason: CloseReason,
}

/// Where a loss is noted, by whoever meets it first.
pub(super) type Sender = Arc<watch::Sender<Option<Loss>>>;

/// Asks to be told of the end. The flag says whether the driver agreed (a driver inside the
/// process has no such end and may refuse).
pub(super) fn register(connect: &virt::connect::Connect) -> (bool, Sender) {
    let sender = Sender::default();
    let opaque = Box::into_raw(Box::new(Arc::clone(&sender)));
    // SAFETY: the connection is valid; `opaque` is the type that both callbacks expect, and
    // libvirt frees it with `free_sender` exactly once after a successful registration.
    let result = unsafe {
        sys::virConnectRegisterCloseCallback(
            connect.as_ptr(),
            Some(on_close),
            opaque.cast(),
            Some(free_sender),
        )
    };
    if result < 0 {
        tracing::debug!(cause = %Cause::last(), "no close callback on this connection");
        // SAFETY: after a failed registration libvirt does not free the value, so it is ours.
        drop(unsafe { Box::from_raw(opaque) });
    }
    (result >= 0, sender)
}

/// Notes a loss unless one is known. Neither blocks nor panics.
pub(super) fn note(sender: &Sender, reason: CloseReason) {
    sender.send_if_modified(|known| {
        let news = known.is_none();
        known.get_or_insert_with(|| Loss {
            since: Instant::now(),
            reason,
        });
        news
    });
}

/// Ends the notification; libvirt keeps a reference to the connection until then.
pub(super) fn unregister(connect: &virt::connect::Connect) {
    // SAFETY: the connection is valid and the callback is the one that was registered.
    if unsafe { sys::virConnectUnregisterCloseCallback(connect.as_ptr(), Some(on_close)) } < 0 {
        tracing::debug!(cause = %Cause::last(), "the close callback stays registered");
    }
}

/// Completes when a reason arrives; never, when the driver does not tell.
pub(crate) async fn wait(mut receiver: watch::Receiver<Option<Loss>>) -> Loss {
    loop {
        if let Some(loss) = *receiver.borrow_and_update() {
            return loss;
        }
        if receiver.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

unsafe extern "C" fn on_close(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: `opaque` is the sender given at registration, alive until `free_sender`, and only
    // used by shared reference.
    let sender = unsafe { &*opaque.cast::<Sender>() };
    note(sender, CloseReason::from_libvirt(reason));
}

unsafe extern "C" fn free_sender(opaque: *mut c_void) {
    // SAFETY: libvirt calls this once, with the pointer made by `Box::into_raw` in `register`.
    drop(unsafe { Box::from_raw(opaque.cast::<Sender>()) });
}

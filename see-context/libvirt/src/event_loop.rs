//! The one thread that runs libvirt's event loop.
//!
//! libvirt delivers events, keep-alive answers and the embedded driver's QEMU monitors through an
//! event loop that has to be registered before the first connection and to run as long as the
//! process does. It can neither be stopped nor registered twice, hence a thread for the life of
//! the process, started by the first connection.

use std::sync::OnceLock;
use std::time::Duration;

use virt_sys as sys;

use crate::error::Cause;

static STARTED: OnceLock<Result<(), Cause>> = OnceLock::new();

/// Starts the event loop unless it runs. Must come before the first connection is opened.
///
/// It also silences libvirt's habit of printing every error to the standard error stream.
pub(crate) fn start() -> Result<(), Cause> {
    STARTED.get_or_init(register_and_spawn).clone()
}

fn register_and_spawn() -> Result<(), Cause> {
    // SAFETY: takes no arguments and may be called any number of times, from any thread.
    if unsafe { sys::virInitialize() } < 0 {
        return Err(Cause::last());
    }
    virt::error::clear_error_callback();
    // SAFETY: called once (guarded by the OnceLock) and before any connection is opened, as the
    // function requires.
    if unsafe { sys::virEventRegisterDefaultImpl() } < 0 {
        return Err(Cause::last());
    }
    std::thread::Builder::new()
        .name("libvirt-events".into())
        .spawn(run)
        .map_err(|error| Cause::Aborted(format!("no thread for libvirt's events: {error}")))?;
    Ok(())
}

fn run() {
    loop {
        // SAFETY: the default implementation is registered, and this is the only thread that
        // runs it.
        if unsafe { sys::virEventRunDefaultImpl() } < 0 {
            tracing::warn!(cause = %Cause::last(), "libvirt's event loop reported an error");
            // A failing poll would otherwise turn this thread into a busy loop.
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

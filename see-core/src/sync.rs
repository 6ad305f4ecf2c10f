//! Locks and panics: what everything needs that runs on several threads.

use std::any::Any;
use std::sync::{Mutex, MutexGuard};

use crate::error::{Error, ErrorKind};

/// A panicking holder leaves whole values behind, since each critical section is one assignment.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// What a panic said.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&'static str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_owned())
}

/// A task of ours that did not end by itself.
pub(crate) fn died(failed: tokio::task::JoinError) -> Error {
    let what = match failed.try_into_panic() {
        Ok(panic) => format!("a task panicked: {}", panic_message(&*panic)),
        Err(_) => "a task was cancelled with its runtime".to_owned(),
    };
    Error::new(ErrorKind::Internal, what)
}

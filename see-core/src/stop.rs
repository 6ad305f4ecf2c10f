//! Asking long work to stop, without cutting it off.

use std::sync::Arc;

use tokio::sync::watch;

use crate::{Error, Result};

/// The asking side: whoever holds it can stop the work.
#[derive(Debug, Clone)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Stop {
    /// A stop that nobody has asked for yet.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Asks for it. Asking twice is harmless.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Whether it was asked for.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow()
    }

    /// The side that the work looks at.
    pub fn token(&self) -> StopToken {
        StopToken(self.0.subscribe())
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

/// The side that long work looks at between its steps, and waits on during them.
///
/// A token whose [`Stop`] is gone reads as stopped: nobody is left who wants the result.
#[derive(Debug, Clone)]
pub struct StopToken(watch::Receiver<bool>);

impl StopToken {
    /// Whether the stop was asked for.
    pub fn is_stopped(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits until it is asked for.
    pub async fn stopped(&self) {
        // An error means that the asking side is gone, which is a stop as well.
        let _ = self.0.clone().wait_for(|stopped| *stopped).await;
    }

    /// Between two steps: goes on, or ends the work.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) once the stop was asked for.
    pub fn check(&self, operation: &'static str) -> Result<()> {
        if self.is_stopped() {
            return Err(Error::stopped(operation));
        }
        Ok(())
    }

    /// Waits for `work`, but no longer than until the stop.
    ///
    /// `work` is dropped then, so it must be a wait and nothing that acts on the host.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) when the stop came first.
    pub async fn or<T>(&self, operation: &'static str, work: impl Future<Output = T>) -> Result<T> {
        tokio::select! {
            biased;
            () = self.stopped() => Err(Error::stopped(operation)),
            done = work => Ok(done),
        }
    }
}

//! Asking long work to stop, without cutting it off.

use std::sync::Arc;

use tokio::sync::watch;

use crate::fault::{Faults, Point};
use crate::{Error, Result};

/// The asking side: whoever holds it can stop the work.
#[derive(Debug, Clone)]
pub struct Stop {
    asked: Arc<watch::Sender<bool>>,
    faults: Faults,
}

impl Stop {
    /// A stop that nobody has asked for yet.
    pub fn new() -> Self {
        Self {
            asked: Arc::new(watch::Sender::new(false)),
            faults: Faults::default(),
        }
    }

    /// The same stop, whose tokens pass these faults at each look.
    #[cfg(feature = "testing")]
    pub(crate) fn with_faults(&self, faults: Faults) -> Self {
        Self {
            asked: Arc::clone(&self.asked),
            faults,
        }
    }

    /// What it is asked for by, for a fault that asks.
    #[cfg(feature = "testing")]
    pub(crate) fn asked(&self) -> Arc<watch::Sender<bool>> {
        Arc::clone(&self.asked)
    }

    /// Asks for it. Asking twice is harmless.
    pub fn stop(&self) {
        self.asked.send_replace(true);
    }

    /// Whether it was asked for.
    pub fn is_stopped(&self) -> bool {
        *self.asked.borrow()
    }

    /// The side that the work looks at.
    pub fn token(&self) -> StopToken {
        StopToken {
            asked: self.asked.subscribe(),
            faults: self.faults.clone(),
        }
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
pub struct StopToken {
    asked: watch::Receiver<bool>,
    faults: Faults,
}

impl StopToken {
    /// Whether the stop was asked for.
    pub fn is_stopped(&self) -> bool {
        self.look();
        *self.asked.borrow() || self.asked.has_changed().is_err()
    }

    /// Waits until it is asked for.
    pub async fn stopped(&self) {
        self.look();
        // An error means that the asking side is gone, which is a stop as well.
        let _ = self.asked.clone().wait_for(|stopped| *stopped).await;
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

    fn look(&self) {
        // A look cannot fail: its faults are a stop or a panic.
        let _ = self.faults.reach(Point::Look);
    }
}

//! What stays when a connection is lost: its address, its watches, and the way back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinError;

use super::session::Session;
use super::sinks::Sinks;
use crate::call::{self, Places};
use crate::driver::Driver;
use crate::error::Cause;

/// How long after a loss a call waits for the daemon to come back. Later ones ask once, and are
/// told at once.
pub const RECONNECT_LIMIT: Duration = Duration::from_secs(20);

/// The pauses between attempts: short first, since a restarted daemon is back in a moment.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The connection behind the clones of a `Connection`: one session after the other.
pub(crate) struct Link {
    uri: String,
    driver: &'static Driver,
    places: Places,
    sinks: Arc<Sinks>,
    session: Mutex<Arc<Session>>,
    /// Held while a new session is opened, by the work itself, so that there is one attempt at a
    /// time, also when a daemon takes connections and never answers.
    opening: Arc<tokio::sync::Mutex<()>>,
}

impl Link {
    /// The places for the calls of a connection about to be opened.
    pub(crate) fn places_for_new() -> Places {
        Arc::new(Semaphore::new(call::CALLS_AT_ONCE))
    }

    /// Opens the first session; blocks. The event loop must run.
    pub(crate) fn open(uri: String, places: Places) -> Result<Self, Cause> {
        Ok(Self::over(Session::open(&uri)?, uri, places))
    }

    /// Takes over a session that was opened some other way.
    pub(crate) fn over(session: Session, uri: String, places: Places) -> Self {
        Self {
            driver: Driver::of(&uri),
            uri,
            places,
            sinks: Arc::default(),
            session: Mutex::new(Arc::new(session)),
            opening: Arc::default(),
        }
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    pub(crate) fn driver(&self) -> &'static Driver {
        self.driver
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    pub(crate) fn sinks(&self) -> &Arc<Sinks> {
        &self.sinks
    }

    /// The last session, lost or not.
    pub(crate) fn last(&self) -> Arc<Session> {
        Arc::clone(&self.lock())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session that stands, as far as is known: the last one, or a new one where that was lost.
    /// Waits at most `limit`, and for the daemon at most until [`RECONNECT_LIMIT`] after the loss.
    pub(crate) async fn session(self: &Arc<Self>, limit: Duration) -> Result<Arc<Session>, Cause> {
        let last = self.last();
        if last.lost().is_none() {
            return Ok(last);
        }
        let started = Instant::now();
        let late = |_| Cause::TimedOut {
            after: started.elapsed(),
            waiting_for: "a new connection in place of the one that was lost",
        };
        let turn = tokio::time::timeout(limit, Arc::clone(&self.opening).lock_owned())
            .await
            .map_err(late)?;
        let last = self.last();
        let Some(lost) = last.lost() else {
            return Ok(last);
        };
        let patience = RECONNECT_LIMIT
            .saturating_sub(lost.since.elapsed())
            .min(limit.saturating_sub(started.elapsed()));
        let link = Arc::clone(self);
        let reopening = tokio::spawn(async move {
            let reopened = link.reopen(patience).await;
            drop(turn);
            reopened
        });
        let opened = tokio::time::timeout(limit.saturating_sub(started.elapsed()), reopening)
            .await
            .map_err(late)?
            .unwrap_or_else(|error| Err(aborted(&error)));
        opened.map_err(|cause| Cause::Lost {
            reason: lost.reason,
            after: lost.since.elapsed(),
            again: Box::new(cause),
        })
    }

    /// Tries to open a new session, at least once, until `patience` is over.
    async fn reopen(self: &Arc<Self>, patience: Duration) -> Result<Arc<Session>, Cause> {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let link = Arc::clone(self);
            let attempt = tokio::task::spawn_blocking(move || link.reopen_now()).await;
            match attempt.unwrap_or_else(|error| Err(aborted(&error))) {
                Ok(session) => {
                    tracing::info!(uri = %self.uri, "connected again");
                    return Ok(session);
                }
                Err(cause) if started.elapsed() + pause >= patience => return Err(cause),
                Err(cause) => {
                    tracing::debug!(uri = %self.uri, %cause, "not connected again yet");
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Opens a new session in place of the last one; blocks.
    fn reopen_now(&self) -> Result<Arc<Session>, Cause> {
        let session = Session::open(&self.uri)?;
        // Before anybody sees it, so that no watch goes without events.
        if !self.sinks.is_empty() {
            session.listen(&self.sinks)?;
        }
        let session = Arc::new(session);
        let before = std::mem::replace(&mut *self.lock(), Arc::clone(&session));
        drop(before);
        Ok(session)
    }
}

fn aborted(error: &JoinError) -> Cause {
    Cause::Aborted(error.to_string())
}

//! What happens to a domain, as libvirt tells it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;
use uuid::Uuid;

use crate::ability::Ability;
use crate::alive::{Counted, WATCHES};
use crate::connection::{
    Connection, DomainEvent, Link, RECONNECT_LIMIT, Session, Sink, wait_closed,
};
use crate::error::Error;

/// How many events wait for their reader; those beyond it are counted and dropped.
pub const EVENT_QUEUE: usize = 256;

impl Connection {
    /// Watches the domain with this UUID, which need not exist yet: events from now on, in
    /// libvirt's order. Any number of watches may run on a connection.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] for drivers without domain events, whatever else libvirt
    /// reports, or the time limit.
    pub async fn domain_events(&self, uuid: Uuid) -> Result<DomainEvents, Error> {
        let subject = format!("domain {uuid}");
        self.require(Ability::DomainEvents, "watch", &subject)?;
        let link = Arc::clone(&self.link);
        self.call_on("watch", subject, move |session| {
            let (sender, receiver) = mpsc::channel(EVENT_QUEUE);
            let missed = Arc::new(AtomicU64::new(0));
            let sink = Sink {
                uuid,
                sender,
                missed: Arc::clone(&missed),
            };
            // Registering before the sink is there loses nothing: nobody waits for it yet.
            session.listen(link.sinks())?;
            link.sinks().add(sink);
            Ok(DomainEvents {
                uuid,
                receiver,
                missed,
                _counted: Counted::new(&WATCHES),
                session: Arc::clone(session),
                link,
            })
        })
        .await
    }
}

/// The events of one domain. Dropping it ends the watch. It keeps the connection open.
pub struct DomainEvents {
    uuid: Uuid,
    receiver: mpsc::Receiver<DomainEvent>,
    missed: Arc<AtomicU64>,
    _counted: Counted,
    link: Arc<Link>,
    /// The session that the events come from.
    session: Arc<Session>,
}

impl DomainEvents {
    /// The domain's UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The next event. Events that found the queue full are reported as one
    /// [`DomainEvent::Missed`], ahead of those still queued. A connection that is lost is made
    /// anew, which is told as [`DomainEvent::Reconnected`]; `None` when it could not be within
    /// [`RECONNECT_LIMIT`]. Without events it waits for ever, so bound it. Cancel safe.
    pub async fn next(&mut self) -> Option<DomainEvent> {
        let missed = self.missed.swap(0, Ordering::AcqRel);
        if missed > 0 {
            return Some(DomainEvent::Missed(missed));
        }
        tokio::select! {
            biased;
            event = self.receiver.recv() => event,
            session = reconnected(&self.link, &self.session) => {
                self.session = session?;
                Some(DomainEvent::Reconnected)
            }
        }
    }
}

/// Waits for the end of a session, and for the next one.
async fn reconnected(link: &Arc<Link>, session: &Session) -> Option<Arc<Session>> {
    wait_closed(session.watch_close()).await;
    match link.session(RECONNECT_LIMIT).await {
        Ok(session) => Some(session),
        Err(cause) => {
            tracing::warn!(uri = link.uri(), %cause, "a watch ends");
            None
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
        self.receiver.close();
        self.link.sinks().forget_closed();
    }
}

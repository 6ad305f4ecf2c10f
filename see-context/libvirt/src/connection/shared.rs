//! One connection a process and URI.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::{CALL_LIMIT, Connection, Link};
use crate::error::{Cause, Error};

/// The connection to one URI, as long as somebody has it. Held while one is opened.
type Slot = Arc<tokio::sync::Mutex<Weak<Link>>>;

static SLOTS: Mutex<Option<HashMap<String, Slot>>> = Mutex::new(None);

impl Connection {
    /// The connection of this process to `uri`, which is opened where nobody has one, and made anew where it was
    /// lost. It is closed with its last clone.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn shared(uri: &str, limit: Duration) -> Result<Self, Error> {
        let slot = {
            let mut slots = SLOTS.lock().unwrap_or_else(PoisonError::into_inner);
            let slots = slots.get_or_insert_default();
            Arc::clone(slots.entry(uri.to_owned()).or_default())
        };
        let failed = |cause| Error::new("open", uri.to_owned(), cause);
        let started = std::time::Instant::now();
        let late = |_| {
            failed(Cause::TimedOut {
                after: limit,
                waiting_for: "another attempt to open the connection",
            })
        };
        let mut known = tokio::time::timeout(limit, slot.lock())
            .await
            .map_err(late)?;
        let left = limit.saturating_sub(started.elapsed());
        let Some(link) = known.upgrade() else {
            let opened = Self::open(uri, left).await?;
            *known = Arc::downgrade(&opened.link);
            return Ok(opened);
        };
        drop(known);
        link.session(left).await.map_err(failed)?;
        Ok(Self {
            link,
            limit: CALL_LIMIT,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_process_has_one_connection_to_a_uri_as_long_as_somebody_uses_it() {
        let uri = "test:///default";
        let (one, other) = tokio::join!(
            Connection::shared(uri, LIMIT),
            Connection::shared(uri, LIMIT)
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        assert!(Arc::ptr_eq(&one.link, &other.link));
        let another = Connection::shared("test:///default?another", LIMIT).await;
        assert!(!Arc::ptr_eq(&one.link, &another.unwrap().link));
        let closed = Arc::downgrade(&one.link);
        drop((one, other));
        assert!(closed.upgrade().is_none(), "nobody uses it any more");
        Connection::shared(uri, LIMIT).await.unwrap();
    }
}

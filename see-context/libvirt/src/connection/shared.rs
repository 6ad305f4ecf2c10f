//! The connections of a process to one URI: a few, however many objects there are.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::MutexGuard;

use super::{CALL_LIMIT, Connection, Link};
use crate::driver;
use crate::error::{Cause, Error};

/// The most connections to one URI. Each has four calls under way at most, and a daemon works on twenty at once.
const MOST: usize = 4;

/// The connections to one URI, each as long as somebody has it.
#[derive(Default)]
struct Pool {
    links: [Weak<Link>; MOST],
    next: usize,
}

/// Locked while a connection is opened.
type Slot = Arc<tokio::sync::Mutex<Pool>>;

static POOLS: Mutex<Option<HashMap<String, Slot>>> = Mutex::new(None);

impl Connection {
    /// A connection to `uri` that this process shares: the next of at most four, so that one that is busy keeps few
    /// others waiting. It is opened where nobody has it, and made anew where it was lost.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn shared(uri: &str, limit: Duration) -> Result<Self, Error> {
        Self::of_pool(slot_of(uri), uri, limit, Pool::next).await
    }

    /// A new connection to the same URI, which nobody shares. It is opened in turn with all others, since an SSH server
    /// turns some away of many that come at once.
    pub(crate) async fn another(&self) -> Result<Self, Error> {
        let slot = slot_of(self.uri());
        let (_pool, left) = turn(&slot, self.uri(), self.limit).await?;
        Self::open(self.uri(), left).await
    }

    /// The least busy of the shared connections to `uri` that somebody has, or a new one.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub async fn shared_already(uri: &str, limit: Duration) -> Result<Self, Error> {
        Self::of_pool(slot_of(uri), uri, limit, |pool| {
            let free = |at: &usize| {
                let link = pool.links[*at].upgrade();
                link.map(|link| link.places().available_permits())
            };
            (0..MOST).max_by_key(free).unwrap_or_default()
        })
        .await
    }

    async fn of_pool(
        slot: Slot,
        uri: &str,
        limit: Duration,
        choose: impl FnOnce(&mut Pool) -> usize,
    ) -> Result<Self, Error> {
        let (mut pool, left) = turn(&slot, uri, limit).await?;
        let at = choose(&mut pool);
        let Some(link) = pool.links[at].upgrade() else {
            let opened = Self::open(uri, left).await?;
            pool.links[at] = Arc::downgrade(&opened.link);
            return Ok(opened);
        };
        drop(pool);
        let session = link.session(left).await;
        session.map_err(|cause| Error::new("open", uri, cause))?;
        Ok(Self {
            link,
            limit: CALL_LIMIT,
        })
    }
}

impl Pool {
    /// Each in turn.
    fn next(&mut self) -> usize {
        self.next = (self.next + 1) % MOST;
        self.next
    }
}

/// The pool once nobody else opens a connection of it, and what is left of the time.
async fn turn<'a>(
    slot: &'a Slot,
    uri: &str,
    limit: Duration,
) -> Result<(MutexGuard<'a, Pool>, Duration), Error> {
    let started = Instant::now();
    let pool = tokio::time::timeout(limit, slot.lock())
        .await
        .map_err(|_| {
            let cause = Cause::TimedOut {
                after: limit,
                waiting_for: "another attempt to open a connection",
            };
            Error::new("open", uri, cause)
        })?;
    Ok((pool, limit.saturating_sub(started.elapsed())))
}

/// Where the connections to this URI are: those that libvirt is asked for alike are the same.
fn slot_of(uri: &str) -> Slot {
    let used = driver::without_prompts(uri).into_owned();
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let pools = pools.get_or_insert_default();
    Arc::clone(pools.entry(used).or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn a_process_has_a_few_connections_to_a_uri_as_long_as_somebody_uses_them() {
        let uri = "test:///default";
        let mut held = Vec::new();
        for _ in 0..2 * MOST {
            held.push(Connection::shared(uri, LIMIT).await.unwrap());
        }
        let mut links: Vec<_> = held.iter().map(|one| Arc::as_ptr(&one.link)).collect();
        links.sort_unstable();
        links.dedup();
        assert_eq!(links.len(), MOST);

        let already = Connection::shared_already(uri, LIMIT).await.unwrap();
        assert!(links.contains(&Arc::as_ptr(&already.link)));
        let another = Connection::shared_already("test:///default?another", LIMIT).await;
        let another = another.unwrap();
        assert!(!links.contains(&Arc::as_ptr(&another.link)));

        let closed: Vec<_> = held.iter().map(|one| Arc::downgrade(&one.link)).collect();
        drop((held, already));
        assert!(
            closed.iter().all(|link| link.upgrade().is_none()),
            "nobody uses them any more"
        );
        Connection::shared_already(uri, LIMIT).await.unwrap();
    }

    #[tokio::test]
    async fn each_stream_has_a_connection_that_nobody_else_uses() {
        let shared = Connection::shared("test:///default?streams", LIMIT).await;
        let shared = shared.unwrap();
        let mut held = vec![shared.clone()];
        for _ in 0..2 * MOST {
            held.push(shared.another().await.unwrap());
        }
        let mut links: Vec<_> = held.iter().map(|one| Arc::as_ptr(&one.link)).collect();
        links.sort_unstable();
        links.dedup();
        assert_eq!(links.len(), held.len());
    }

    #[test]
    fn a_uri_over_ssh_shares_its_connections_with_the_one_in_batch_mode_that_it_stands_for() {
        let asked = slot_of("qemu+ssh://host/system");
        let used = slot_of("qemu+ssh://host/system?no_tty=1");
        assert!(Arc::ptr_eq(&asked, &used));
        let other = slot_of("qemu+ssh://host/system?no_tty=0");
        assert!(!Arc::ptr_eq(&asked, &other));
    }
}

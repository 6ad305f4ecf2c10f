//! What the tests of this crate share.

use std::time::Duration;

use see_libvirt::{Connection, Domain, DomainEvent, DomainEvents};
use uuid::Uuid;

/// For anything that should take a moment, on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A connection to libvirt's built-in test driver.
pub(crate) async fn test_connection() -> Connection {
    Connection::open("test:///default", LIMIT).await.unwrap()
}

/// A domain of 32 MiB with nothing to boot from.
pub(crate) fn tiny_domain(kind: &str, uuid: Uuid, extra: &str) -> String {
    format!(
        "<domain type='{kind}'><name>see-{uuid}</name><uuid>{uuid}</uuid>{extra}\
         <memory unit='MiB'>32</memory><vcpu>1</vcpu><os><type arch='x86_64'>hvm</type></os>\
         </domain>"
    )
}

/// A domain that is defined and runs.
pub(crate) async fn started(connection: &Connection, xml: &str) -> Domain {
    let domain = connection.define_domain(xml).await.unwrap();
    domain.start().await.unwrap();
    domain
}

/// The events up to and with `last`; panics when it does not come in time.
pub(crate) async fn collect_until(
    events: &mut DomainEvents,
    last: &DomainEvent,
) -> Vec<DomainEvent> {
    let mut seen = Vec::new();
    let collected = tokio::time::timeout(LIMIT, async {
        while let Some(event) = events.next().await {
            let done = event == *last;
            seen.push(event);
            if done {
                return true;
            }
        }
        false
    })
    .await;
    assert_eq!(collected, Ok(true), "no {last:?} after {seen:?}");
    seen
}

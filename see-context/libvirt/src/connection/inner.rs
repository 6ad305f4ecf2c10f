//! The one native connection behind the clones of a `Connection`.

use std::os::raw::c_int;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::close::{self, CloseReason};
use crate::call::{self, Places};
use crate::domain_events::Hub;
use crate::embedded;
use crate::error::Cause;
use crate::handle::Handle;
use crate::text;

/// Seconds between keep-alive requests, and how many may go unanswered.
const KEEP_ALIVE: (i32, u32) = (5, 6);

pub(crate) struct Inner {
    /// `None` only while dropping.
    connect: Option<Handle<virt::connect::Connect>>,
    uri: String,
    places: Places,
    close: watch::Receiver<Option<CloseReason>>,
    watched: bool,
    events: Hub,
    /// Emulators are started in this process and as root.
    confine: bool,
}

impl Inner {
    /// The places for the calls of a connection about to be opened.
    pub(crate) fn places_for_new() -> Places {
        Arc::new(Semaphore::new(call::CALLS_AT_ONCE))
    }

    /// Opens the connection; blocks. The event loop must run.
    pub(crate) fn open(uri: String, places: Places) -> Result<Self, Cause> {
        // Checked here because the `virt` crate panics on a NUL byte in a URI.
        text::c_string(&uri)?;
        let connect = Handle::new(virt::connect::Connect::open(Some(&uri))?);
        // Drivers inside the process have no peer to keep alive, and say so.
        if let Err(error) = connect.set_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1) {
            tracing::debug!(%uri, %error, "no keep-alive on this connection");
        }
        let (watched, close) = close::register(&connect);
        Ok(Self {
            connect: Some(connect),
            uri,
            places,
            close,
            watched,
            events: Hub::default(),
            confine: false,
        })
    }

    pub(crate) fn connect(&self) -> &virt::connect::Connect {
        self.connect
            .as_deref()
            .expect("the connection is only taken by drop")
    }

    /// From now on, emulators are started without the capabilities of this process.
    pub(crate) fn confine_emulators(&mut self) {
        self.confine = true;
    }

    /// Runs a call that starts a domain.
    pub(crate) fn starting<T: Send>(
        &self,
        work: impl FnOnce(&virt::connect::Connect) -> Result<T, Cause> + Send,
    ) -> Result<T, Cause> {
        if self.confine {
            embedded::without_capabilities(|| work(self.connect()))
        } else {
            work(self.connect())
        }
    }

    pub(crate) fn uri(&self) -> &str {
        &self.uri
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        *self.close.borrow()
    }

    pub(crate) fn events(&self) -> &Hub {
        &self.events
    }

    pub(crate) fn watch_close(&self) -> watch::Receiver<Option<CloseReason>> {
        self.close.clone()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let Some(connect) = self.connect.take() else {
            return;
        };
        let (watched, uri) = (self.watched, std::mem::take(&mut self.uri));
        let events = std::mem::take(&mut self.events);
        // Closing talks to the daemon, so it must not happen on an async thread.
        call::release(move || {
            let left = close_now(connect, &events, watched);
            if left < 0 {
                tracing::debug!(%uri, cause = %Cause::last(), "libvirt reported an error on close");
            } else {
                tracing::trace!(%uri, left, "gave a connection back");
            }
        });
    }
}

/// Takes the callbacks back, which hold references, and then closes the connection. Returns how
/// many references are left, which should be none; negative on failure.
fn close_now(connect: Handle<virt::connect::Connect>, events: &Hub, watched: bool) -> c_int {
    events.deregister(&connect);
    if watched {
        close::unregister(&connect);
    }
    connect.give_back()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;
    use crate::connection::Connection;
    use crate::domain::StartOptions;

    #[tokio::test]
    async fn no_object_keeps_a_reference_to_a_connection_once_dropped() {
        let limit = Duration::from_secs(60);
        let connection = Connection::open("test:///default", limit).await.unwrap();
        {
            let uuid = Uuid::new_v4();
            let mut events = connection.domain_events(uuid).await.unwrap();
            let _second = connection.domain_events(uuid).await.unwrap();
            let xml = format!(
                "<domain type='test'><name>{uuid}</name><uuid>{uuid}</uuid>\
                 <memory unit='MiB'>8</memory><os><type>hvm</type></os></domain>"
            );
            let options = StartOptions::default();
            let domain = connection.create_domain(&xml, options).await.unwrap();
            let event = tokio::time::timeout(limit, events.next()).await.unwrap();
            assert!(event.is_some());
            domain.screenshot(0, 16 << 20).await.unwrap();
            domain.screenshot(0, 1).await.unwrap_err();
            domain.within(limit).destroy().await.unwrap();
            domain.status().await.unwrap_err();
            connection.domains().await.unwrap();
            connection.networks().await.unwrap();
            for pool in connection.storage_pools().await.unwrap() {
                pool.volumes().await.unwrap();
            }
            connection
                .create_domain("<bad/>", options)
                .await
                .unwrap_err();
        }
        let mut inner = Arc::into_inner(connection.inner).expect("nobody else has it");
        let connect = inner.connect.take().unwrap();
        assert_eq!(close_now(connect, &inner.events, inner.watched), 0);
    }
}

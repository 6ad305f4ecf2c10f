//! The one native connection behind the clones of a `Connection`.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};

use super::close::{self, CloseReason};
use crate::call::{self, Places};
use crate::domain_events::Hub;
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
        })
    }

    pub(crate) fn connect(&self) -> &virt::connect::Connect {
        self.connect
            .as_deref()
            .expect("the connection is only taken by drop")
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
            events.deregister(&connect);
            if watched {
                close::unregister(&connect);
            }
            let left = connect.give_back();
            if left < 0 {
                tracing::debug!(%uri, cause = %Cause::last(), "libvirt reported an error on close");
            } else {
                tracing::trace!(%uri, left, "gave a connection back");
            }
        });
    }
}

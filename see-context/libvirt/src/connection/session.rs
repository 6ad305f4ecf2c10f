//! One native connection, from its opening until it is lost or closed.

use std::os::raw::c_int;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::callbacks::{deregister_all, register_all};
use super::close::{self, Loss};
use super::sinks::Sinks;
use crate::call;
use crate::close_reason::CloseReason;
use crate::confine::without_capabilities;
use crate::driver;
use crate::error::Cause;
use crate::handle::Handle;
use crate::processor::on_the_first_core;
use crate::text;

/// Seconds between keep-alive requests, and how many may go unanswered.
const KEEP_ALIVE: (i32, u32) = (5, 6);

pub(crate) struct Session {
    /// `None` only while dropping.
    connect: Option<Handle<virt::connect::Connect>>,
    close: close::Sender,
    watched: bool,
    /// What libvirt knows the callbacks of domain events by; `None` before the first watch.
    callbacks: Mutex<Option<Vec<c_int>>>,
    /// The driver runs in this process.
    embedded: bool,
    /// Emulators are started in this process and as root.
    confine: bool,
}

impl Session {
    /// Opens a connection; blocks. The event loop must run.
    pub(crate) fn open(uri: &str) -> Result<Self, Cause> {
        // Checked here because the `virt` crate panics on a NUL byte in a URI.
        text::c_string(uri)?;
        let native = driver::native_uri(uri);
        let connect = Handle::new(virt::connect::Connect::open(Some(&native))?);
        // Drivers inside the process have no peer to keep alive, and say so.
        if let Err(error) = connect.set_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1) {
            tracing::debug!(%uri, %error, "no keep-alive on this connection");
        }
        let (watched, close) = close::register(&connect);
        Ok(Self {
            connect: Some(connect),
            close,
            watched,
            callbacks: Mutex::default(),
            embedded: false,
            confine: false,
        })
    }

    pub(crate) fn connect(&self) -> &virt::connect::Connect {
        self.connect
            .as_deref()
            .expect("the connection is only taken by drop")
    }

    /// It is one to the embedded driver: emulators are asked and started in this process, without its capabilities
    /// where it is root's.
    pub(crate) fn runs_emulators(&mut self, is_root: bool) {
        self.embedded = true;
        self.confine = is_root;
    }

    /// Runs a call for which libvirt looks up what emulators can do.
    pub(crate) fn asking<T>(
        &self,
        work: impl FnOnce(&virt::connect::Connect) -> Result<T, Cause>,
    ) -> Result<T, Cause> {
        match self.embedded {
            true => on_the_first_core(|| work(self.connect())),
            false => work(self.connect()),
        }
    }

    /// Runs a call that starts a domain.
    pub(crate) fn starting<T: Send>(
        &self,
        work: impl FnOnce(&virt::connect::Connect) -> Result<T, Cause> + Send,
    ) -> Result<T, Cause> {
        match self.confine {
            true => without_capabilities(|| work(self.connect())),
            false => self.asking(work),
        }
    }

    /// Has the events of all domains handed to `sinks`, unless that is so; blocks.
    pub(crate) fn listen(&self, sinks: &Arc<Sinks>) -> Result<(), Cause> {
        let mut callbacks = self
            .callbacks
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if callbacks.is_none() {
            *callbacks = Some(register_all(self.connect(), sinks)?);
        }
        Ok(())
    }

    /// When and why it was lost; `None` while it stands.
    pub(crate) fn lost(&self) -> Option<Loss> {
        *self.close.borrow()
    }

    /// Notes a loss that a call met before libvirt told of it.
    pub(crate) fn look(&self) {
        if !self.connect().is_alive().unwrap_or(false) {
            close::note(&self.close, CloseReason::Error);
        }
    }

    pub(crate) fn watch_close(&self) -> watch::Receiver<Option<Loss>> {
        self.close.subscribe()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        let Some(connect) = self.connect.take() else {
            return;
        };
        let watched = self.watched;
        let callbacks = std::mem::take(&mut self.callbacks);
        // Closing talks to the daemon, so it must not happen on an async thread.
        call::release(move || {
            let left = close_now(connect, callbacks, watched);
            if left < 0 {
                tracing::debug!(cause = %Cause::last(), "libvirt reported an error on close");
            } else {
                tracing::trace!(left, "gave a connection back");
            }
        });
    }
}

/// Takes the callbacks back, which hold references, and then closes the connection. Returns how
/// many references are left, which should be none; negative on failure.
fn close_now(
    connect: Handle<virt::connect::Connect>,
    callbacks: Mutex<Option<Vec<c_int>>>,
    watched: bool,
) -> c_int {
    let ids = callbacks
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner);
    deregister_all(&connect, ids.into_iter().flatten());
    if watched {
        close::unregister(&connect);
    }
    connect.give_back()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use uuid::Uuid;

    use super::*;
    use crate::connection::Connection;

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
            let domain = connection.define_domain(&xml).await.unwrap();
            domain.start().await.unwrap();
            let event = tokio::time::timeout(limit, events.next()).await.unwrap();
            assert!(event.is_some());
            domain.screenshot(0, 16 << 20).await.unwrap();
            domain.screenshot(0, 1).await.unwrap_err();
            domain.within(limit).destroy().await.unwrap();
            domain.undefine().await.unwrap();
            domain.status().await.unwrap_err();
            connection.domains().await.unwrap();
            connection.networks().await.unwrap();
            let pool = connection.storage_pool("default-pool").await.unwrap();
            pool.volumes().await.unwrap();
            connection.define_domain("<bad/>").await.unwrap_err();
        }
        let session = connection.link.last();
        drop(connection);
        // A call's thread, or one that tells an event, lets go of it a little later than it answers.
        let deadline = Instant::now() + limit;
        let wait = || async {
            assert!(Instant::now() < deadline, "somebody keeps a reference");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        while Arc::strong_count(&session) > 1 {
            wait().await;
        }
        let mut session = Arc::into_inner(session).expect("nobody else has it");
        let connect = session.connect.take().unwrap();
        let callbacks = std::mem::take(&mut session.callbacks);
        let own = Handle::new(virt::connect::Connect::clone(&connect));
        close_now(connect, callbacks, session.watched);
        // libvirt itself holds one while it tells an event, such as that of the end.
        // How many are left is told by the one that is given back.
        let another = || Handle::new(virt::connect::Connect::clone(&own));
        while another().give_back() > 1 {
            wait().await;
        }
        assert_eq!(own.give_back(), 0);
    }
}

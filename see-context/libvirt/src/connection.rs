//! Connections to a hypervisor driver.

mod close;
mod inner;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::call;
use crate::error::{Cause, Error};
use crate::event_loop;
use crate::text;

pub use self::close::CloseReason;
pub(crate) use self::close::wait as wait_closed;
pub(crate) use self::inner::Inner;

/// The time a call gets unless [`Connection::within`] says otherwise. Long enough for a destroy
/// on a host that reaps processes late, short enough to notice a daemon that hangs.
pub const CALL_LIMIT: Duration = Duration::from_secs(60);

/// A shared connection to one libvirt driver; cloning shares it, the last clone closes it.
///
/// Every call runs on a blocking thread and waits at most the connection's time limit
/// ([`Connection::within`], inherited by the objects looked up through it), then fails with
/// [`Error::is_timed_out`]. libvirt cannot cancel a call: work that ran out of time, or whose
/// future was dropped, still ends by itself. At most 32 calls of a connection run at once;
/// further ones wait for a place within their own time.
///
/// All futures need a tokio runtime with time enabled.
#[derive(Clone)]
pub struct Connection {
    pub(crate) inner: Arc<Inner>,
    pub(crate) limit: Duration,
}

impl Connection {
    /// Opens `uri`, for example `qemu:///system` or `test:///default`, within `limit`.
    ///
    /// The first connection of the process starts libvirt's event loop on a thread of its own.
    /// Drivers behind a daemon are sent keep-alive requests, so that a dead peer is noticed after
    /// about 30 seconds. Open embedded drivers with [`Connection::open_embedded`].
    ///
    /// # Errors
    /// Whatever libvirt reports ([`Error::is_denied`] without the rights), or
    /// [`Error::is_timed_out`].
    pub async fn open(uri: &str, limit: Duration) -> Result<Self, Error> {
        let places = Inner::places_for_new();
        let (owned, shared) = (uri.to_owned(), Arc::clone(&places));
        let inner = call::call(&places, limit, "open", uri, move || {
            event_loop::start()?;
            Inner::open(owned, shared)
        })
        .await?;
        Ok(Self {
            inner: Arc::new(inner),
            limit: CALL_LIMIT,
        })
    }

    /// The same connection with another time limit a call.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
            limit,
        }
    }

    /// The URI as it was asked for.
    #[must_use]
    pub fn uri(&self) -> &str {
        self.inner.uri()
    }

    /// The driver's type, for example `QEMU` or `TEST`.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn driver_type(&self) -> Result<String, Error> {
        self.call("read the driver type of", |inner| {
            Ok(inner.connect().driver_type()?)
        })
        .await
    }

    /// The hypervisor's version.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn hypervisor_version(&self) -> Result<Version, Error> {
        self.call("read the hypervisor's version of", |inner| {
            Ok(Version::from_libvirt(inner.connect().hyp_version()?))
        })
        .await
    }

    /// The version of libvirt on the driver's side (the daemon's, where there is one).
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn libvirt_version(&self) -> Result<Version, Error> {
        self.call("read libvirt's version of", |inner| {
            Ok(Version::from_libvirt(inner.connect().lib_version()?))
        })
        .await
    }

    /// The name of the host that runs the hypervisor.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn hostname(&self) -> Result<String, Error> {
        self.call("read the host name of", |inner| {
            Ok(inner.connect().hostname()?)
        })
        .await
    }

    /// The host's and driver's capabilities, as XML.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn capabilities(&self) -> Result<String, Error> {
        self.call("read the capabilities of", |inner| {
            Ok(inner.connect().capabilities()?)
        })
        .await
    }

    /// What domains of a virtualisation type (`qemu`, `kvm`, …) can have, as XML. Empty
    /// arguments leave the choice to the driver.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn domain_capabilities(&self, virtualisation: &str) -> Result<String, Error> {
        let kind = virtualisation.to_owned();
        self.call("read the domain capabilities of", move |inner| {
            // Checked here because the `virt` crate panics on a NUL byte in this argument.
            text::c_string(&kind)?;
            let kind = (!kind.is_empty()).then_some(kind.as_str());
            Ok(inner
                .connect()
                .domain_capabilities(None, None, None, kind, 0)?)
        })
        .await
    }

    /// Whether the connection still answers. Drivers inside the process always do.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn is_alive(&self) -> Result<bool, Error> {
        self.call("ask for life on", |inner| {
            Ok(inner.close_reason().is_none() && inner.connect().is_alive()?)
        })
        .await
    }

    /// Why the connection was lost; `None` while it stands. Costs no call.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        self.inner.close_reason()
    }

    /// Waits until the connection is lost. A driver inside the process is never lost, so bound
    /// the wait.
    pub async fn closed(&self) -> CloseReason {
        wait_closed(self.inner.watch_close()).await
    }

    /// Runs a libvirt call on this connection.
    pub(crate) async fn call<T, F>(&self, operation: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Inner>) -> Result<T, Cause> + Send + 'static,
    {
        let subject = self.inner.uri().to_owned();
        self.call_on(operation, subject, work).await
    }

    /// Runs a libvirt call on this connection whose error names `subject`.
    pub(crate) async fn call_on<T, F>(
        &self,
        operation: &'static str,
        subject: String,
        work: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Inner>) -> Result<T, Cause> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        call::call(
            self.inner.places(),
            self.limit,
            operation,
            subject,
            move || work(&inner),
        )
        .await
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("uri", &self.inner.uri())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// A version as libvirt counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Incompatible changes.
    pub major: u32,
    /// Features.
    pub minor: u32,
    /// Repairs.
    pub micro: u32,
}

impl Version {
    fn from_libvirt(number: u32) -> Self {
        Self {
            major: number / 1_000_000,
            minor: number / 1_000 % 1_000,
            micro: number % 1_000,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

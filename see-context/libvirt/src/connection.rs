//! Connections to a hypervisor driver.

mod callbacks;
mod close;
mod event;
mod link;
mod session;
mod shared;
mod sinks;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ability::Ability;
use crate::call;
use crate::error::{Cause, Error};
use crate::event_loop;
use crate::text;

pub(crate) use self::close::wait as wait_closed;
pub use self::event::{DomainEvent, IoErrorAction, StopCause};
pub(crate) use self::link::Link;
pub use self::link::RECONNECT_LIMIT;
pub(crate) use self::session::Session;
pub(crate) use self::sinks::Sink;

/// The time a call gets unless [`Connection::within`] says otherwise. Long enough for a destroy
/// on a host that reaps processes late, short enough to notice a daemon that hangs.
pub const CALL_LIMIT: Duration = Duration::from_secs(60);

/// A shared connection to one libvirt driver; cloning shares it, the last clone closes it.
///
/// Every call runs on a blocking thread and waits at most the connection's time limit
/// ([`Connection::within`], inherited by the objects looked up through it), then fails with
/// [`Error::is_timed_out`]. libvirt cannot cancel a call: work that ran out of time, or whose
/// future was dropped, still ends by itself. At most four calls of a connection run at once;
/// further ones wait for a place within their own time.
///
/// A connection that was lost, because the daemon ended or stopped answering, is made anew by the
/// next call or watch: with growing pauses, for [`RECONNECT_LIMIT`] after the loss at most, within
/// the call's own time. Objects are then looked up again by what they are, not by name. A call
/// that was under way fails with [`Error::is_connection_lost`], but for those that may as well be
/// made twice (reading, looking up, removing), which are.
///
/// All futures need a tokio runtime with time enabled.
#[derive(Clone)]
pub struct Connection {
    pub(crate) link: Arc<Link>,
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
        let places = Link::places_for_new();
        let (owned, shared) = (uri.to_owned(), Arc::clone(&places));
        let link = call::call(&places, limit, "open", uri, move || {
            event_loop::start()?;
            Link::open(owned, shared)
        })
        .await?;
        Ok(Self {
            link: Arc::new(link),
            limit: CALL_LIMIT,
        })
    }

    /// The same connection with another time limit a call.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self {
            link: Arc::clone(&self.link),
            limit,
        }
    }

    /// The URI as it was asked for.
    #[must_use]
    pub fn uri(&self) -> &str {
        self.link.uri()
    }

    /// The host's and driver's capabilities, as XML.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn capabilities(&self) -> Result<String, Error> {
        self.read("read the capabilities of", |session| {
            session.asking(|connect| Ok(connect.capabilities()?))
        })
        .await
    }

    /// What machines of a kind can have, as XML; an error where the hypervisor cannot run them, such as `kvm` without
    /// KVM.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn domain_capabilities(&self, kind: &MachineKind) -> Result<String, Error> {
        let operation = "read the domain capabilities of";
        self.require(Ability::DomainCapabilities, operation, self.uri())?;
        let kind = kind.clone();
        self.read(operation, move |session| {
            let MachineKind {
                emulator,
                architecture,
                machine,
                virtualisation,
            } = &kind;
            // Checked here because the `virt` crate panics on a NUL byte in these arguments.
            for text in [emulator, architecture, machine, virtualisation] {
                text::c_string(text.as_deref().unwrap_or_default())?;
            }
            session.asking(|connect| {
                Ok(connect.domain_capabilities(
                    emulator.as_deref(),
                    architecture.as_deref(),
                    machine.as_deref(),
                    virtualisation.as_deref(),
                    0,
                )?)
            })
        })
        .await
    }

    /// Whether the driver can do this, as far as is known beforehand. One that says so may still
    /// answer [`Error::is_unsupported`].
    #[must_use]
    pub fn may(&self, ability: Ability) -> bool {
        self.link.driver().may(ability)
    }

    /// Refuses an operation for which the driver lacks the ability.
    pub(crate) fn require(
        &self,
        ability: Ability,
        operation: &'static str,
        subject: &str,
    ) -> Result<(), Error> {
        if self.may(ability) {
            return Ok(());
        }
        let driver = self.link.driver().name;
        Err(Error::new(
            operation,
            subject,
            Cause::Lacking { driver, ability },
        ))
    }

    /// Runs a libvirt call on this connection.
    pub(crate) async fn call<T, F>(&self, operation: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Arc<Session>) -> Result<T, Cause> + Send + 'static,
    {
        let subject = self.uri().to_owned();
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
        F: FnOnce(&Arc<Session>) -> Result<T, Cause> + Send + 'static,
    {
        let started = Instant::now();
        let session = match self.link.session(self.limit).await {
            Ok(session) => session,
            Err(cause) => return Err(Error::new(operation, subject, cause)),
        };
        let left = self.limit.saturating_sub(started.elapsed());
        call::call(self.link.places(), left, operation, subject, move || {
            let answer = work(&session);
            if answer.as_ref().is_err_and(Cause::is_cut_off) {
                session.look();
            }
            answer
        })
        .await
    }

    /// Runs a libvirt call on this connection that changes nothing.
    pub(crate) async fn read<T, F>(&self, operation: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&Arc<Session>) -> Result<T, Cause> + Send + Sync + 'static,
    {
        let subject = self.uri().to_owned();
        self.repeat_on(operation, subject, work).await
    }

    /// Runs a libvirt call that may as well be made twice, and is where the connection was lost
    /// meanwhile. Both have one time limit.
    pub(crate) async fn repeat_on<T, F>(
        &self,
        operation: &'static str,
        subject: String,
        work: F,
    ) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&Arc<Session>) -> Result<T, Cause> + Send + Sync + 'static,
    {
        let started = Instant::now();
        let work = Arc::new(work);
        let first = Arc::clone(&work);
        let answer = self
            .call_on(operation, subject.clone(), move |session| first(session))
            .await;
        match answer {
            Err(error) if error.was_cut_off() => {
                tracing::debug!(%error, "asking once more");
                self.within(self.limit.saturating_sub(started.elapsed()))
                    .call_on(operation, subject, move |session| work(session))
                    .await
            }
            answer => answer,
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("uri", &self.uri())
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// A kind of machines; what is left out the driver chooses.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MachineKind {
    /// The path of the emulator.
    pub emulator: Option<String>,
    /// The architecture, such as `aarch64`.
    pub architecture: Option<String>,
    /// The machine's type, such as `q35`.
    pub machine: Option<String>,
    /// What runs it: `qemu`, `kvm`, …
    pub virtualisation: Option<String>,
}

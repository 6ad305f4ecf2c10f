//! Domains: the machines.

mod create;
mod interfaces;
mod power;
mod screenshot;
mod status;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use virt_sys as sys;

use crate::connection::{Connection, Inner};
use crate::error::{Cause, Error};
use crate::handle::Handle;
use crate::text;

pub use self::create::StartOptions;
pub use self::interfaces::{AddressSource, InterfaceAddresses};
pub use self::power::ShutdownMode;
pub use self::screenshot::Screenshot;
pub use self::status::{DomainInfo, DomainState, DomainStatus};

/// A reference to a domain; cloning shares it. It stays usable as a name for a domain that is
/// gone: its calls then fail with [`Error::is_no_domain`].
///
/// Calls obey the time limit of the connection the domain came from, or [`Domain::within`].
#[derive(Clone)]
pub struct Domain {
    native: Arc<Native>,
    connection: Connection,
}

struct Native {
    // Before the connection, so that it is released first.
    handle: Handle<virt::domain::Domain>,
    _connection: Arc<Inner>,
    name: String,
    uuid: Uuid,
}

impl Domain {
    /// Takes a fresh libvirt object over. Its name and UUID are read without a call to a daemon.
    pub(crate) fn adopt(
        domain: virt::domain::Domain,
        connection: &Arc<Inner>,
        limit: Duration,
    ) -> Result<Self, Cause> {
        let handle = Handle::new(domain);
        let (name, uuid) = (handle.name()?, handle.uuid()?);
        Ok(Self {
            native: Arc::new(Native {
                handle,
                _connection: Arc::clone(connection),
                name,
                uuid,
            }),
            connection: Connection {
                inner: Arc::clone(connection),
                limit,
            },
        })
    }

    /// The same domain with another time limit a call.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self {
            native: Arc::clone(&self.native),
            connection: self.connection.within(limit),
        }
    }

    /// The connection that the domain belongs to.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The name it had when it was looked up or created.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.native.name
    }

    /// Its UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.native.uuid
    }

    /// The number of the running domain; `None` while it does not run.
    ///
    /// libvirt keeps it in the object, so it is that of the time of the look-up.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.native.handle.id()
    }

    /// Whether the domain runs, paused or not.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn is_active(&self) -> Result<bool, Error> {
        self.call("ask for activity of", |domain| Ok(domain.is_active()?))
            .await
    }

    /// Whether the domain has a definition that outlives its run.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn is_persistent(&self) -> Result<bool, Error> {
        self.call("ask for persistence of", |domain| {
            Ok(domain.is_persistent()?)
        })
        .await
    }

    /// The domain's XML: of the run, or of the definition when it does not run.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn xml(&self) -> Result<String, Error> {
        self.call("read the XML of", |domain| Ok(domain.xml_desc(0)?))
            .await
    }

    /// The metadata element of XML namespace `namespace`, as XML text; `None` when the domain
    /// has none.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn metadata(&self, namespace: &str) -> Result<Option<String>, Error> {
        let namespace = namespace.to_owned();
        let found = self
            .call("read the metadata of", move |domain| {
                // Checked here because the `virt` crate panics on a NUL byte in it.
                text::c_string(&namespace)?;
                let element = sys::VIR_DOMAIN_METADATA_ELEMENT.cast_signed();
                Ok(domain.metadata(element, Some(&namespace), 0)?)
            })
            .await;
        match found {
            Ok(element) => Ok(Some(element)),
            Err(error) if error.is_no_metadata() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a QMP command (a JSON text) to QEMU's monitor and returns its JSON answer. libvirt
    /// marks the domain as tainted by it.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] for other drivers, whatever libvirt reports, or the time limit.
    pub async fn qmp(&self, command: &str) -> Result<String, Error> {
        self.monitor(command, 0).await
    }

    /// Sends a command line to QEMU's human monitor and returns the text it prints.
    ///
    /// # Errors
    /// As [`Domain::qmp`].
    pub async fn human_monitor(&self, command: &str) -> Result<String, Error> {
        self.monitor(command, sys::VIR_DOMAIN_QEMU_MONITOR_COMMAND_HMP)
            .await
    }

    async fn monitor(&self, command: &str, flags: u32) -> Result<String, Error> {
        let command = command.to_owned();
        self.call("send a monitor command to", move |domain| {
            Ok(domain.qemu_monitor_command(&command, flags)?)
        })
        .await
    }

    /// Runs a libvirt call on this domain.
    async fn call<T, F>(&self, operation: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&virt::domain::Domain) -> Result<T, Cause> + Send + 'static,
    {
        let native = Arc::clone(&self.native);
        let subject = format!("domain {}", self.native.name);
        self.connection
            .call_on(operation, subject, move |_| work(&native.handle))
            .await
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Domain")
            .field("name", &self.native.name)
            .field("uuid", &self.native.uuid)
            .finish_non_exhaustive()
    }
}

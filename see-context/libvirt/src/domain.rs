//! Domains: the machines.

mod channel;
mod create;
mod interfaces;
mod power;
mod screenshot;
mod status;

use uuid::Uuid;
use virt_sys as sys;

use crate::ability::Ability;
use crate::error::Error;
use crate::object::{Object, reference};
use crate::text;

pub use self::channel::{CHANNEL_BACKLOG, ChannelStream};
pub use self::interfaces::InterfaceAddresses;
pub use self::power::ShutdownMode;
pub use self::screenshot::Screenshot;
pub use self::status::{DomainInfo, DomainState, DomainStatus};

/// A reference to a domain; cloning shares it. It stays usable as a name for a domain that is
/// gone: its calls then fail with [`Error::is_no_domain`].
///
/// Calls obey the time limit of the connection the domain came from, or [`Domain::within`].
#[derive(Clone)]
pub struct Domain {
    object: Object<virt::domain::Domain>,
}

reference!(Domain, virt::domain::Domain);

impl Domain {
    /// Its UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        *self.object.id()
    }

    /// The number of the running domain; `None` while it does not run.
    ///
    /// libvirt keeps it in the object, so it is that of the time of the look-up.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.object.last().id()
    }

    /// Whether the domain runs, paused or not.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn is_active(&self) -> Result<bool, Error> {
        self.object
            .repeat("ask for activity of", |domain| Ok(domain.is_active()?))
            .await
    }

    /// The domain's XML: of the run, or of the definition when it does not run.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn xml(&self) -> Result<String, Error> {
        self.object
            .repeat("read the XML of", |domain| Ok(domain.xml_desc(0)?))
            .await
    }

    /// The metadata element of XML namespace `namespace`, as XML text; `None` when the domain
    /// has none.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn metadata(&self, namespace: &str) -> Result<Option<String>, Error> {
        self.object
            .require(Ability::Metadata, "read the metadata of")?;
        let namespace = namespace.to_owned();
        let found = self
            .object
            .repeat("read the metadata of", move |domain| {
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
        let operation = "send a monitor command to";
        self.object.require(Ability::Monitor, operation)?;
        let command = command.to_owned();
        self.object
            .call(operation, move |domain| {
                Ok(domain.qemu_monitor_command(&command, 0)?)
            })
            .await
    }
}

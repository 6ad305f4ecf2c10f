//! What libvirt's drivers can do, where it is known beforehand.
//!
//! Most drivers tell a missing call when it is made. VirtualBox's is described here, call by call,
//! after libvirt's table of it: what it lacks is refused before it is asked, so that it is refused
//! the same way whatever stands behind the connection.

mod prompts;
mod transport;

use std::borrow::Cow;
use std::fmt;

use virt_sys as sys;

use self::prompts::without_prompts;
use self::transport::{Sockets, past_the_embedded};
use crate::connection::Connection;
use crate::embedded;
use crate::error::{Cause, Error};

/// Something that not every driver of libvirt can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ability {
    /// Telling what happens to domains. Without it, ask for their state.
    DomainEvents,
    /// Keeping metadata, such as a label, in a domain's XML.
    Metadata,
    /// Starting a domain paused, or destroying it with the connection.
    StartOptions,
    /// Shutting down and rebooting in another way than the hypervisor's own.
    PowerModes,
    /// Ending a domain without killing its process.
    GracefulDestroy,
    /// Pressing the reset button.
    Reset,
    /// Talking to QEMU's monitor.
    Monitor,
    /// Telling the addresses of a domain's interfaces.
    InterfaceAddresses,
    /// Telling the host's memory that a domain has.
    MemoryStats,
    /// Opening a channel to the guest.
    OpenChannel,
    /// Telling what domains can have.
    DomainCapabilities,
    /// Networks under names that the caller chooses.
    Networks,
    /// Storage pools other than the driver's own one.
    StoragePools,
}

impl fmt::Display for Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DomainEvents => "events of domains",
            Self::Metadata => "metadata of domains",
            Self::StartOptions => "options for starting a domain",
            Self::PowerModes => "ways to shut down or reboot other than its own",
            Self::GracefulDestroy => "a graceful end of domains",
            Self::Reset => "a reset of domains",
            Self::Monitor => "a monitor of QEMU's",
            Self::InterfaceAddresses => "the addresses of domains",
            Self::MemoryStats => "the memory of domains on the host",
            Self::OpenChannel => "channels to guests",
            Self::DomainCapabilities => "the capabilities of domains",
            Self::Networks => "networks of a chosen name",
            Self::StoragePools => "storage pools",
        })
    }
}

/// One of libvirt's drivers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Driver {
    /// The scheme of its URIs.
    name: &'static str,
    lacks: &'static [Ability],
    /// The flags that it takes for removing a definition.
    undefine: u32,
}

/// A driver that is asked for everything, and says itself what it lacks.
static ANY: Driver = Driver {
    name: "",
    lacks: &[],
    undefine: u32::MAX,
};

static VBOX: Driver = Driver {
    name: "vbox",
    lacks: &[
        Ability::DomainEvents,
        Ability::Metadata,
        Ability::StartOptions,
        Ability::PowerModes,
        Ability::GracefulDestroy,
        Ability::Reset,
        Ability::Monitor,
        Ability::InterfaceAddresses,
        Ability::MemoryStats,
        Ability::OpenChannel,
        Ability::DomainCapabilities,
        // Its host-only networks get names of VirtualBox's own.
        Ability::Networks,
        Ability::StoragePools,
    ],
    undefine: sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA,
};

impl Driver {
    /// The driver that a URI names.
    pub(crate) fn of(uri: &str) -> &'static Self {
        match uri.split(['+', ':']).next() {
            Some(name) if name == VBOX.name => &VBOX,
            _ => &ANY,
        }
    }

    /// The flags that it takes for removing a definition.
    pub(crate) fn takes_to_undefine(&self, flags: u32) -> bool {
        flags & !self.undefine == 0
    }
}

/// What libvirt is asked to open.
///
/// With the feature `testing`, libvirt's test driver stands in for the machines behind
/// `vbox+test://`, and is asked for nothing that VirtualBox's driver lacks. libvirt itself knows no
/// such URI.
pub(crate) fn native_uri(uri: &str) -> Cow<'_, str> {
    if cfg!(feature = "testing")
        && let Some(rest) = uri.strip_prefix("vbox+test:")
    {
        return format!("test:{rest}").into();
    }
    match without_prompts(uri) {
        Cow::Borrowed(uri) if embedded::is_begun() => {
            past_the_embedded(uri, &Sockets::of_this_user())
        }
        native => native,
    }
}

impl Connection {
    /// Whether the driver can do this, as far as is known beforehand. One that says so may still
    /// answer [`Error::is_unsupported`].
    #[must_use]
    pub fn may(&self, ability: Ability) -> bool {
        !self.link.driver().lacks.contains(&ability)
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_names_the_driver_whatever_the_transport() {
        for uri in [
            "vbox:///session",
            "vbox+ssh://host/session",
            "vbox+test:///default",
        ] {
            assert_eq!(Driver::of(uri).name, "vbox", "{uri}");
        }
        for uri in ["qemu:///system", "test:///vbox", "vboxes:///x", ""] {
            assert_eq!(Driver::of(uri), &ANY, "{uri}");
        }
    }

    #[test]
    fn virtualbox_is_not_asked_to_remove_what_it_does_not_keep() {
        assert!(VBOX.takes_to_undefine(0));
        assert!(VBOX.takes_to_undefine(sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA));
        assert!(!VBOX.takes_to_undefine(sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE));
    }
}

//! What libvirt's drivers can do, where it is known beforehand.
//!
//! Most drivers tell a missing call when it is made. VirtualBox's is described here, call by call,
//! after libvirt's table of it: what it lacks is refused before it is asked, so that it is refused
//! the same way whatever stands behind the connection.

mod prompts;
mod transport;

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, Ordering};

use virt_sys as sys;

pub(crate) use self::prompts::without_prompts;
use self::transport::{Sockets, past_the_embedded};
use crate::ability::Ability;

/// Whether this process has opened the embedded driver, or is about to.
static EMBEDDED: AtomicBool = AtomicBool::new(false);

/// One of libvirt's drivers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Driver {
    /// The scheme of its URIs.
    pub(crate) name: &'static str,
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
        Ability::PowerModes,
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

    /// Whether it can do this, as far as is known beforehand.
    pub(crate) fn may(&self, ability: Ability) -> bool {
        !self.lacks.contains(&ability)
    }

    /// The flags that it takes for removing a definition.
    pub(crate) fn takes_to_undefine(&self, flags: u32) -> bool {
        flags & !self.undefine == 0
    }
}

/// Whether a libvirt URI leads to this host: it names no other, and no program (`ext`) that may lead anywhere. What is
/// no URI, such as the folder of the embedded driver, is this host's.
pub fn is_on_this_host(uri: &str) -> bool {
    uri.split_once("://")
        .is_none_or(|(scheme, rest)| rest.starts_with('/') && !scheme.ends_with("+ext"))
}

/// From now on libvirt knows the embedded driver in this process.
pub(crate) fn begin_embedded() {
    EMBEDDED.store(true, Ordering::Release);
}

/// Whether libvirt knows the embedded driver in this process.
pub(crate) fn knows_embedded() -> bool {
    EMBEDDED.load(Ordering::Acquire)
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
        Cow::Borrowed(uri) if knows_embedded() => past_the_embedded(uri, &Sockets::of_this_user()),
        native => native,
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
    fn a_uri_leads_to_this_host_where_it_names_no_other() {
        for uri in [
            "qemu:///system",
            "lxc:///",
            "qemu+unix:///system?socket=/s",
            "qemu+ssh:///system",
            "/run/user/1000/see-1",
        ] {
            assert!(is_on_this_host(uri), "{uri}");
        }
        for uri in [
            "qemu://host/system",
            "qemu+tcp://host/system",
            "qemu+ext:///system?command=/c",
        ] {
            assert!(!is_on_this_host(uri), "{uri}");
        }
    }

    #[test]
    fn virtualbox_is_not_asked_to_remove_what_it_does_not_keep() {
        assert!(VBOX.takes_to_undefine(0));
        assert!(VBOX.takes_to_undefine(sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA));
        assert!(!VBOX.takes_to_undefine(sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE));
    }
}

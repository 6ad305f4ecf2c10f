//! What not every driver of libvirt can do.

use std::fmt;

/// Something that not every driver of libvirt can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ability {
    /// Telling what happens to domains. Without it, ask for their state.
    DomainEvents,
    /// Keeping metadata, such as a label, in a domain's XML.
    Metadata,
    /// Shutting down and rebooting in another way than the hypervisor's own.
    PowerModes,
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
            Self::PowerModes => "ways to shut down or reboot other than its own",
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

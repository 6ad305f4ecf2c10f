//! libvirt's drivers: what each of them can do, in one table. A driver that is not in it is taken as
//! [`unknown`](UNKNOWN): SEE asks it for everything, and it says itself what it cannot do.

use see_core::ImageFormat;
use see_libvirt::ShutdownMode;

/// One of libvirt's drivers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Driver {
    /// The scheme of its URIs; empty for one that is not known.
    pub(crate) scheme: &'static str,
    /// The types of its domains; none where any is left to libvirt to judge.
    pub(crate) types: &'static [&'static str],
    /// What runs its machines.
    pub(crate) runner: Runner,
    /// How a guest is asked to switch itself off.
    pub(crate) shutdown: ShutdownMode,
    /// How a guest is asked to restart.
    pub(crate) reboot: ShutdownMode,
    /// Whether machines have a screen of which pictures can be taken.
    pub(crate) has_screen: bool,
    /// Whether its machines can be given a network that is made for them, with an address that libvirt tells.
    pub(crate) has_networks: bool,
    /// The name of its folders among libvirt's, such as `qemu` of `/run/libvirt/qemu` for state and
    /// `/var/log/libvirt/qemu` for logs; `None` where it is not known what it keeps of its domains.
    pub(crate) folders: Option<&'static str>,
    /// Whether machines can be given a serial port for the agent; over the network it is reached on any.
    pub(crate) has_agent_port: bool,
    /// What it takes as a disk.
    pub(crate) disk: DiskKind,
    /// Whether SEE's tests run machines on it.
    pub(crate) is_tried: bool,
}

/// What runs machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    /// An emulator, whose command line has the machine's UUID.
    Emulator,
    /// A controller with the guest's processes below it.
    Controller,
    /// Something that is not a process of its own, or not known.
    Unknown,
}

/// What a driver takes as a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DiskKind {
    /// A qcow2 over the base image, or a full copy of it.
    Overlay,
    /// A full copy in this format.
    Copy(ImageFormat),
    /// A folder with a root file system.
    Folder,
}

/// One that is not in the table, and what the others below differ from.
static UNKNOWN: Driver = Driver {
    scheme: "",
    types: &[],
    runner: Runner::Unknown,
    shutdown: ShutdownMode::Default,
    reboot: ShutdownMode::Default,
    has_screen: true,
    has_networks: false,
    folders: None,
    has_agent_port: false,
    disk: DiskKind::Overlay,
    is_tried: false,
};

static DRIVERS: [Driver; 9] = [
    Driver {
        scheme: "bhyve",
        types: &["bhyve"],
        disk: DiskKind::Copy(ImageFormat::Raw),
        ..UNKNOWN
    },
    Driver {
        scheme: "ch",
        types: &["hyperv", "kvm"],
        has_screen: false,
        disk: DiskKind::Copy(ImageFormat::Raw),
        ..UNKNOWN
    },
    Driver {
        scheme: "esx",
        types: &["vmware"],
        ..UNKNOWN
    },
    // A container has no power button: its first process is asked by a signal, `SIGTERM` for an end and `SIGHUP`
    // for a restart. libvirt's other way, `initctl`, is told as done also where nobody listens.
    Driver {
        scheme: "lxc",
        types: &["lxc"],
        runner: Runner::Controller,
        shutdown: ShutdownMode::Signal,
        reboot: ShutdownMode::Signal,
        has_screen: false,
        has_networks: true,
        folders: Some("lxc"),
        has_agent_port: true,
        disk: DiskKind::Folder,
        is_tried: true,
    },
    Driver {
        scheme: "qemu",
        types: &["qemu", "kvm"],
        runner: Runner::Emulator,
        shutdown: ShutdownMode::Acpi,
        reboot: ShutdownMode::Acpi,
        has_screen: true,
        has_networks: true,
        folders: Some("qemu"),
        has_agent_port: true,
        disk: DiskKind::Overlay,
        is_tried: true,
    },
    // libvirt's own, which runs nothing.
    Driver {
        scheme: "test",
        types: &["test"],
        is_tried: true,
        ..UNKNOWN
    },
    // It takes no choice of how a guest is asked: it presses the power button, or the reset button. Its disks have a
    // UUID each, and no two of them the same; its networks get names of its own.
    Driver {
        scheme: "vbox",
        types: &["vbox"],
        disk: DiskKind::Copy(ImageFormat::Vdi),
        ..UNKNOWN
    },
    Driver {
        scheme: "vz",
        types: &["vz"],
        ..UNKNOWN
    },
    Driver {
        scheme: "xen",
        types: &["xen"],
        ..UNKNOWN
    },
];

impl Driver {
    /// The driver at a location of the ledger's: a URI such as `qemu+ssh://host/system`, or the folder of the embedded
    /// one.
    pub(crate) fn of(location: &str) -> &'static Self {
        let scheme = driver_of(location);
        let known = DRIVERS.iter().find(|driver| driver.scheme == scheme);
        known.unwrap_or(&UNKNOWN)
    }

    /// Whether it has domains of this type, as far as is known here.
    pub(crate) fn takes(&self, kind: &str) -> bool {
        self.types.is_empty() || self.types.contains(&kind)
    }
}

/// The name of the driver at a location: `qemu` of `qemu+ssh://host/system`, and of the embedded driver's folder.
pub(crate) fn driver_of(location: &str) -> &str {
    match location.starts_with('/') {
        true => "qemu",
        false => location.split(['+', ':']).next().unwrap_or(location),
    }
}

/// Whether a libvirt URI means a user's own daemon.
pub(crate) fn is_session(uri: &str) -> bool {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    path.split('?').next() == Some("session")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_is_found_by_its_scheme_and_one_that_is_not_known_is_asked_for_everything() {
        assert!(DRIVERS.is_sorted_by(|one, next| one.scheme < next.scheme));
        assert_eq!(Driver::of("qemu+ssh://far/system").scheme, "qemu");
        assert_eq!(Driver::of("/run/user/1000/see-1").scheme, "qemu");
        assert_eq!(Driver::of("vbox+test:///default").scheme, "vbox");
        let unknown = Driver::of("hyperv://far");
        assert_eq!(unknown, &UNKNOWN);
        assert!(unknown.takes("hyperv"));
        assert!(!Driver::of("xen:///").takes("qemu"));
    }
}

//! The backends of SEE that are libvirt domains, and the collectors of what they make.
//!
//! | name | what it runs | details |
//! |---|---|---|
//! | `libvirt` | machines of any other driver of libvirt, as far as it goes | [`Libvirt`] |
//! | `lxc` | containers, which share the host's kernel | [`Lxc`] |
//! | `qemu` | whole machines, emulated or with KVM | [`Qemu`] |
//! | `vbox` | VirtualBox's machines | [`Vbox`] |
//!
//! A front end adds them all with [`register`].

#![warn(missing_docs)]

mod admission;
mod allocation;
mod channel;
mod domain;
mod driver;
mod embedded;
mod error;
mod host;
mod hypervisor;
mod label;
mod libvirt;
mod lxc;
mod machine;
mod network;
mod plain;
mod program;
mod qemu;
mod residue;
mod run_folder;
mod storage;
mod vbox;

use std::sync::Arc;

use see_core::ledger::Collector;
use see_core::{Registries, Result};

pub use libvirt::Libvirt;
pub use lxc::{Lxc, LxcConfiguration, LxcDomainSection, LxcFilesystem};
pub use machine::Native;
pub use plain::{PlainClone, PlainConfiguration, PlainDisk, PlainNetwork};
pub use qemu::{
    Acceleration, Clone, Disk, DomainSection, Graphics, Network, Qemu, QemuConfiguration,
};
pub use see_libvirt::embedded::end_process;
pub use see_libvirt::quiet_log;
pub use vbox::Vbox;

/// Adds every backend of this crate, and the collectors of what they make.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`](see_core::ErrorKind::AlreadyExists) where a name is taken.
pub fn register(registries: &mut Registries) -> Result<()> {
    registries.backends.add::<Libvirt>()?;
    registries.backends.add::<Lxc>()?;
    registries.backends.add::<Qemu>()?;
    registries.backends.add::<Vbox>()?;
    let collectors: [Arc<dyn Collector>; 8] = [
        Arc::new(domain::Domains),
        Arc::new(embedded::Roots),
        Arc::new(network::Networks),
        Arc::new(network::Seats),
        Arc::new(network::Walls),
        Arc::new(storage::ImageLeases),
        Arc::new(storage::Pools),
        Arc::new(storage::RemoteVolumes),
    ];
    for collector in collectors {
        registries.collectors.add(collector)?;
    }
    Ok(())
}

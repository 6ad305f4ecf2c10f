//! The image providers of SEE: where the disk images of sandboxes come from.
//!
//! | name | what it gives | details |
//! |---|---|---|
//! | `dummy` | a file of this host | [`Dummy`] |
//! | `libvirt-pool` | a volume of a storage pool of this host's libvirt; feature `libvirt-pool` | `LibvirtPool` |
//!
//! A front end adds them all with [`register`].

pub mod cache;
pub mod client;
mod dummy;
#[cfg(feature = "libvirt-pool")]
mod libvirt_pool;
#[cfg(feature = "testing")]
pub mod testing;

use see_core::{Registries, Result};

pub use dummy::{Dummy, DummyConfiguration};
#[cfg(feature = "libvirt-pool")]
pub use libvirt_pool::{LibvirtPool, LibvirtPoolConfiguration};

/// Adds every image provider of this crate.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`](see_core::ErrorKind::AlreadyExists) where a name is taken.
pub fn register(registries: &mut Registries) -> Result<()> {
    registries.images.add::<Dummy>()?;
    #[cfg(feature = "libvirt-pool")]
    registries.images.add::<LibvirtPool>()?;
    Ok(())
}

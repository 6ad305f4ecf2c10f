//! The image providers of SEE: where the disk images of sandboxes come from.
//!
//! | name | what it gives | details |
//! |---|---|---|
//! | `dummy` | a file of this host | [`Dummy`] |
//! | `glance` | an image of OpenStack's image service | [`Glance`] |
//! | `http` | a file on a web server | [`Http`] |
//! | `libvirt-pool` | a volume of a storage pool of this host's libvirt; feature `libvirt-pool` | `LibvirtPool` |
//! | `s3` | an object in a bucket of S3 | [`S3`] |
//!
//! A front end adds them all with [`register`].

pub mod cache;
pub mod client;
mod dummy;
mod glance;
mod http;
mod hypervisor;
#[cfg(feature = "libvirt-pool")]
mod libvirt_pool;
mod metadata;
mod name;
mod pool;
mod s3;
#[cfg(feature = "testing")]
pub mod testing;
mod text;

use see_core::{Registries, Result};

pub use dummy::{Dummy, DummyConfiguration};
pub use glance::{EndpointInterface, Glance, GlanceConfiguration, OpenStackLogin};
pub use http::{Http, HttpAuth, HttpConfiguration};
#[cfg(feature = "libvirt-pool")]
pub use libvirt_pool::{LibvirtPool, LibvirtPoolConfiguration};
pub use pool::PoolConfiguration;
pub use s3::{AddressingStyle, S3, S3Auth, S3Configuration};

/// Adds every image provider of this crate.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`](see_core::ErrorKind::AlreadyExists) where a name is taken.
pub fn register(registries: &mut Registries) -> Result<()> {
    registries.images.add::<Dummy>()?;
    registries.images.add::<Glance>()?;
    registries.images.add::<Http>()?;
    #[cfg(feature = "libvirt-pool")]
    registries.images.add::<LibvirtPool>()?;
    registries.images.add::<S3>()?;
    Ok(())
}

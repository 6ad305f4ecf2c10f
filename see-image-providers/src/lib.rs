//! The image providers of SEE: where the disk images of sandboxes come from.
//!
//! | name | what it gives | details |
//! |---|---|---|
//! | `dummy` | a file of this host | [`Dummy`] |
//!
//! A front end adds them all with [`register`].

mod dummy;

use see_core::{Registries, Result};

pub use dummy::{Dummy, DummyConfiguration};

/// Adds every image provider of this crate.
///
/// # Errors
/// [`ErrorKind::AlreadyExists`](see_core::ErrorKind::AlreadyExists) where a name is taken.
pub fn register(registries: &mut Registries) -> Result<()> {
    registries.images.add::<Dummy>()?;
    Ok(())
}

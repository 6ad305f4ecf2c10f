//! The engine of every provider that downloads: a store of complete, verified images, filled from servers
//! that may break, lie and change.
//!
//! A provider describes its server as an [`Origin`], and asks the [`Cache`]. What a server sends is hostile
//! until it is verified, and is never in anyone's way: a download is a file of its own until it is complete
//! and on disk.

mod digest;
mod origin;
mod settings;

use see_core::Result;

pub use self::digest::{Algorithm, Digest, Hasher};
pub use self::origin::{ByteRange, Object, Origin, Validator};
pub use self::settings::{CacheConfiguration, Delivery, STORE_VARIABLE, Unpack, default_folder};

use self::settings::Settings;

/// The images that a provider's configuration speaks of, and the way to more of them.
#[derive(Debug, Clone)]
pub struct Cache {
    settings: Settings,
}

impl Cache {
    /// With these settings. Nothing is opened or made yet.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](see_core::ErrorKind::Configuration) for a setting that cannot work.
    pub fn new(configuration: CacheConfiguration) -> Result<Self> {
        Ok(Self {
            settings: Settings::new(configuration)?,
        })
    }

    /// The store's folder.
    pub fn folder(&self) -> &std::path::Path {
        &self.settings.folder
    }
}

//! The engine of every provider that downloads: a store of complete, verified images, filled from servers
//! that may break, lie and change.
//!
//! A provider describes its server as an [`Origin`], and asks [`Cache::image`]. The engine looks which version
//! there is, and gives out the one in its [`Store`] where that is the same. Otherwise it downloads it:
//! resumed after a break, by one process however many ask, hashed on the way, unpacked where that is asked
//! for, and looked at before anyone opens it. What a server sends is hostile until it is verified, and is
//! never in anyone's way: a download is a file of its own until it is complete and on disk.

mod answer;
mod digest;
mod evict;
mod failure;
mod fetch;
mod folder;
mod inspect;
mod origin;
mod partial;
mod place;
mod record;
mod settings;
mod store;
mod transfer;
mod unpack;
mod validator;

use std::path::PathBuf;

use see_core::{Error, ErrorKind, Image, ImageRequest, Result};

pub use self::digest::{Algorithm, Digest, Hasher};
pub use self::evict::Collected;
pub use self::origin::{ByteRange, Object, Origin};
pub use self::settings::{CacheConfiguration, Delivery, STORE_VARIABLE, Unpack, default_folder};
pub use self::store::{Store, StoredImage};
pub use self::validator::Validator;

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
    /// [`ErrorKind::Configuration`] for a setting that cannot work.
    pub fn new(configuration: CacheConfiguration) -> Result<Self> {
        Ok(Self {
            settings: Settings::new(configuration)?,
        })
    }

    /// The store's folder.
    pub fn folder(&self) -> &std::path::Path {
        &self.settings.folder
    }

    /// The origin's image as it is wanted: complete and verified, and leased to the request's environment.
    ///
    /// # Errors
    /// What the origin reports; [`ErrorKind::Unavailable`] and [`ErrorKind::Timeout`] where the server fails
    /// for longer than the patience of the settings; [`ErrorKind::Guest`] where what it sends is not the image
    /// that was promised, or points outside itself; [`ErrorKind::Exhausted`] where it is too large, for the
    /// disk or for the delivery; [`ErrorKind::Stopped`].
    pub async fn image(
        &self,
        origin: &dyn Origin,
        delivery: &Delivery,
        request: &ImageRequest<'_>,
    ) -> Result<Image> {
        let path = fetch::fetch(&self.settings, origin, delivery, request)
            .await
            .map_err(|error| named(error, origin))?;
        Ok(match delivery.path {
            // A copy there is the user's.
            Some(_) => Image::new(path),
            None => Image::stored(path),
        })
    }
}

/// An error names the image that it is about, unless it names something closer.
fn named(error: Error, origin: &dyn Origin) -> Error {
    match error.subject_text() {
        Some(_) => error,
        None => error.subject(origin.identity()),
    }
}

/// Runs what blocks where that is allowed.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Internal, "work on the image store panicked").caused_by(error))
    })
}

/// The store, opened where that blocks nobody.
async fn open(folder: PathBuf) -> Result<Store> {
    blocking(move || Store::open(&folder)).await
}

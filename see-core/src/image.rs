//! Where the disk images of sandboxes come from.

mod format;
mod progress;
mod registry;
mod request;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::de::DeserializeOwned;

use crate::config::{ConfigPath, Located};
use crate::{Error, Result};

pub use format::ImageFormat;
pub use progress::{ImagePhase, ImageProgress, ImageReport};
pub use registry::ImageRegistry;
pub use request::ImageRequest;

/// A disk image that is there: absolute, local, complete, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its absolute path. It is never written.
    pub path: PathBuf,
    /// Whether it lies in a store of the provider's own, which never changes its content. A backend may give a
    /// sandbox a hard link to such a file; to a user's own file it makes none.
    pub is_stored: bool,
}

impl Image {
    /// A file of the user's.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            is_stored: false,
        }
    }

    /// A file in the provider's own store.
    pub fn stored(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            is_stored: true,
        }
    }
}

/// A source of disk images that can be named in a configuration.
///
/// ```
/// use async_trait::async_trait;
/// use see_core::config::Located;
/// use see_core::{Image, ImageProvider, ImageRequest, Result};
///
/// /// Images that lie in one folder.
/// struct Shelf(std::path::PathBuf);
///
/// /// What the shelf wants to know.
/// #[derive(serde::Deserialize)]
/// struct ShelfConfiguration {
///     /// The image's absolute path.
///     path: std::path::PathBuf,
/// }
///
/// #[async_trait]
/// impl ImageProvider for Shelf {
///     const NAME: &'static str = "shelf";
///     type Configuration = ShelfConfiguration;
///
///     fn prepare(configuration: ShelfConfiguration, _name: Option<Located<String>>) -> Result<Self> {
///         Ok(Self(configuration.path))
///     }
///
///     async fn image(&self, _request: &ImageRequest<'_>) -> Result<Image> {
///         Ok(Image::new(&self.0))
///     }
/// }
/// ```
#[async_trait]
pub trait ImageProvider: Send + Sync + Sized + 'static {
    /// The name in configurations.
    const NAME: &'static str;
    /// Other names that mean the same.
    const ALIASES: &'static [&'static str] = &[];
    /// What stands under `provider_configuration`.
    type Configuration: DeserializeOwned + Send;

    /// Checks the configuration; `name` is the image's `name` or `uri` beside the provider's name.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) and the place, where the
    /// configuration cannot work. Nothing is fetched yet.
    fn prepare(configuration: Self::Configuration, name: Option<Located<String>>) -> Result<Self>;

    /// What is to be had, for people: an address, a path. Never a secret, which may well stand in a
    /// configuration's address. The provider's name where it says nothing else.
    fn describe(&self) -> String {
        Self::NAME.to_owned()
    }

    /// The image, fetched if need be.
    ///
    /// It is there until the sandbox of `request`'s environment is gone: a provider that removes images by
    /// itself holds it with a [lease](ImageRequest::lease). Several may ask for one image at the same time,
    /// in this process and in others.
    ///
    /// # Errors
    /// When it is not to be had: [`ErrorKind::NotFound`](crate::ErrorKind::NotFound), with advice, where the
    /// source has no such image. A long fetch looks at the request's stop, and leaves nothing broken behind
    /// whenever it ends.
    async fn image(&self, request: &ImageRequest<'_>) -> Result<Image>;
}

/// An image provider that is prepared, whatever its type.
#[derive(Clone)]
pub struct ImageSource {
    name: &'static str,
    provider: Arc<dyn Fetch>,
}

#[async_trait]
trait Fetch: Send + Sync {
    fn described(&self) -> String;
    async fn fetch(&self, request: &ImageRequest<'_>) -> Result<Image>;
}

#[async_trait]
impl<T: ImageProvider> Fetch for T {
    fn described(&self) -> String {
        self.describe()
    }

    async fn fetch(&self, request: &ImageRequest<'_>) -> Result<Image> {
        self.image(request).await
    }
}

impl ImageSource {
    /// A provider that is ready to be asked.
    pub fn new<T: ImageProvider>(provider: T) -> Self {
        Self {
            name: T::NAME,
            provider: Arc::new(provider),
        }
    }

    /// A file that is there.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) and the place, where the path holds no
    /// regular file.
    pub fn local(path: &ConfigPath) -> Result<Self> {
        let refuse = |message: String| Error::configuration(path.place().clone(), message);
        let absolute = path.path().canonicalize().map_err(|error| {
            refuse(format!(
                "found the path {}, which cannot be read: {error}",
                path.written()
            ))
            .advice(
                "expected an existing disk image; relative paths start at the file they stand in",
            )
        })?;
        if !absolute.is_file() {
            return Err(refuse(format!(
                "found the path {}, which is not a file",
                path.written()
            ))
            .advice("expected a disk image"));
        }
        Ok(Self {
            name: "path",
            provider: Arc::new(LocalFile(absolute)),
        })
    }

    /// The provider's name.
    pub fn provider(&self) -> &'static str {
        self.name
    }

    /// What is to be had there, for people, as [`ImageProvider::describe`].
    pub fn describe(&self) -> String {
        self.provider.described()
    }

    /// The image, fetched if need be, as [`ImageProvider::image`].
    ///
    /// # Errors
    /// What the provider reports, with its name.
    pub async fn image(&self, request: &ImageRequest<'_>) -> Result<Image> {
        request.reporter().begin(self.name);
        self.provider
            .fetch(request)
            .await
            .map_err(|error| error.during(format!("image provider {}", self.name)))
    }
}

struct LocalFile(PathBuf);

#[async_trait]
impl Fetch for LocalFile {
    fn described(&self) -> String {
        self.0.display().to_string()
    }

    async fn fetch(&self, _request: &ImageRequest<'_>) -> Result<Image> {
        Ok(Image::new(&self.0))
    }
}

impl fmt::Debug for ImageSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ImageSource").field(&self.name).finish()
    }
}

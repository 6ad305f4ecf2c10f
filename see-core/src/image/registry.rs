//! The image providers that a configuration can name.

use serde::Deserialize;

use super::{ImageProvider, ImageSource};
use crate::Result;
use crate::config::{Configuration, Located};
use crate::names::Names;

type PrepareImage = fn(Configuration, Option<Located<String>>) -> Result<ImageSource>;

/// The image providers that are known.
#[derive(Debug, Default)]
pub struct ImageRegistry(Names<PrepareImage>);

/// An image section that names its provider.
#[derive(Debug, Deserialize)]
struct ImageSection {
    provider: Located<String>,
    #[serde(alias = "uri")]
    name: Option<Located<String>>,
    provider_configuration: Option<Configuration>,
}

impl ImageRegistry {
    /// Registers an image provider.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where its name or an alias is taken.
    pub fn add<T: ImageProvider>(&mut self) -> Result<()> {
        let prepare: PrepareImage = |configuration, name| {
            T::prepare(configuration.deserialize()?, name).map(ImageSource::new)
        };
        self.0.add("image provider", T::NAME, T::ALIASES, prepare)
    }

    /// The names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.entries.keys().copied()
    }

    /// Prepares what an image section names: a path, or an object with `provider`, `name` or `uri`, and
    /// `provider_configuration`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] and the place, where the section, the provider's name or its
    /// configuration is wrong, or the path holds no file.
    pub fn prepare(&self, section: &Configuration) -> Result<ImageSource> {
        if section.as_str().is_some() {
            return ImageSource::local(&section.deserialize()?);
        }
        let image: ImageSection = section.deserialize()?;
        let prepare = self
            .0
            .find("image provider", &image.provider)
            .map_err(|error| error.at(image.provider.place().clone()))?;
        let configuration = image
            .provider_configuration
            .unwrap_or_else(|| section.empty_child("provider_configuration"));
        prepare(configuration, image.name).map_err(|error| error.or_at(&section.place()))
    }
}

//! An image that is a file of this host already.

use std::path::PathBuf;

use async_trait::async_trait;
use see_core::config::{ConfigPath, Located};
use see_core::{Error, ErrorKind, Image, ImageProvider, ImageRequest, Result};
use serde::Deserialize;

/// The provider `dummy`: a file of this host, named in one of three ways.
///
/// ```json
/// {"provider": "dummy", "provider_configuration": {"path": "guest.qcow2"}}
/// {"provider": "dummy", "name": "guest.qcow2", "provider_configuration": {"path": "/images"}}
/// {"provider": "dummy", "uri": "/images/guest.qcow2"}
/// ```
///
/// Relative paths start at the folder of the file they stand in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dummy {
    image: PathBuf,
}

/// What stands under `provider_configuration`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DummyConfiguration {
    /// The image, or with `name` the folder that it lies in.
    pub path: Option<ConfigPath>,
}

#[async_trait]
impl ImageProvider for Dummy {
    const NAME: &'static str = "dummy";
    const ALIASES: &'static [&'static str] = &["see.image_providers.DummyProvider"];
    type Configuration = DummyConfiguration;

    fn prepare(configuration: DummyConfiguration, name: Option<Located<String>>) -> Result<Self> {
        let path = match (configuration.path, name) {
            (Some(path), None) => path,
            (None, Some(uri)) => {
                let place = uri.place().clone();
                ConfigPath::new(uri.into_inner(), place)
            }
            (Some(folder), Some(name)) => {
                crate::name::beneath(&name, "the folder `path`")?;
                let folder = folder.existing_folder("the folder of the disk image")?;
                let joined = folder.join(name.as_str());
                let joined = joined.to_str().ok_or_else(|| {
                    Error::configuration(name.place().clone(), "the image's path is not UTF-8")
                })?;
                ConfigPath::new(joined, name.place().clone())
            }
            (None, None) => {
                return Err(Error::new(
                    ErrorKind::Configuration,
                    "the provider `dummy` is told no image",
                )
                .advice("give `provider_configuration.path`, or `uri`"));
            }
        };
        let image = path.existing_file("a disk image")?;
        Ok(Self { image })
    }

    fn describe(&self) -> String {
        self.image.display().to_string()
    }

    async fn image(&self, _request: &ImageRequest<'_>) -> Result<Image> {
        // It was there when the configuration was checked; whoever opens it finds out if not.
        Ok(Image::new(&self.image))
    }
}

#[cfg(test)]
mod tests {
    use see_core::config::Configuration;
    use see_core::ledger::Ledger;
    use see_core::{Identifier, Registries, Stop};

    use super::*;

    async fn image(folder: &std::path::Path, json: &str) -> Result<Image> {
        let mut registries = Registries::new();
        crate::register(&mut registries)?;
        let section = Configuration::from_str(folder.join("run.json"), json)?;
        let source = registries.images.prepare(&section)?;
        let ledger = Ledger::open(folder.join("state")).await?;
        let record = ledger.begin(Identifier::random(), "").await?;
        let stop = Stop::new();
        source
            .image(&ImageRequest::new(&record, &stop.token()))
            .await
    }

    #[tokio::test]
    async fn every_way_of_naming_the_file_finds_it() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("images of ü");
        std::fs::create_dir(&inner).unwrap();
        let file = inner.join("guest.qcow2");
        std::fs::write(&file, "image").unwrap();
        let absolute = serde_json::Value::from(file.to_str().unwrap());
        for json in [
            r#"{"provider": "dummy", "provider_configuration": {"path": "images of ü/guest.qcow2"}}"#.to_owned(),
            r#"{"provider": "see.image_providers.DummyProvider", "name": "guest.qcow2",
                "provider_configuration": {"path": "images of ü"}}"#.to_owned(),
            r#"{"provider": "dummy", "uri": "images of ü/guest.qcow2"}"#.to_owned(),
            format!(r#"{{"provider": "dummy", "uri": {absolute}}}"#),
        ] {
            let found = image(folder.path(), &json).await.unwrap();
            assert_eq!(found.path, file, "{json}");
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_told_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        for (json, part) in [
            (r#"{"provider": "dummy"}"#, "is told no image"),
            (
                r#"{"provider": "dummy", "uri": "missing.qcow2"}"#,
                "found nothing",
            ),
            (
                r#"{"provider": "dummy", "name": "a", "provider_configuration": {"path": "missing"}}"#,
                "expected the folder",
            ),
            (
                r#"{"provider": "dummy", "provider_configuration": {"path": "."}}"#,
                "found a folder",
            ),
            (
                r#"{"provider": "dummy", "provider_configuration": {"paht": "a"}}"#,
                "`path`",
            ),
        ] {
            let error = image(folder.path(), json).await.unwrap_err();
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{text}");
            assert!(text.contains(part), "{json}: {text}");
            assert!(text.contains("run.json:1:"), "{json}: {text}");
        }
    }
}

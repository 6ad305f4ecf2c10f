//! Field types that keep the place of their value.

use std::fmt;
use std::fs::Metadata;
use std::marker::PhantomData;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Visitor};

use super::{Configuration, Origin, Place, hand};
use crate::{Error, Result};

/// A value and where it stands, for errors that show only later: a name that nobody registered, a file
/// that is not there.
///
/// ```
/// use see_core::config::{Configuration, Located};
///
/// #[derive(serde::Deserialize)]
/// struct Agent {
///     port: Located<u16>,
/// }
///
/// let agent: Agent = Configuration::from_str("run.json", r#"{"port": 8080}"#)?.deserialize()?;
/// assert_eq!(*agent.port, 8080);
/// assert_eq!(agent.port.place().to_string(), "run.json:1:10: port");
/// # Ok::<(), see_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located<T> {
    value: T,
    place: Place,
}

impl<T> Located<T> {
    /// A value at a place.
    pub fn new(value: T, place: Place) -> Self {
        Self { value, place }
    }

    /// Where it stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The value alone.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Display> fmt::Display for Located<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Located<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Locating<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Locating<T> {
            type Value = Located<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Self::Value, D::Error> {
                let node = hand::take();
                let place = node.map_or_else(|| Configuration::empty().place(), |n| n.place());
                T::deserialize(deserializer).map(|value| Located { value, place })
            }
        }

        deserializer.deserialize_newtype_struct(hand::LOCATED, Locating(PhantomData))
    }
}

impl<'de> Deserialize<'de> for Configuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Taking;

        impl<'de> Visitor<'de> for Taking {
            type Value = Configuration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(
                self,
                deserializer: D,
            ) -> Result<Configuration, D::Error> {
                match hand::take() {
                    Some(node) => Ok(node),
                    None => {
                        serde_json::Value::deserialize(deserializer).map(Configuration::from_json)
                    }
                }
            }
        }

        deserializer.deserialize_newtype_struct(hand::TREE, Taking)
    }
}

/// A path; a relative one starts at the folder of the file it was written in.
///
/// One from the command line or a program starts at the working folder. `~` has no meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigPath {
    written: String,
    path: PathBuf,
    place: Place,
}

impl ConfigPath {
    /// The path `written` at `place`.
    pub fn new(written: impl Into<String>, place: Place) -> Self {
        let written = written.into();
        let path = match &place.origin {
            Origin::File { path, .. } => match path.parent() {
                Some(folder) => folder.join(&written),
                None => PathBuf::from(&written),
            },
            Origin::Override(_) | Origin::Program => PathBuf::from(&written),
        };
        Self {
            written,
            path,
            place,
        }
    }

    /// The path to use. Relative to the working folder, where the file itself was named so.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The absolute path of the regular file that is there; `what` names it in the error: `a disk image`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) and the place, where there is none.
    pub fn existing_file(&self, what: &str) -> Result<PathBuf> {
        self.existing(what, Metadata::is_file)
    }

    /// The absolute path of the folder that is there; `what` names it in the error.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) and the place, where there is none.
    pub fn existing_folder(&self, what: &str) -> Result<PathBuf> {
        self.existing(what, Metadata::is_dir)
    }

    fn existing(&self, what: &str, is: fn(&Metadata) -> bool) -> Result<PathBuf> {
        let refused = |found: &str| {
            let path = self.path.display();
            let message = format!("expected {what} at `{path}`, found {found}");
            Error::configuration(self.place.clone(), message)
        };
        match std::fs::metadata(&self.path) {
            Ok(metadata) if is(&metadata) => std::path::absolute(&self.path)
                .map_err(|error| refused("no working folder").caused_by(error)),
            Ok(metadata) if metadata.is_dir() => Err(refused("a folder")),
            Ok(metadata) if metadata.is_file() => Err(refused("a file")),
            Ok(_) => Err(refused("neither a file nor a folder")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let refused = refused("nothing");
                let is_relative = Path::new(&self.written).is_relative();
                Err(match &self.place.origin {
                    Origin::File { .. } if is_relative => {
                        refused.advice("a relative path starts at the folder of its file")
                    }
                    _ => refused,
                })
            }
            Err(error) => Err(refused(&error.to_string()).caused_by(error)),
        }
    }

    /// The path as it was written.
    pub fn written(&self) -> &str {
        &self.written
    }

    /// Where it stands.
    pub fn place(&self) -> &Place {
        &self.place
    }
}

impl Deref for ConfigPath {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for ConfigPath {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

impl<'de> Deserialize<'de> for ConfigPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;

        let Located { value, place } = Located::<String>::deserialize(deserializer)?;
        if value.is_empty() {
            return Err(D::Error::custom("expected a path, found an empty string"));
        }
        if value.contains('\0') {
            return Err(D::Error::custom(
                "expected a path, found a string with a NUL in it",
            ));
        }
        Ok(Self::new(value, place))
    }
}

//! What a configuration says about the store and about one image in it.

use std::path::PathBuf;
use std::time::Duration;

use see_core::config::{ConfigPath, DurationValue, Located, Size};
use see_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::digest::Digest;

/// The environment variable that names the store's folder.
pub const STORE_VARIABLE: &str = "SEE_IMAGE_STORE";

/// What stands under a provider's key `cache`: the store and the patience of its downloads.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheConfiguration {
    /// The store's folder. By default `$SEE_IMAGE_STORE`, else `$XDG_CACHE_HOME/see/images`, else
    /// `~/.cache/see/images`. Its owner alone may reach it.
    pub folder: Option<ConfigPath>,
    /// How much the complete images of the store may take together: after a download the least recently used
    /// ones that nobody uses go. No limit by default.
    pub limit: Option<Size>,
    /// Whether an image that is complete in the store serves when its server cannot be reached. `true`.
    pub offline: Option<bool>,
    /// How long a connection may bring no byte before it is opened anew. 30 s, and never more than `patience`.
    pub stall: Option<DurationValue>,
    /// How long a download may make no progress at all, over all its tries, before it fails. 2 min.
    pub patience: Option<DurationValue>,
    /// How many ranges of one image are fetched at once, 1 to 8. 1 by default.
    pub streams: Option<u8>,
}

/// The same with its defaults in.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) folder: PathBuf,
    pub(crate) limit: Option<u64>,
    pub(crate) offline: bool,
    pub(crate) stall: Duration,
    pub(crate) patience: Duration,
    pub(crate) streams: usize,
}

const STALL: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(120);
const STREAMS: u8 = 1;
const STREAMS_LIMIT: u8 = 8;

impl Settings {
    pub(crate) fn new(configuration: CacheConfiguration) -> Result<Self> {
        let folder = match configuration.folder {
            Some(folder) => folder.path().to_owned(),
            None => default_folder()?,
        };
        if !folder.is_absolute() {
            return Err(Error::new(
                ErrorKind::Configuration,
                "the image store's folder must be an absolute path",
            )
            .subject(folder.display()));
        }
        let streams = configuration.streams.unwrap_or(STREAMS);
        if !(1..=STREAMS_LIMIT).contains(&streams) {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!("found {streams} `streams`, expected 1 to {STREAMS_LIMIT}"),
            ));
        }
        let patience = configuration.patience.map_or(PATIENCE, Duration::from);
        let stall = configuration.stall.map_or(STALL, Duration::from);
        Ok(Self {
            folder,
            limit: configuration.limit.map(u64::from),
            offline: configuration.offline.unwrap_or(true),
            // Who has less patience does not wait longer for one byte either.
            stall: stall.min(patience),
            patience,
            streams: usize::from(streams),
        })
    }
}

/// Where the store lies when no configuration says otherwise.
///
/// # Errors
/// [`ErrorKind::Configuration`] where the environment names no folder.
pub fn default_folder() -> Result<PathBuf> {
    let of = |name: &str| {
        let value = std::env::var_os(name)?;
        (!value.is_empty()).then(|| PathBuf::from(value))
    };
    if let Some(folder) = of(STORE_VARIABLE) {
        return Ok(folder);
    }
    // The XDG specification has relative paths ignored.
    let cache = of("XDG_CACHE_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| of("HOME").map(|home| home.join(".cache")));
    match cache {
        Some(cache) => Ok(cache.join("see/images")),
        None => Err(Error::new(
            ErrorKind::Configuration,
            "there is no folder for images: neither XDG_CACHE_HOME nor HOME is set",
        )
        .advice(format!(
            "set {STORE_VARIABLE}, or `cache.folder` of the provider"
        ))),
    }
}

/// What is wanted of one image besides its bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Where python-see's `path` wants it: a folder gets it under its object's name, a file is replaced when
    /// the server's image is another one. `None`: the path in the store is given out.
    pub path: Option<PathBuf>,
    /// Whether the bytes are unpacked on their way.
    pub unpack: Unpack,
    /// The most bytes that the image may have, after unpacking.
    pub max_size: Option<u64>,
    /// Digests that the configuration pins; checked beside the server's, of the bytes as they are sent.
    pub digests: Vec<Digest>,
}

impl Delivery {
    /// What the keys say that every provider has that downloads; `checksum` is of the bytes as they are sent.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for a checksum that is none, or that proves nothing.
    pub fn new(
        path: Option<ConfigPath>,
        unpack: Option<Unpack>,
        max_size: Option<Size>,
        checksum: Option<&Located<String>>,
    ) -> Result<Self> {
        Ok(Self {
            path: path.map(|path| path.path().to_owned()),
            unpack: unpack.unwrap_or_default(),
            max_size: max_size.map(u64::from),
            digests: checksum.map(pinned).transpose()?.into_iter().collect(),
        })
    }
}

/// A digest that the configuration pins: one that proves something.
fn pinned(text: &Located<String>) -> Result<Digest> {
    let digest = Digest::parse(text).map_err(|error| error.or_at(text.place()))?;
    if digest.is_strong() {
        return Ok(digest);
    }
    let message = format!(
        "found a checksum by {}, which anyone can forge",
        digest.algorithm().name()
    );
    Err(Error::configuration(text.place().clone(), message)
        .advice("give sha256 or sha512: `sha256sum` computes it"))
}

/// Whether a `.gz`, `.xz` or `.zst` is unpacked while it is downloaded; the bytes tell, not the name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Unpack {
    /// `false`: the image is what the server sends.
    #[default]
    Never,
    /// `true`: what is sent has to be packed.
    Always,
    /// `"auto"`: when it is packed.
    Auto,
}

impl<'de> Deserialize<'de> for Unpack {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Unpack;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("true, false or \"auto\"")
            }

            fn visit_bool<E>(self, always: bool) -> Result<Unpack, E> {
                Ok(if always {
                    Unpack::Always
                } else {
                    Unpack::Never
                })
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Unpack, E> {
                if text == "auto" {
                    return Ok(Unpack::Auto);
                }
                Err(E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

//! What the store writes down beside the bytes.

use std::ffi::OsString;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::digest::{Algorithm, Digest, Hasher};
use super::settings::Unpack;

/// A complete image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageRecord {
    /// Of the bytes in the store; also the image's name there.
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// QEMU's name of the format.
    pub(crate) format: String,
    /// When it was complete, in seconds since 1970.
    pub(crate) completed: u64,
    /// The identities under which it was asked for, the latest last.
    pub(crate) origins: Vec<String>,
}

/// What an identity led to the last time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OriginRecord {
    pub(crate) identity: String,
    pub(crate) version: String,
    /// The object's name then.
    pub(crate) name: String,
    /// The image in the store.
    pub(crate) image: Digest,
    /// Of the bytes as they were sent: those that were computed.
    pub(crate) sent: Vec<Digest>,
    /// Whether what was sent was unpacked.
    pub(crate) unpacked: bool,
    /// Whether the server was believed without proof of who it is.
    pub(crate) insecure: bool,
}

impl OriginRecord {
    /// The identity as the image names it: with a note where the server was not proven to be the one.
    pub(crate) fn shown(&self) -> String {
        const INSECURE: &str = " (insecure)";
        match self.insecure && !self.identity.ends_with(INSECURE) {
            true => format!("{}{INSECURE}", self.identity),
            false => self.identity.clone(),
        }
    }
}

/// A download that is not complete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartialRecord {
    pub(crate) identity: String,
    pub(crate) version: String,
    pub(crate) total: Option<u64>,
    /// The boot of the host in which it is to be trusted: after a loss of power a file may end in anything.
    pub(crate) boot: String,
}

/// A copy of an image at a path of the user's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CopyRecord {
    /// Whole, whatever bytes are in it.
    pub(crate) path: OsString,
    pub(crate) image: Digest,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) changed: (i64, i64),
}

/// The name by which the store knows an identity, whatever characters are in it.
///
/// What came from a server without proof of who it is has a name of its own, so that whoever asks for the proof
/// never gets it.
pub(crate) fn key(identity: &str, unpack: Unpack, insecure: bool) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(identity.as_bytes());
    hasher.update(match unpack {
        Unpack::Never => b"\0never",
        Unpack::Always => b"\0always",
        Unpack::Auto => b"\0auto",
    });
    if insecure {
        hasher.update(b"\0insecure");
    }
    hasher.finish().hex()
}

/// The name of an image in the store.
pub(crate) fn image_name(digest: &Digest) -> String {
    format!("{}-{}", digest.algorithm().name(), digest.hex())
}

/// The digest that a name in the store says; `None` for other files.
pub(crate) fn digest_of(name: &str) -> Option<Digest> {
    let (algorithm, hex) = name.split_once('-')?;
    let digest = Digest::of_hex(Algorithm::of_name(algorithm)?, hex).ok()?;
    (image_name(&digest) == name).then_some(digest)
}

/// Now, in seconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or(Duration::ZERO).as_secs()
}

/// What names this boot of the host.
pub(crate) fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

//! The wall between a provider and the engine: who has an image, and how it is asked for.

use async_trait::async_trait;
use reqwest::Request;
use see_core::{Error, ErrorKind, Result, StopToken};

use super::digest::Digest;
use super::validator::Validator;
use crate::client::Client;

/// One image at one server, as a provider knows it.
///
/// The engine asks in this order: [`resolve`](Self::resolve), and then, unless that version is in the store
/// already, [`request`](Self::request) as often as the transfer needs. It follows redirects, resumes, retries
/// and checks by itself.
#[async_trait]
pub trait Origin: Send + Sync {
    /// Which image at which server this is, always the same words for the same: it is written into the store
    /// and shown by `seectl image ls`, so it holds no secret. Such as `https://example.org/guest.qcow2`.
    fn identity(&self) -> String;

    /// What sends the requests.
    fn client(&self) -> &Client;

    /// The name that the image gets in a folder, where that is known without asking the server.
    fn name(&self) -> Option<String> {
        None
    }

    /// Looks which version of the image there is now.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] or [`ErrorKind::Timeout`] where the server cannot be asked,
    /// [`ErrorKind::NotFound`] where it has no such image, [`ErrorKind::PermissionDenied`] where it refuses.
    /// A long look watches `stop`.
    async fn resolve(&self, stop: &StopToken) -> Result<Object>;

    /// A request for the bytes of that version, authorised for its own host and for no other.
    ///
    /// The engine puts `Range`, `If-Range` and `Accept-Encoding` into it afterwards, so a signature must not
    /// cover these; `range` is told for origins that need it elsewhere.
    ///
    /// # Errors
    /// Where no request can be made, such as when no login succeeds.
    async fn request(&self, object: &Object, range: Option<ByteRange>) -> Result<Request>;

    /// Logs in again after the server refused a request with 401 or 403; `false` where that cannot help.
    ///
    /// # Errors
    /// What the login reports.
    async fn renew(&self) -> Result<bool> {
        Ok(false)
    }

    /// Whether an older image of this identity, complete in the store, may serve after `resolve` failed so.
    /// Where the server cannot be reached, by default.
    fn older_serves(&self, error: &Error) -> bool {
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout)
    }
}

/// One version of an image at its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// What tells this version from every other of the same identity: an image's id, a version's id, an
    /// entity tag. Two looks that find the same version found the same bytes.
    pub version: String,
    /// The name that the image gets in a folder; only its last part without special characters is used.
    pub name: String,
    /// The number of bytes that the server sends, where it says so.
    pub size: Option<u64>,
    /// The digests of the bytes as the server sends them. Each one is checked.
    pub digests: Vec<Digest>,
    /// What a continued transfer is tied to.
    pub validator: Option<Validator>,
}

impl Object {
    /// A version of which nothing else is known.
    pub fn new(version: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            version: version.into(),
            name: name.into(),
            size: None,
            digests: Vec::new(),
            validator: None,
        }
    }
}

/// A range of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// The byte after the last one; `None`: up to the end.
    pub end: Option<u64>,
}

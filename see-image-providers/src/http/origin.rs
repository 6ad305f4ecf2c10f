//! An image on a web server, as the engine sees it.

use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use reqwest::{Method, Request, Response, StatusCode, Url};
use see_core::{Error, ErrorKind, Result, StopToken};

use super::address::{Address, Login};
use super::sums;
use crate::cache::{ByteRange, Digest, Object, Origin, Validator};
use crate::client::{Client, shown, text};
use crate::metadata;

/// The files beside an image that may hold its digest, in the order in which they are looked for.
const BESIDE: [&str; 2] = ["SHA256SUMS", "SHA512SUMS"];

/// Where the expected digests are.
#[derive(Debug)]
pub(super) enum Sums {
    /// Nowhere.
    None,
    /// In one of the usual files beside the image.
    Beside,
    /// There.
    At(Url),
}

/// An image on a web server.
#[derive(Debug)]
pub(super) struct HttpOrigin {
    pub(super) client: Client,
    pub(super) address: Address,
    pub(super) login: Option<Login>,
    pub(super) sums: Sums,
    pub(super) pinned: Option<Digest>,
}

impl HttpOrigin {
    /// A request to any server: who asks is told to the image's own alone.
    fn to(&self, method: Method, url: &Url) -> Result<Request> {
        let mut request = self.client.request(method, url.clone());
        if let Some(login) = &self.login
            && self.address.is_same_server(url)
        {
            request = login.put_into(request);
        }
        request.build().map_err(|error| {
            Error::new(
                ErrorKind::Internal,
                "the request to the server cannot be made",
            )
            .subject(shown(url))
            .caused_by(error.without_url())
        })
    }

    /// The digest that the server's own file of digests gives.
    async fn listed(&self, stop: &StopToken) -> Result<Option<Digest>> {
        let candidates: Vec<Url> = match &self.sums {
            Sums::None => return Ok(None),
            Sums::At(url) => vec![url.clone()],
            Sums::Beside => BESIDE
                .iter()
                .filter_map(|name| self.address.url.join(name).ok())
                .collect(),
        };
        for url in &candidates {
            let request = self.to(Method::GET, url)?;
            let client = match self.address.is_same_server(url) {
                true => self.client.clone(),
                false => self.client.without_certificate(),
            };
            let reading = client.read(request, sums::LONGEST);
            let (answer, body) = stop.or("read the checksums", reading).await??;
            if answer.status() == StatusCode::NOT_FOUND && candidates.len() > 1 {
                continue;
            }
            if !answer.status().is_success() {
                return Err(self.refused(&answer, url));
            }
            let text = String::from_utf8_lossy(&body);
            let found = sums::find(&text, &self.address.file_name());
            let found = found.and_then(|sum| Digest::parse(&sum));
            return found.map(Some).map_err(|error| error.subject(shown(url)));
        }
        Err(Error::new(
            ErrorKind::NotFound,
            format!("there is neither {} nor {} beside it", BESIDE[0], BESIDE[1]),
        )
        .subject(shown(&self.address.url))
        .advice("give the address of the file as `checksums`, or pin a digest with `checksum`"))
    }

    fn refused(&self, answer: &Response, url: &Url) -> Error {
        let status = answer.status();
        let asks_as_somebody = self.login.is_some() && self.address.is_same_server(answer.url());
        let (kind, message, advice) = match status.as_u16() {
            401 if asks_as_somebody => (
                ErrorKind::PermissionDenied,
                "the server does not accept the credentials",
                "check `auth`",
            ),
            401 => (
                ErrorKind::PermissionDenied,
                "the server wants to know who asks",
                "give `auth.username` and `auth.password`, or `auth.token`",
            ),
            403 if asks_as_somebody => (
                ErrorKind::PermissionDenied,
                "the server does not allow it to whom `auth` names",
                "check their rights, and that the address is complete",
            ),
            403 => (
                ErrorKind::PermissionDenied,
                "the server does not allow it",
                "give `auth`, or check that the address is complete",
            ),
            404 | 410 => (
                ErrorKind::NotFound,
                "there is nothing at this address",
                "check the address in a browser",
            ),
            407 => (
                ErrorKind::PermissionDenied,
                "the proxy wants to know who asks",
                "give user and password in the proxy's address in the environment",
            ),
            408 | 425 | 429 | 500..=599 => (
                ErrorKind::Unavailable,
                "the server is not able to answer now",
                "try again later",
            ),
            400..=499 => (
                ErrorKind::PermissionDenied,
                "the server refuses the request",
                "check the address in a browser; some servers want a certificate, which is `tls.cert`",
            ),
            _ => (
                ErrorKind::NotFound,
                "the server gives no image",
                "check the address in a browser",
            ),
        };
        let error = Error::new(kind, format!("{message}: status {}", status.as_u16()))
            .subject(shown(url))
            .advice(advice);
        if answer.url().path() == url.path() && answer.url().origin() == url.origin() {
            return error;
        }
        let target = shown(answer.url());
        error.caused_by(format!("the request was sent on to {target}"))
    }
}

#[async_trait]
impl Origin for HttpOrigin {
    fn identity(&self) -> String {
        self.address.identity()
    }

    fn client(&self) -> &Client {
        &self.client
    }

    fn name(&self) -> Option<String> {
        Some(self.address.file_name())
    }

    async fn resolve(&self, stop: &StopToken) -> Result<Object> {
        let listed = self.listed(stop).await?;
        let ask = |method| std::future::ready(self.to(method, &self.address.url));
        let answer = metadata::look(&self.client, ask, stop).await?;
        if !metadata::is_found(&answer) {
            return Err(self.refused(&answer, &self.address.url));
        }
        let headers = answer.headers();
        let digest = self.pinned.as_ref().or(listed.as_ref());
        let mut object = Object::new(
            version(&answer, digest).unwrap_or_else(|| {
                tracing::warn!(
                    image = self.address.identity(),
                    "the server does not tell when the image changes: it is fetched every time \
                     unless `checksum` or `checksums` is given"
                );
                never_again()
            }),
            self.address.file_name(),
        );
        object.size = metadata::size(&answer);
        object.validator = Validator::of(headers);
        object.digests = listed.into_iter().collect();
        Ok(object)
    }

    async fn request(&self, _object: &Object, _range: Option<ByteRange>) -> Result<Request> {
        self.to(Method::GET, &self.address.url)
    }
}

/// What tells this version from others: what its bytes must be, else what the server says.
fn version(answer: &Response, digest: Option<&Digest>) -> Option<String> {
    if let Some(digest) = digest {
        return Some(digest.to_string());
    }
    let headers = answer.headers();
    if let Some(tag) = Validator::entity_tag(headers) {
        return Some(format!("etag {tag}"));
    }
    let time = text(headers, &reqwest::header::LAST_MODIFIED)?;
    let size = metadata::size(answer).map_or_else(|| "unknown".to_owned(), |size| size.to_string());
    Some(format!("modified {time} size {size}"))
}

/// A version that no other look finds.
fn never_again() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    format!("seen at {}", now.unwrap_or_default().as_nanos())
}

//! An object of S3, as the engine sees it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Method, Request, Response, StatusCode, Url};
use see_core::{Error, ErrorKind, Result, StopToken};

use super::address::Endpoint;
use super::credentials::Credentials;
use super::failure::{self, Asked, Failure};
use super::listing;
use crate::cache::{Algorithm, ByteRange, Digest, Object, Origin, Validator};
use crate::client::{Client, shown, text};
use crate::metadata;

const VERSION: HeaderName = HeaderName::from_static("x-amz-version-id");
const DELETE_MARKER: HeaderName = HeaderName::from_static("x-amz-delete-marker");
const BUCKET_REGION: HeaderName = HeaderName::from_static("x-amz-bucket-region");
const CHECKSUM_MODE: HeaderName = HeaderName::from_static("x-amz-checksum-mode");
const CHECKSUM_TYPE: HeaderName = HeaderName::from_static("x-amz-checksum-type");
const CHECKSUM_SHA256: HeaderName = HeaderName::from_static("x-amz-checksum-sha256");
const ENCRYPTION: HeaderName = HeaderName::from_static("x-amz-server-side-encryption");
const CUSTOMER_ENCRYPTION: HeaderName =
    HeaderName::from_static("x-amz-server-side-encryption-customer-algorithm");

/// Which object it is.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) bucket: String,
    pub(super) key: String,
    /// The pinned version.
    pub(super) version: Option<String>,
    /// Whether it is taken as it last was when it was deleted.
    pub(super) takes_deleted: bool,
}

/// An object of S3.
#[derive(Debug)]
pub(super) struct S3Origin {
    client: Client,
    endpoint: Endpoint,
    name: Name,
    credentials: Option<Credentials>,
    /// What requests are signed for: the server may know better than the configuration.
    region: Mutex<String>,
}

impl S3Origin {
    pub(super) fn new(
        client: Client,
        endpoint: Endpoint,
        region: &str,
        name: Name,
        credentials: Option<Credentials>,
    ) -> Self {
        Self {
            client,
            endpoint,
            name,
            credentials,
            region: Mutex::new(region.to_owned()),
        }
    }

    /// Which object this is, for people.
    pub(super) fn words(&self) -> String {
        let Name {
            bucket,
            key,
            version,
            ..
        } = &self.name;
        let server = match self.endpoint.custom() {
            Some(server) => format!("s3+{}", shown(server).trim_end_matches('/')),
            None => "s3:/".to_owned(),
        };
        let version = version
            .as_ref()
            .map(|version| format!("?versionId={version}"));
        format!("{server}/{bucket}/{key}{}", version.unwrap_or_default())
    }

    fn region(&self) -> MutexGuard<'_, String> {
        self.region.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A signed request.
    async fn to(&self, method: Method, mut url: Url, query: &[(&str, &str)]) -> Result<Request> {
        let region = self.region().clone();
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
            // A plus is a space to some and a plus to others, also when it is signed.
            let plain = url.query().map(|query| query.replace('+', "%20"));
            url.set_query(plain.as_deref());
        }
        let is_head = method == Method::HEAD;
        let mut request = Request::new(method, url);
        if is_head {
            let enabled = HeaderValue::from_static("ENABLED");
            request.headers_mut().insert(CHECKSUM_MODE, enabled);
        }
        if let Some(credentials) = &self.credentials {
            credentials.sign(&mut request, &region).await?;
        }
        Ok(request)
    }

    async fn object_request(&self, method: Method, version: Option<&str>) -> Result<Request> {
        let region = self.region().clone();
        let url = self
            .endpoint
            .object(&region, &self.name.bucket, &self.name.key)?;
        match version {
            Some(version) => self.to(method, url, &[("versionId", version)]).await,
            None => self.to(method, url, &[]).await,
        }
    }

    /// Looks at the object, and again where the server says that it is in another region.
    async fn look(&self, version: Option<&str>, stop: &StopToken) -> Result<Found> {
        let ask = |method| self.object_request(method, version);
        for is_last in [false, true] {
            let mut answer = metadata::look(&self.client, ask, stop).await?;
            if metadata::is_found(&answer) {
                return Ok(Found::Object(answer));
            }
            let reading = self.client.body(&mut answer, failure::LONGEST);
            // Whatever it is that says more than that, the status says enough.
            let body = match stop.or("read why S3 refuses", reading).await? {
                Ok(body) => body,
                Err(error) if error.kind() == ErrorKind::Exhausted => Default::default(),
                Err(error) => return Err(error),
            };
            let failure = self.failure(&answer, &body)?;
            let region = self.region().clone();
            let right = failure.right_region(&region).map(str::to_owned);
            match right {
                Some(right) if !is_last => {
                    tracing::warn!(
                        bucket = self.name.bucket,
                        "the bucket is in the region {right}, not {region}: set `auth.region_name`"
                    );
                    *self.region() = right;
                }
                _ => return Ok(Found::Failure(failure)),
            }
        }
        Err(Error::new(
            ErrorKind::Internal,
            "a look at S3 found nothing",
        ))
    }

    /// What an answer that is no object says.
    fn failure(&self, answer: &Response, body: &[u8]) -> Result<Failure> {
        let status = answer.status().as_u16();
        let of = |name: &HeaderName| text(answer.headers(), name).map(str::to_owned);
        let is_deleted = of(&DELETE_MARKER).is_some_and(|value| value == "true");
        let region = of(&BUCKET_REGION);
        let asked = self.endpoint.bucket(&self.region(), &self.name.bucket)?;
        let elsewhere = (answer.url().origin() != asked.origin())
            .then(|| answer.url().host_str().map(str::to_owned))
            .flatten();
        let mut failure = Failure::read(status, body);
        failure.is_deleted |= is_deleted;
        failure.region = failure.region.or(region);
        failure.endpoint = failure.endpoint.or(elsewhere);
        Ok(failure)
    }

    async fn error(&self, failure: &Failure, version: Option<&str>) -> Error {
        let region = self.region().clone();
        let credentials = match &self.credentials {
            Some(credentials) => Some(credentials.origin().await),
            None => None,
        };
        let error = failure.error(&Asked {
            bucket: &self.name.bucket,
            key: &self.name.key,
            version,
            region: &region,
            credentials,
        });
        match self.endpoint.custom() {
            Some(server) => error.during(format!("ask {}", shown(server))),
            None => error,
        }
    }

    /// The newest version of an object that was deleted; `None` where it never was.
    async fn deleted(&self, stop: &StopToken) -> Result<Option<String>> {
        let Name { bucket, key, .. } = &self.name;
        let region = self.region().clone();
        let url = self.endpoint.bucket(&region, bucket)?;
        // The key itself comes before those that it begins.
        let query = [("versions", ""), ("prefix", key.as_str())];
        let request = self.to(Method::GET, url, &query).await?;
        let reading = self.client.read(request, listing::LONGEST);
        let (answer, body) = stop.or("read S3's versions", reading).await??;
        if !answer.status().is_success() {
            let failure = self.failure(&answer, &body)?;
            return Err(self.error(&failure, None).await);
        }
        listing::newest(&body, key)
    }

    /// What is asked for when the object is not there.
    async fn instead(&self, failure: Failure, stop: &StopToken) -> Result<Object> {
        let is_missing = failure.status == StatusCode::NOT_FOUND.as_u16()
            && !matches!(failure.code.as_str(), "NoSuchBucket" | "NoSuchVersion");
        let pinned = self.name.version.as_deref();
        let last = match self.name.takes_deleted && is_missing && pinned.is_none() {
            true => self.deleted(stop).await?,
            false => None,
        };
        let Some(last) = last else {
            return Err(self.error(&failure, pinned).await);
        };
        tracing::warn!(
            image = self.words(),
            "the object was deleted: its last version serves, as `include_deleted` asks"
        );
        match self.look(Some(&last), stop).await? {
            Found::Object(answer) => object(&answer, Some(&last)),
            Found::Failure(failure) => Err(self.error(&failure, Some(&last)).await),
        }
    }
}

enum Found {
    Object(Response),
    Failure(Failure),
}

#[async_trait]
impl Origin for S3Origin {
    fn identity(&self) -> String {
        self.words()
    }

    fn client(&self) -> &Client {
        &self.client
    }

    async fn resolve(&self, stop: &StopToken) -> Result<Object> {
        let version = self.name.version.as_deref();
        match self.look(version, stop).await? {
            Found::Object(answer) => object(&answer, version),
            Found::Failure(failure) => self.instead(failure, stop).await,
        }
    }

    async fn request(&self, object: &Object, _range: Option<ByteRange>) -> Result<Request> {
        self.object_request(Method::GET, version_of(object)).await
    }

    async fn renew(&self) -> Result<bool> {
        match &self.credentials {
            Some(credentials) => credentials.renew().await,
            None => Ok(false),
        }
    }
}

/// What stands before a version's id in [`Object::version`], and after it.
const BY_ID: (&str, &str) = ("version ", ", etag ");

/// The id of the version, where the bucket keeps versions.
fn version_of(object: &Object) -> Option<&str> {
    let rest = object.version.strip_prefix(BY_ID.0)?;
    rest.split_once(BY_ID.1).map(|(id, _)| id)
}

/// Reads what the server says of the object; `pinned` is the version that was asked for.
fn object(answer: &Response, pinned: Option<&str>) -> Result<Object> {
    let headers = answer.headers();
    let of = |name: &HeaderName| text(headers, name);
    let tag = Validator::entity_tag(headers);
    let bare = tag.map(Validator::bare);
    let Some(bare) = bare else {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "the server gives the object no entity tag",
        )
        .advice("check that `auth.endpoint_url` is an S3 server"));
    };
    // What was there before versions were is the version `null`, which may be replaced: the tag tells that.
    let version = match of(&VERSION).or(pinned) {
        Some(id) => format!("{}{id}{}{bare}", BY_ID.0, BY_ID.1),
        None => format!("etag {bare}"),
    };
    let mut object = Object::new(version, bare);
    object.size = metadata::size(answer);
    object.validator = Validator::of(headers);
    let is_composite = of(&CHECKSUM_TYPE).is_some_and(|kind| kind == "COMPOSITE");
    if !is_composite && let Some(sum) = of(&CHECKSUM_SHA256).and_then(sha256) {
        object.digests.push(sum);
    }
    let key_is_secret = of(&ENCRYPTION).is_some_and(|kind| kind.starts_with("aws:kms"))
        || headers.contains_key(CUSTOMER_ENCRYPTION);
    if !key_is_secret && let Some(sum) = md5(bare) {
        object.digests.push(sum);
    }
    Ok(object)
}

/// The entity tag of an object that was uploaded whole is its MD5; one in parts has a `-` and their number.
fn md5(tag: &str) -> Option<Digest> {
    Digest::of_hex(Algorithm::Md5, tag).ok()
}

fn sha256(sum: &str) -> Option<Digest> {
    let bytes = STANDARD.decode(sum).ok()?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Digest::of_hex(Algorithm::Sha256, &hex).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "900150983cd24fb0d6963f7d28e17f72";
    /// Of `abc`, as S3 writes it.
    const SHA256: &str = "ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=";

    fn read(headers: &[(&str, &str)], pinned: Option<&str>) -> Result<Object> {
        let mut answer = http::Response::builder().status(200);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        object(&answer.body("").unwrap().into(), pinned)
    }

    fn checked(headers: &[(&str, &str)]) -> Vec<&'static str> {
        let object = read(headers, None).unwrap();
        let digests = object.digests.iter();
        digests.map(|digest| digest.algorithm().name()).collect()
    }

    #[test]
    fn the_tag_of_an_object_uploaded_whole_is_its_md5_and_no_other_tag_is() {
        let whole = format!("\"{MD5}\"");
        let parts = format!("\"{MD5}-3\"");
        assert_eq!(checked(&[("etag", &whole)]), ["md5"]);
        assert_eq!(checked(&[("etag", &parts)]), [""; 0]);
        assert_eq!(checked(&[("etag", "\"anything\"")]), [""; 0]);
        for (name, value) in [
            ("x-amz-server-side-encryption", "aws:kms"),
            ("x-amz-server-side-encryption", "aws:kms:dsse"),
            ("x-amz-server-side-encryption-customer-algorithm", "AES256"),
        ] {
            assert_eq!(
                checked(&[("etag", &whole), (name, value)]),
                [""; 0],
                "{value}"
            );
        }
        let own_key = ("x-amz-server-side-encryption", "AES256");
        assert_eq!(checked(&[("etag", &whole), own_key]), ["md5"]);
        let object = read(&[("etag", &parts), ("content-length", "7")], None).unwrap();
        let tag = Some(crate::cache::Validator::EntityTag(parts));
        assert_eq!((object.validator, object.size), (tag, Some(7)));
        assert_eq!(object.name, format!("{MD5}-3"));
        assert!(
            read(&[], None)
                .unwrap_err()
                .to_string()
                .contains("no entity tag")
        );
    }

    #[test]
    fn the_sha256_that_the_server_keeps_is_checked_unless_it_is_one_of_parts() {
        let tag = ("etag", "\"x-2\"");
        let sum = ("x-amz-checksum-sha256", SHA256);
        let object = read(&[tag, sum, ("x-amz-checksum-type", "FULL_OBJECT")], None).unwrap();
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(object.digests[0].to_string(), expected);
        assert_eq!(checked(&[tag, sum]), ["sha256"]);
        assert_eq!(
            checked(&[tag, sum, ("x-amz-checksum-type", "COMPOSITE")]),
            [""; 0]
        );
        assert_eq!(
            checked(&[tag, ("x-amz-checksum-sha256", "AAAA-2")]),
            [""; 0]
        );
    }

    #[test]
    fn the_bytes_that_are_fetched_are_those_of_the_version_that_was_seen() {
        let tag = ("etag", "\"t\"");
        let seen = read(&[tag, ("x-amz-version-id", "v.1")], None).unwrap();
        assert_eq!(version_of(&seen), Some("v.1"));
        assert_eq!(
            version_of(&read(&[tag], Some("null")).unwrap()),
            Some("null")
        );
        assert_eq!(version_of(&read(&[tag], None).unwrap()), None);
        let [one, other] = ["\"t\"", "\"u\""]
            .map(|tag| read(&[("etag", tag), ("x-amz-version-id", "null")], None).unwrap());
        assert_ne!(one.version, other.version, "`null` may be replaced");
    }
}

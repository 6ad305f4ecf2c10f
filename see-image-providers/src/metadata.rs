//! What a server says about an object before its bytes are asked for.

use async_trait::async_trait;
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue,
    LAST_MODIFIED, RANGE,
};
use reqwest::{Method, Request, Response, StatusCode};
use see_core::{Result, StopToken};

use crate::cache::Validator;
use crate::client::{Client, is_busy, retry_after};

/// As long as a validator may be.
const WIDEST: usize = 512;

/// Something that can be asked about.
#[async_trait]
pub(crate) trait Resource: Sync {
    /// What sends the requests.
    fn client(&self) -> &Client;

    /// A request for it, authorised for its host. Headers that are not signed are added afterwards.
    async fn ask(&self, method: Method) -> Result<Request>;
}

/// Asks for the head of a resource; a server that refuses that, or tells no length, is asked for its first byte.
///
/// What comes is the answer to a `GET` wherever it is a failure other than 401, so that its body may say why.
///
/// # Errors
/// What [`Client::send`] reports, and [`ErrorKind::Stopped`](see_core::ErrorKind::Stopped).
pub(crate) async fn look(resource: &dyn Resource, stop: &StopToken) -> Result<Response> {
    let send = async |method: Method| {
        let first_byte = method == Method::GET;
        let mut request = resource.ask(method).await?;
        let headers = request.headers_mut();
        // Of a compressed answer the size and the validator would be others.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if first_byte {
            headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        }
        let sending = resource.client().send(request);
        stop.or("ask the server of the image", sending).await?
    };
    let answer = send(Method::HEAD).await?;
    let status = answer.status();
    // Some servers say of every `HEAD` that it has no bytes.
    let tells_size = size(&answer) != Some(0);
    // Who is refused for want of a login, or asked to wait, does not ask once more: each time may count.
    let is_final = status == StatusCode::UNAUTHORIZED
        || is_busy(status) && retry_after(answer.headers()).is_some();
    if status.is_success() && tells_size || is_final {
        return Ok(answer);
    }
    send(Method::GET).await
}

/// Whether the answer tells of an object that is there: also an empty one, of which no byte can be asked for.
pub(crate) fn is_found(answer: &Response) -> bool {
    let is_empty =
        answer.status() == StatusCode::RANGE_NOT_SATISFIABLE && total(answer.headers()) == Some(0);
    answer.status().is_success() || is_empty
}

/// The number of bytes of the whole object.
pub(crate) fn size(answer: &Response) -> Option<u64> {
    match answer.status() {
        StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => total(answer.headers()),
        _ => text(answer.headers(), &CONTENT_LENGTH)?.parse().ok(),
    }
}

/// The `/N` of a `Content-Range`.
fn total(headers: &HeaderMap) -> Option<u64> {
    let range = text(headers, &CONTENT_RANGE)?;
    range.rsplit_once('/')?.1.trim().parse().ok()
}

/// The entity tag as it stands there. Some servers leave out its quotes: it tells versions apart all the same.
pub(crate) fn entity_tag(headers: &HeaderMap) -> Option<&str> {
    let tag = text(headers, &ETAG)?;
    (!Validator::bare(tag).is_empty()).then_some(tag)
}

/// What a transfer is tied to: a strong entity tag, else the time of the last change, else a weak tag.
pub(crate) fn validator(headers: &HeaderMap) -> Option<Validator> {
    let tag = entity_tag(headers);
    let of_tag = |tag: &str| Validator::EntityTag(tag.to_owned());
    if let Some(tag) = tag
        && !tag.starts_with("W/")
    {
        return Some(of_tag(tag));
    }
    let time = text(headers, &LAST_MODIFIED).map(|time| Validator::LastModified(time.to_owned()));
    time.or_else(|| tag.map(of_tag))
}

/// A header's text, if it is one of a reasonable length.
pub(crate) fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let value = headers.get(name)?.to_str().ok()?.trim();
    (!value.is_empty() && value.len() <= WIDEST).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&HeaderName, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| ((*name).clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_strong_tag_is_the_best_validator_and_a_weak_one_the_worst() {
        let time = "Wed, 21 Oct 2015 07:28:00 GMT";
        let tag = |tag: &str| Some(Validator::EntityTag(tag.to_owned()));
        let both = headers(&[(&ETAG, "\"a\""), (&LAST_MODIFIED, time)]);
        assert_eq!(validator(&both), tag("\"a\""));
        let weak = headers(&[(&ETAG, "W/\"a\""), (&LAST_MODIFIED, time)]);
        assert_eq!(
            validator(&weak),
            Some(Validator::LastModified(time.to_owned()))
        );
        assert_eq!(validator(&headers(&[(&ETAG, "W/\"a\"")])), tag("W/\"a\""));
        // As Ceph, rustfs and NetApp send them.
        for bare in ["abc", "W/abc", "\"abc", "abc-3"] {
            let found = validator(&headers(&[(&ETAG, bare)]));
            assert_eq!(found, tag(bare), "{bare}");
            assert_eq!(found.unwrap().if_range(), None, "{bare}");
        }
        for none in ["\"", "", "W/", "\"\"", "W/\"\""] {
            assert_eq!(validator(&headers(&[(&ETAG, none)])), None, "{none}");
        }
        let long = format!("\"{}\"", "a".repeat(WIDEST));
        assert_eq!(validator(&headers(&[(&ETAG, &long)])), None);
    }

    #[test]
    fn the_size_of_the_whole_is_what_stands_after_the_slash() {
        for (range, size) in [
            ("bytes 0-0/12345", Some(12345)),
            ("bytes */0", Some(0)),
            ("bytes 0-0/*", None),
            ("bytes 0-0/-1", None),
            ("12345", None),
        ] {
            assert_eq!(total(&headers(&[(&CONTENT_RANGE, range)])), size, "{range}");
        }
    }
}

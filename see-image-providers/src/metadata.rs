//! What a server says about an object before its bytes are asked for.

use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, HeaderMap, HeaderValue, RANGE,
};
use reqwest::{Method, Request, Response, StatusCode};
use see_core::{Result, StopToken};

use crate::client::{Client, is_busy, retry_after, text};

/// Asks for the head of a resource; a server that refuses that, or tells no length, is asked for its first byte.
///
/// `request` makes the requests, authorised for their host; headers that are not signed are added here. What comes is
/// the answer to a `GET` wherever it is a failure other than 401, so that its body may say why.
///
/// # Errors
/// What [`Client::send`] reports, and [`ErrorKind::Stopped`](see_core::ErrorKind::Stopped).
pub(crate) async fn look<F: Future<Output = Result<Request>>>(
    client: &Client,
    request: impl Fn(Method) -> F,
    stop: &StopToken,
) -> Result<Response> {
    let send = async |method: Method| {
        let first_byte = method == Method::GET;
        let mut request = request(method).await?;
        let headers = request.headers_mut();
        // Of a compressed answer the size and the validator would be others.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if first_byte {
            headers.insert(RANGE, HeaderValue::from_static("bytes=0-0"));
        }
        stop.or("ask the server of the image", client.send(request))
            .await?
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_the_whole_is_what_stands_after_the_slash() {
        for (range, size) in [
            ("bytes 0-0/12345", Some(12345)),
            ("bytes */0", Some(0)),
            ("bytes 0-0/*", None),
            ("bytes 0-0/-1", None),
            ("12345", None),
        ] {
            let headers = [(CONTENT_RANGE, HeaderValue::from_static(range))];
            let headers = HeaderMap::from_iter(headers);
            assert_eq!(total(&headers), size, "{range}");
        }
    }
}

//! What the head of an answer says about the image, read with distrust.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, LAST_MODIFIED};

use super::validator::Validator;

/// How much of an answer that is no image is read for its error.
const QUOTED: usize = 160;

/// The ETag or date that the server gives now, where it is another than the one that is known.
pub(super) fn replaced(known: Option<&Validator>, headers: &HeaderMap) -> Option<String> {
    let (known, name) = match known? {
        Validator::EntityTag(tag) => (tag, ETAG),
        Validator::LastModified(date) => (date, LAST_MODIFIED),
    };
    let now = headers.get(name)?.to_str().ok()?;
    // A proxy that packs may weaken a tag, which names the same bytes still.
    (Validator::bare(now) != Validator::bare(known)).then(|| now.escape_debug().to_string())
}

/// The first byte and the length of the whole, as `Content-Range` says.
pub(super) fn content_range(headers: &HeaderMap) -> Option<(u64, Option<u64>)> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
    let total = match total {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    let fits = first <= last && total.is_none_or(|total: u64| last < total);
    fits.then_some((first, total))
}

pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_LENGTH)?.to_str().ok()?;
    text.parse().ok()
}

/// The beginning of an answer that is no image, made harmless.
pub(super) async fn quoted(mut response: Response) -> String {
    const LIMIT: Duration = Duration::from_secs(5);
    let first = tokio::time::timeout(LIMIT, response.chunk()).await;
    let Ok(Ok(Some(bytes))) = first else {
        return String::new();
    };
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED)]);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() {
        return String::new();
    }
    format!(", and says `{}`", text.escape_debug())
}

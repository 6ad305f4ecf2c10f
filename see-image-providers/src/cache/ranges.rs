//! Several ranges of one image at once, where one connection alone is the narrow place.
//!
//! A single stream comes first and is measured. Where the rest would take it long, several streams are tried,
//! and stay only where they bring clearly more. Their pieces are put in order in memory, so that what is on
//! disk is always a beginning: hashed as it grows, and continued after a break like any other.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use reqwest::StatusCode;
use see_core::{Error, ErrorKind, Result};

use super::answer::{content_range, replaced};
use super::origin::ByteRange;
use super::partial::Feed;
use super::transfer::{STEP, Step, Transfer};
use crate::client::shown;

/// How long each way is measured.
const MEASURED: Duration = Duration::from_millis(700);
/// A rest that one stream brings in this time is left to it.
const SHORT: Duration = Duration::from_secs(4);
/// One stream that brings so many bytes a second is no narrow place.
const FAST: f64 = 200e6;
/// How much more several streams have to bring, to stay.
const GAIN: f64 = 1.15;
/// The pieces that the rest is got in: small for a small rest, so that all streams have work.
const PIECES: (u64, u64) = (256 << 10, 2 << 20);
/// What goes to the disk at once.
const WRITTEN: usize = 256 << 10;

/// How fast bytes come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    since: Instant,
    start: u64,
}

impl Pace {
    pub(super) fn new(start: u64) -> Self {
        Self {
            since: Instant::now(),
            start,
        }
    }

    /// Bytes a second, once that was measured for long enough.
    pub(super) fn rate(&self, length: u64) -> Option<f64> {
        let time = self.since.elapsed();
        (time >= MEASURED).then(|| (length - self.start) as f64 / time.as_secs_f64())
    }
}

/// Whether several streams are worth a try for this rest, after one brought so many bytes a second.
pub(super) fn is_worth_trying(rest: u64, rate: f64) -> bool {
    rate < FAST && rest as f64 > rate * SHORT.as_secs_f64() && rest > PIECES.0 * 4
}

/// Whether several streams stay.
fn is_worth_keeping(single: f64, several: f64) -> bool {
    several > single * GAIN
}

fn piece_of(rest: u64, streams: usize) -> u64 {
    (rest / (streams as u64 * 4)).clamp(PIECES.0, PIECES.1)
}

impl Transfer<'_> {
    /// Gets the rest in several streams, as long as they bring more than the one that was measured.
    pub(super) async fn widen(&self, feed: &mut Feed, total: u64, single: f64) -> Result<Step> {
        let streams = self.settings.streams;
        let mut next = feed.length();
        let piece = piece_of(total - next, streams);
        let pace = Pace::new(next);
        let mut proven = false;
        let mut coming = FuturesOrdered::new();
        loop {
            while coming.len() < streams && next < total {
                let end = total.min(next + piece);
                coming.push_back(self.piece(next, end, total));
                next = end;
            }
            let Some(got) = coming.next().await else {
                return Ok(Step::Complete);
            };
            let bytes = match got? {
                Ok(bytes) => bytes,
                // A server that does not bear several streams is no broken one.
                Err(_) if !proven => return Ok(Step::Narrow),
                Err(step) => return Ok(step),
            };
            for start in (0..bytes.len()).step_by(WRITTEN) {
                let part = bytes.slice(start..bytes.len().min(start + WRITTEN));
                if feed.push(part).await.is_err() {
                    return Ok(Step::Complete);
                }
            }
            let length = feed.length();
            self.request.progress(length, Some(total));
            if !proven && let Some(several) = pace.rate(length) {
                proven = is_worth_keeping(single, several);
                tracing::debug!(
                    single,
                    several,
                    proven,
                    "several ranges of the image at once"
                );
                if !proven {
                    return Ok(Step::Narrow);
                }
            }
        }
    }

    /// One piece, whole.
    async fn piece(&self, start: u64, end: u64, total: u64) -> Result<Result<Bytes, Step>> {
        let range = ByteRange {
            start,
            end: Some(end),
        };
        let mut response = match self.ask(Some(range)).await? {
            Ok(response) => response,
            Err(step) => return Ok(Err(step)),
        };
        let headers = response.headers();
        let is_asked = response.status() == StatusCode::PARTIAL_CONTENT
            && content_range(headers) == Some((start, Some(total)))
            && replaced(self.object.validator.as_ref(), headers).is_none();
        if !is_asked {
            return Ok(Err(Step::Narrow));
        }
        let url = shown(response.url());
        let stall = self.settings.stall;
        let count = usize::try_from(end - start).unwrap_or(0);
        let mut bytes = BytesMut::with_capacity(count);
        while bytes.len() < count {
            let waited = tokio::time::timeout(stall, response.chunk());
            let error = match self.request.stop().or(STEP, waited).await? {
                Ok(Ok(Some(chunk))) if bytes.len() + chunk.len() <= count => {
                    bytes.extend_from_slice(&chunk);
                    continue;
                }
                Ok(Ok(_)) => Error::new(
                    ErrorKind::Unavailable,
                    "the server sends a range of another length than it says",
                )
                .subject(&url),
                Ok(Err(error)) => crate::client::broken(error, &url),
                Err(_) => Error::timeout("a byte of the image", stall).subject(&url),
            };
            return Ok(Err(Step::Again(error, None)));
        }
        Ok(Ok(bytes.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_streams_are_tried_for_a_long_rest_and_kept_where_they_bring_more() {
        let megabyte = 1 << 20;
        assert!(is_worth_trying(100 * megabyte, 1e6));
        assert!(!is_worth_trying(3 * megabyte, 1e6), "a short rest");
        assert!(!is_worth_trying(10_000 * megabyte, 300e6), "a fast server");
        assert!(is_worth_keeping(1e6, 2e6));
        assert!(!is_worth_keeping(1e6, 1.1e6), "the same, but for chance");
        assert_eq!(piece_of(1 << 40, 4), PIECES.1);
        assert_eq!(piece_of(8 * megabyte, 4), 512 << 10);
    }
}

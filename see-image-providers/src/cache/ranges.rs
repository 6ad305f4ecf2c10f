//! Several ranges of one image at once, where one connection alone is the narrow place.
//!
//! A single stream comes first and is measured. Where the rest would take it long, several streams are tried,
//! and stay only where they bring clearly more. Their pieces are put in order in memory, so that what is on
//! disk is always a beginning: hashed as it grows, and continued after a break like any other.
//!
//! No answer is left in its middle for another one: what is on its way would be sent for nothing, and on a fast
//! network that is megabytes. So the single stream asks for a piece after the other, too, while it is measured.

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

/// A rest that is smaller is got in one answer.
const MEASURABLE: u64 = 4 << 20;
/// The least piece of a stream that is measured, and its first. Each piece costs a request, which some servers, Glance
/// for one, answer only after they looked the image up once more.
const FIRST: u64 = 1 << 20;
/// How many times what came before a next piece is at most: a rate that was measured over little may be wrong.
const GROWTH: u64 = 16;
/// How long each way is measured.
const MEASURED: Duration = Duration::from_millis(700);
/// A rest that one stream brings in this time is left to it.
const SHORT: Duration = Duration::from_secs(4);
/// One stream that brings so many bytes a second is no narrow place.
const FAST: f64 = 200e6;
/// How much more several streams have to bring, to stay.
const GAIN: f64 = 1.15;
/// The pieces that the rest is got in: small for a small rest, so that all streams have work, and small enough that
/// one for each of them takes little memory.
const PIECES: (u64, u64) = (256 << 10, 1 << 20);
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

/// One stream while it is measured, a piece after the other.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Probe {
    bytes: u64,
    time: Duration,
}

impl Probe {
    /// Where the next piece ends that begins at `start`; `None` where the rest is worth no measurement.
    pub(super) fn piece(&self, start: u64, total: u64) -> Option<u64> {
        let rest = total.saturating_sub(start);
        if rest < MEASURABLE {
            return None;
        }
        let longest = FIRST.max(self.bytes * GROWTH);
        let left = MEASURED.saturating_sub(self.time).as_secs_f64();
        let wanted = self.bytes as f64 / self.time.as_secs_f64().max(1e-6) * left;
        Some(start + rest.min((wanted as u64).clamp(FIRST, longest)))
    }

    /// So many bytes came in this time.
    pub(super) fn add(&mut self, bytes: u64, time: Duration) {
        self.bytes += bytes;
        self.time += time;
    }

    /// Bytes a second, once that was measured for long enough.
    pub(super) fn rate(&self) -> Option<f64> {
        // The last piece was reckoned from the rate before it, and may have come a little early.
        let enough = self.time >= MEASURED * 3 / 4;
        enough.then(|| self.bytes as f64 / self.time.as_secs_f64())
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
        let mut proven = None;
        let mut coming = FuturesOrdered::new();
        loop {
            while proven != Some(false) && coming.len() < streams && next < total {
                let end = total.min(next + piece);
                coming.push_back(self.piece(next, end, total));
                next = end;
            }
            let Some(got) = coming.next().await else {
                // What several streams had begun is there; one alone gets what is left.
                return Ok(match proven {
                    Some(false) => Step::Narrow,
                    _ => Step::Complete,
                });
            };
            let bytes = match got? {
                Ok(bytes) => bytes,
                // A server that does not bear several streams is no broken one.
                Err(_) if proven != Some(true) => return Ok(Step::Narrow),
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
            if proven.is_none()
                && let Some(several) = pace.rate(length)
            {
                let stays = is_worth_keeping(single, several);
                tracing::debug!(
                    single,
                    several,
                    stays,
                    "several ranges of the image at once"
                );
                proven = Some(stays);
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
            && (self.is_pinned || replaced(self.validator.as_ref(), headers).is_none());
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

    #[test]
    fn a_measured_stream_asks_for_pieces_that_end_with_the_measurement() {
        let total = 1 << 30;
        // The pieces that a stream of this rate is measured by, and how long that takes.
        let measured = |rate: f64| {
            let (mut probe, mut at, mut pieces) = (Probe::default(), 0, Vec::new());
            while probe.rate().is_none() {
                let end = probe.piece(at, total).expect("much is left");
                assert!(at < end && end <= total, "{at} to {end}");
                probe.add(end - at, Duration::from_secs_f64((end - at) as f64 / rate));
                pieces.push(end - at);
                at = end;
            }
            (pieces, probe.time)
        };
        for rate in [1e4, 1e5, 1e6, 1e7, 1e8, 1e9] {
            let (pieces, time) = measured(rate);
            let told = format!("{pieces:?}, {time:?} at {rate} bytes a second");
            assert!(pieces.len() <= 4, "{told}");
            assert_eq!(pieces[0], FIRST, "{told}");
            let mut before = 0;
            for piece in &pieces {
                let most = FIRST.max(before * GROWTH);
                assert!((FIRST..=most).contains(piece), "{told}");
                before += piece;
            }
            // No piece goes on for long after the measurement, but for the least one of a slow stream.
            let least = Duration::from_secs_f64(FIRST as f64 / rate);
            assert!(time < MEASURED + least, "{told}");
        }
        // A fast one is measured by three: all that these cost is two requests more than one answer would.
        let (pieces, _) = measured(3e8);
        assert_eq!(pieces[..2], [1 << 20, 16 << 20]);
        assert_eq!(pieces.len(), 3, "{pieces:?}");
        assert_eq!(Probe::default().piece(total - 1000, total), None);
        assert_eq!(Probe::default().piece(total + 1, total), None, "no more");
    }
}

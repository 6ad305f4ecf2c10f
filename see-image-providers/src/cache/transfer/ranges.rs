//! Several ranges of one image at once, where the configuration asks for them.
//!
//! Their pieces are put in order in memory, so that what is on disk is always a beginning: hashed as it grows, and
//! continued after a break like any other. A piece that fails ends it: one stream alone gets the rest.

use bytes::{Bytes, BytesMut};
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use reqwest::{StatusCode, Url};
use see_core::Result;

use super::{STEP, Step, Transfer};
use crate::cache::answer::{content_range, replaced};
use crate::cache::origin::ByteRange;
use crate::cache::partial::{Ended, Feed};

/// The pieces that an image is got in: small for a small one, so that all streams have work, and small enough that one
/// for each of them takes little memory.
const PIECES: (u64, u64) = (256 << 10, 512 << 10);
/// What goes to the disk at once.
const WRITTEN: usize = 256 << 10;

fn piece_of(rest: u64, streams: usize) -> u64 {
    (rest / (streams as u64 * 4)).clamp(PIECES.0, PIECES.1)
}

impl Transfer<'_> {
    /// Gets the rest in several streams, up to the first piece that does not come.
    pub(super) async fn several(&mut self, feed: &mut Feed, total: u64) -> Result<Step> {
        self.check_size(total)?;
        let mut next = feed.length();
        let piece = piece_of(total - next, self.settings.streams);
        let mut coming = FuturesOrdered::new();
        let mut server = None;
        let step = loop {
            while coming.len() < self.settings.streams && next < total {
                let end = total.min(next + piece);
                coming.push_back(self.piece(next, end, total));
                next = end;
            }
            let Some(got) = coming.next().await else {
                break Step::Complete;
            };
            let Some((bytes, url)) = got? else {
                tracing::debug!("one stream alone gets the rest of the image");
                break Step::Onward;
            };
            server = Some(url);
            if self.written(feed, &bytes).await.is_err() {
                // The writing side knows why, and is asked next.
                break Step::Complete;
            }
            self.request.progress(feed.length(), Some(total));
        };
        drop(coming);
        self.is_several = false;
        self.server = server;
        Ok(step)
    }

    /// Gives a piece to the disk, little by little, so that no more than that waits for it.
    async fn written(&self, feed: &mut Feed, piece: &Bytes) -> Result<(), Ended> {
        for start in (0..piece.len()).step_by(WRITTEN) {
            let end = piece.len().min(start + WRITTEN);
            feed.push(piece.slice(start..end)).await?;
        }
        Ok(())
    }

    /// One piece, whole, and where it came from; `None` where it does not come.
    async fn piece(&self, start: u64, end: u64, total: u64) -> Result<Option<(Bytes, Url)>> {
        let range = ByteRange {
            start,
            end: Some(end),
        };
        let Ok(mut response) = self.ask(Some(range)).await? else {
            return Ok(None);
        };
        let headers = response.headers();
        let is_asked = response.status() == StatusCode::PARTIAL_CONTENT
            && content_range(headers) == Some((start, Some(total)))
            && (self.is_pinned || replaced(self.validator.as_ref(), headers).is_none());
        if !is_asked {
            return Ok(None);
        }
        let count = usize::try_from(end - start).unwrap_or(0);
        let mut bytes = BytesMut::with_capacity(count);
        while bytes.len() < count {
            let waited = tokio::time::timeout(self.settings.stall, response.chunk());
            match self.request.stop().or(STEP, waited).await? {
                Ok(Ok(Some(chunk))) if bytes.len() + chunk.len() <= count => {
                    bytes.extend_from_slice(&chunk);
                }
                _ => return Ok(None),
            }
        }
        Ok(Some((bytes.freeze(), response.url().clone())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_give_all_streams_work_and_take_little_memory() {
        assert_eq!(piece_of(1 << 40, 4), PIECES.1);
        assert_eq!(piece_of(8 << 20, 4), 512 << 10);
        assert_eq!(piece_of(1000, 4), PIECES.0);
    }
}

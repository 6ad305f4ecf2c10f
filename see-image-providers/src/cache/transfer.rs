//! Getting the bytes: one request after the other until all are there, or no hope is left.

mod ranges;

use std::time::Duration;

use reqwest::header::{ACCEPT_ENCODING, CONTENT_RANGE, HeaderValue, IF_RANGE, RANGE};
use reqwest::{Request, Response, StatusCode};
use see_core::{Error, ErrorKind, ImageRequest, Result};
use tokio::sync::Mutex;

use super::answer::{content_length, content_range, quoted, replaced};
use super::failure::{gave_up, no_room, too_large};
use super::origin::{ByteRange, Object, Origin};
use super::partial::{Feed, Partial};
use super::settings::Settings;
use super::validator::Validator;
use crate::client::{Retry, is_busy, is_passing, retry_after, shown};

const STEP: &str = "download the image";

/// One version of an image on its way.
pub(crate) struct Transfer<'a> {
    pub(crate) origin: &'a dyn Origin,
    pub(crate) object: &'a Object,
    pub(crate) settings: &'a Settings,
    pub(crate) request: &'a ImageRequest<'a>,
    /// The most bytes that may be sent.
    pub(crate) limit: Option<u64>,
    /// How many bytes the disk of the store has room for, what is there of the image included.
    pub(crate) room: Room,
    /// How many bytes there are, once that is known.
    pub(crate) total: Option<u64>,
    /// What later answers are compared with.
    pub(crate) validator: Option<Validator>,
    /// Whether a pinned digest decides in the end whether the bytes are the right ones, whatever the servers say.
    pub(crate) is_pinned: bool,
    /// Where the last answer came from.
    pub(crate) server: Option<reqwest::Url>,
    /// Whether answers differ in what they say of the version, as those of several mirrors do.
    pub(crate) has_mirrors: bool,
    /// Whether the server can continue.
    pub(crate) ranges: bool,
    pub(crate) login: Mutex<Login>,
    /// Whether several ranges are fetched at once.
    pub(crate) is_several: bool,
}

/// How large an image may become on the disk of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// One whose length is known.
    pub(crate) known: u64,
    /// One that may go on and on: it leaves something to others.
    pub(crate) unknown: u64,
}

/// How often the login was renewed.
#[derive(Debug, Default)]
pub(crate) struct Login {
    renewals: usize,
    /// Nothing came since the last time.
    is_fresh: bool,
}

/// What one request led to.
enum Step {
    Complete,
    /// Broken off, for a reason that may pass; the server may have said when.
    Again(Error, Option<Duration>),
    /// What is there cannot be continued.
    Restart,
    Changed(Error),
    /// The next request follows at once.
    Onward,
}

impl Transfer<'_> {
    /// Gets all that is missing of `partial`, and gives it back with what became of it: all is there, or the
    /// server has another image by now and is to be asked again, or an error that no patience helps against.
    pub(crate) async fn run(
        &mut self,
        partial: Partial,
    ) -> Result<(Partial, Result<Option<Error>>)> {
        let mut feed = Feed::new(partial);
        let driven = self.drive(&mut feed).await;
        // Whatever happened, the writing ends before the lock is given back.
        let (partial, written) = feed.end().await?;
        Ok((partial, written.and(driven)))
    }

    async fn drive(&mut self, feed: &mut Feed) -> Result<Option<Error>> {
        let mut furthest = feed.length();
        let patience = self.settings.patience;
        let mut retry = Retry::of_download(patience);
        loop {
            self.request.stop().check(STEP)?;
            if self
                .total
                .is_some_and(|total| total > 0 && total == feed.length())
            {
                return Ok(None);
            }
            let step = match self.total.filter(|_| self.is_several) {
                Some(total) => self.several(feed, total).await?,
                None => self.attempt(feed).await?,
            };
            if feed.length() > furthest {
                furthest = feed.length();
                retry.progressed();
                // A login that worked until now may run out once more.
                self.login.get_mut().is_fresh = false;
            }
            match step {
                Step::Complete => return Ok(None),
                Step::Changed(error) => return Ok(Some(error)),
                Step::Restart => feed.restart().await?,
                Step::Onward => {}
                Step::Again(error, asked) => {
                    let Some(wait) = retry.next(asked) else {
                        let came = (feed.length(), self.total);
                        return Err(gave_up(error, asked, patience, came));
                    };
                    tracing::info!(error = %error.chain(), ?wait, "the download is tried again");
                    self.request
                        .stop()
                        .or(STEP, tokio::time::sleep(wait))
                        .await?;
                }
            }
        }
    }

    /// One request, and the bytes that it brings.
    async fn attempt(&mut self, feed: &mut Feed) -> Result<Step> {
        let start = feed.length();
        if start > 0 && !self.ranges {
            return Ok(Step::Restart);
        }
        let range = (start > 0).then_some(ByteRange { start, end: None });
        let response = match self.ask(range).await? {
            Ok(response) => response,
            Err(step) => return Ok(step),
        };
        if let Some(step) = self.begins(&response, range) {
            return Ok(step);
        }
        self.server = Some(response.url().clone());
        if response.status() != StatusCode::PARTIAL_CONTENT && start > 0 {
            // All of it comes again.
            self.ranges = false;
            feed.restart().await?;
        }
        if let Some(total) = self.total {
            self.check_size(total)?;
        }
        self.take(response, feed).await
    }

    /// Sends one request; what is no answer with bytes is a step already.
    async fn ask(&self, range: Option<ByteRange>) -> Result<Result<Response, Step>> {
        let stop = self.request.stop();
        let renewals = self.login.lock().await.renewals;
        let made = stop
            .or(STEP, self.origin.request(self.object, range))
            .await?;
        let request = match made {
            Ok(request) => self.completed(request, range)?,
            Err(error) if is_passing(&error) => return Ok(Err(Step::Again(error, None))),
            Err(error) => return Err(error),
        };
        let sent = stop
            .or(STEP, self.origin.client().send_once(request))
            .await?;
        let response = match sent {
            Ok(response) => response,
            Err(error) if is_passing(&error) => return Ok(Err(Step::Again(error, None))),
            Err(error) => return Err(error),
        };
        let status = response.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(Ok(response));
        }
        self.refused(response, range, renewals).await.map(Err)
    }

    fn completed(&self, mut request: Request, range: Option<ByteRange>) -> Result<Request> {
        let headers = request.headers_mut();
        // What is hashed and counted is what the server has, not a form packed for the way.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(range) = range {
            let end = range.end.map_or(String::new(), |end| (end - 1).to_string());
            let text = format!("bytes={}-{end}", range.start);
            headers.insert(RANGE, header(&text)?);
            let validator = self.validator.as_ref().filter(|_| !self.is_pinned);
            if let Some(text) = validator.and_then(Validator::if_range) {
                headers.insert(IF_RANGE, header(text)?);
            }
        }
        Ok(request)
    }

    /// What follows an answer that is none to a request that was made after so many renewals of the login.
    async fn refused(
        &self,
        response: Response,
        range: Option<ByteRange>,
        renewals: usize,
    ) -> Result<Step> {
        let status = response.status();
        let url = shown(response.url());
        let asked = retry_after(response.headers());
        let said = quoted(response).await;
        let told = |kind, what: &str| {
            Error::new(kind, format!("{what}: the server answers {status}{said}")).subject(&url)
        };
        let unavailable = |what| told(ErrorKind::Unavailable, what);
        match status.as_u16() {
            204 | 205 => Err(unavailable("there are no bytes of the image")
                .advice("it may not be uploaded yet: look at it at its server")),
            401 | 403 => {
                // Others may find the same at the same time, and wait here for the first of them.
                let mut login = self.request.stop().or(STEP, self.login.lock()).await?;
                if login.renewals != renewals {
                    return Ok(Step::Again(unavailable("the login ran out"), None));
                }
                // Once without progress: a right that was withdrawn does not come back by asking.
                if !login.is_fresh {
                    match self.request.stop().or(STEP, self.origin.renew()).await? {
                        Ok(true) => {
                            login.renewals += 1;
                            login.is_fresh = true;
                            return Ok(Step::Again(unavailable("the login ran out"), None));
                        }
                        Ok(false) => {}
                        Err(error) if is_passing(&error) => return Ok(Step::Again(error, None)),
                        Err(error) => return Err(error),
                    }
                }
                Err(
                    told(ErrorKind::PermissionDenied, "the image is refused to us")
                        .advice("check the credentials, and what they may read"),
                )
            }
            404 | 410 => Ok(Step::Changed(
                told(ErrorKind::NotFound, "the image is not there any more")
                    .advice("look whether it was removed or renamed at its server"),
            )),
            412 => Ok(Step::Changed(unavailable(
                "the image was replaced meanwhile",
            ))),
            416 if range.is_some() => Ok(Step::Changed(
                unavailable("the download cannot be continued where it broke off")
                    .advice("the image may have been replaced by a smaller one"),
            )),
            _ if is_busy(status) => Ok(Step::Again(
                unavailable("the image could not be fetched now"),
                asked,
            )),
            _ => Err(unavailable("the image could not be fetched")
                .advice("check the address; the server's log may say more")),
        }
    }

    /// Compares the head of an answer with what is known; `None` where the bytes are the right ones.
    fn begins(&mut self, response: &Response, range: Option<ByteRange>) -> Option<Step> {
        let headers = response.headers();
        let url = shown(response.url());
        let start = range.map_or(0, |range| range.start);
        if let Some(now) = replaced(self.validator.as_ref(), headers) {
            // Of a first answer, and of one that brings everything anew, all bytes are of one version.
            let is_first = start == 0 && !self.has_mirrors;
            let begins_anew = self.has_mirrors && response.status() == StatusCode::OK;
            if !(self.is_pinned || is_first || begins_anew) {
                let what = format!(
                    "the image was replaced while it was downloaded: its ETag or date is now {now}"
                );
                return Some(Step::Changed(unavailable(what, url)));
            }
            tracing::debug!(
                now,
                url,
                "another mirror answers, or the image was replaced just now"
            );
            self.validator = Validator::of(headers);
            self.has_mirrors = true;
        }
        let total = if response.status() == StatusCode::PARTIAL_CONTENT {
            let Some((_, total)) = content_range(headers).filter(|found| found.0 == start) else {
                let found = headers.get(CONTENT_RANGE).map(|text| format!("{text:?}"));
                tracing::warn!(
                    ?found,
                    start,
                    url,
                    "the server sends another range than was asked for"
                );
                if range.is_none() {
                    // There is nothing that could be asked for instead.
                    let what =
                        "the server sends a part of the image, while all of it was asked for";
                    return Some(Step::Again(unavailable(what, url), None));
                }
                self.ranges = false;
                return Some(Step::Restart);
            };
            total
        } else {
            content_length(headers)
        };
        match (self.total, total) {
            (Some(known), Some(said)) if known != said => {
                let what =
                    format!("the image should have {known} bytes, and the server announces {said}");
                let advice = "it was replaced, or the server is wrong about its length";
                Some(Step::Changed(unavailable(what, url).advice(advice)))
            }
            (None, Some(said)) => {
                self.total = Some(said);
                None
            }
            _ => None,
        }
    }

    /// Takes the bytes of an answer.
    async fn take(&mut self, mut response: Response, feed: &mut Feed) -> Result<Step> {
        let url = shown(response.url());
        let stall = self.settings.stall;
        loop {
            let waited = tokio::time::timeout(stall, response.chunk());
            let piece = match self.request.stop().or(STEP, waited).await? {
                Err(_) => {
                    let error = Error::timeout("a byte of the image", stall).subject(url);
                    return Ok(Step::Again(error, None));
                }
                Ok(Err(error)) => {
                    return Ok(Step::Again(crate::client::broken(error, &url), None));
                }
                Ok(Ok(piece)) => piece,
            };
            let Some(piece) = piece else {
                let length = feed.length();
                return Ok(match self.total {
                    Some(total) if length < total => {
                        let what =
                            format!("the server ended the image after {length} of {total} bytes");
                        Step::Again(unavailable(what, url), None)
                    }
                    _ => Step::Complete,
                });
            };
            let length = feed.length() + piece.len() as u64;
            self.check_size(length)?;
            if let Some(total) = self.total.filter(|total| length > *total) {
                let what =
                    format!("the image should have {total} bytes, and the server sends more");
                return Ok(Step::Changed(unavailable(what, url)));
            }
            if feed.push(piece).await.is_err() {
                // The writing side knows why, and is asked next.
                return Ok(Step::Complete);
            }
            self.request.progress(length, self.total);
            if self.total == Some(length) {
                return Ok(Step::Complete);
            }
        }
    }

    /// Refuses an image that has so many bytes or more, where that is more than allowed or than the disk has.
    fn check_size(&self, size: u64) -> Result<()> {
        if let Some(limit) = self.limit.filter(|limit| size > *limit) {
            return Err(too_large(size, limit));
        }
        let room = match self.total {
            Some(_) => self.room.known,
            None => self.room.unknown,
        };
        match size <= room {
            true => Ok(()),
            false => Err(no_room(size, room)),
        }
    }
}

fn unavailable(what: impl Into<String>, url: String) -> Error {
    Error::new(ErrorKind::Unavailable, what.into()).subject(url)
}

fn header(text: &str) -> Result<HeaderValue> {
    let what = "the server's ETag of the image fits no header";
    HeaderValue::from_str(text).map_err(|_| Error::new(ErrorKind::Unavailable, what))
}

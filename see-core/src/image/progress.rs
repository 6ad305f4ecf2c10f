//! How far the fetch of an image is: told often, heard as often as the listener likes.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;

/// What a provider is busy with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ImagePhase {
    /// It asks the source which image there is; there is nothing to count.
    #[default]
    Asking,
    /// It waits for another process that fetches or uploads the same image; the numbers are the other's.
    Waiting,
    /// It fetches the image.
    Fetching,
    /// It unpacks what was fetched.
    Unpacking,
    /// It compares what lies on this host with its digest.
    Verifying,
    /// It copies the image to where it was asked for.
    Copying,
    /// A backend uploads the image to the hypervisor's host.
    Uploading,
}

impl ImagePhase {
    /// As a word for people: `fetching`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Asking => "asking",
            Self::Waiting => "waiting for another process",
            Self::Fetching => "fetching",
            Self::Unpacking => "unpacking",
            Self::Verifying => "verifying",
            Self::Copying => "copying",
            Self::Uploading => "uploading",
        }
    }
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ImageReport {
    /// The provider's name; empty before the first one is asked.
    pub provider: &'static str,
    /// What it is busy with.
    pub phase: ImagePhase,
    /// How much of this phase is done, in bytes. It never falls within a phase.
    pub done: u64,
    /// How much there is to do in this phase, in bytes, where that is known.
    pub total: Option<u64>,
}

/// The way from a provider to whoever wants to know how far it is. Cheap to clone, and to tell: a report
/// replaces the one before, so nobody waits, nothing is queued, and a slow listener misses some.
#[derive(Clone)]
pub struct ImageProgress(Arc<watch::Sender<ImageReport>>);

impl ImageProgress {
    /// One that nobody listens to yet.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(ImageReport::default())))
    }

    /// A phase begins: nothing of it is done. A provider that has to begin a phase anew says so in the same
    /// way.
    pub fn phase(&self, phase: ImagePhase, total: Option<u64>) {
        self.0.send_modify(|latest| {
            latest.phase = phase;
            latest.done = 0;
            latest.total = total;
        });
    }

    /// So many bytes of the phase are done, of so many where that is known. A report that falls behind the
    /// one before, of a part that was slower say, is not passed on.
    pub fn report(&self, done: u64, total: Option<u64>) {
        self.0.send_if_modified(|latest| {
            if done < latest.done {
                return false;
            }
            let changed = latest.done != done || latest.total != total;
            latest.done = done;
            latest.total = total;
            changed
        });
    }

    /// The latest report, and each later one that the listener is there for.
    pub fn listen(&self) -> watch::Receiver<ImageReport> {
        self.0.subscribe()
    }

    /// Another provider is asked.
    pub(super) fn begin(&self, provider: &'static str) {
        self.0.send_modify(|latest| {
            *latest = ImageReport {
                provider,
                ..ImageReport::default()
            };
        });
    }
}

impl Default for ImageProgress {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ImageProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ImageProgress")
            .field(&*self.0.borrow())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_sees_the_latest_report_and_none_that_falls_back() {
        let progress = ImageProgress::new();
        let mut listener = progress.listen();
        progress.phase(ImagePhase::Fetching, Some(100));
        for done in [10, 70, 40] {
            progress.report(done, Some(100));
        }
        assert!(listener.has_changed().unwrap());
        let seen = *listener.borrow_and_update();
        assert_eq!((seen.done, seen.total), (70, Some(100)));
        assert!(!listener.has_changed().unwrap());
        progress.phase(ImagePhase::Fetching, None);
        let seen = *listener.borrow_and_update();
        assert_eq!((seen.done, seen.total), (0, None), "begun anew");
    }
}

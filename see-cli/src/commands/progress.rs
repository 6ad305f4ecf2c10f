//! From a provider's progress to the screen: a few reports a second, and always the last one.

use std::time::Duration;

use see_core::{ImagePhase, ImageProgress, ImageReport};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::render::{Feed, Update};

/// The shortest time between two reports, but for the last one.
const EVERY: Duration = Duration::from_millis(250);

/// Hands reports to the screen until it is finished, or dropped.
pub(super) struct Forwarder {
    task: JoinHandle<()>,
    /// Its loss ends the task.
    end: oneshot::Sender<()>,
}

impl Forwarder {
    /// Begins.
    pub(super) fn start(progress: &ImageProgress, feed: Feed) -> Self {
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(forward(progress.listen(), feed, ended));
        Self { task, end }
    }

    /// Ends it, after the last report.
    pub(super) async fn finish(self) {
        drop(self.end);
        // It fails only where showing panics, which is reported where it happens.
        let _ = self.task.await;
    }
}

async fn forward(
    mut reports: watch::Receiver<ImageReport>,
    feed: Feed,
    ended: oneshot::Receiver<()>,
) {
    let mut told = ImageReport::default();
    let going = async {
        while reports.changed().await.is_ok() {
            told = *reports.borrow_and_update();
            tell(told, &feed);
            tokio::time::sleep(EVERY).await;
        }
    };
    tokio::select! {
        biased;
        _ = ended => {}
        () = going => {}
    }
    let last = *reports.borrow();
    if last != told {
        tell(last, &feed);
    }
}

fn tell(report: ImageReport, feed: &Feed) {
    // While it only asks there is nothing to tell.
    if report.phase != ImagePhase::Asking {
        feed.offer(Update::Image(report));
    }
}

//! The thread that shows what happens, and the bounded way to it.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use indicatif::MultiProgress;
use see_core::{Error, Result, RunUpdate};
use tokio::sync::mpsc;

use super::json::Json;
use super::plain::Plain;
use super::terminal::Terminal;
use super::text::Text;
use super::update::{Renderer, Update};
use crate::args::Output;

/// How many updates may wait to be shown.
const QUEUE: usize = 16 * 1024;
/// How many of these places events leave free: for the beginning and the steps of runs, which are few.
const NOT_FOR_EVENTS: usize = 64;

/// The way to the screen; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    updates: mpsc::Sender<Update>,
    not_shown: Arc<AtomicU64>,
}

impl Feed {
    /// Hands an update over, and waits for room.
    pub(crate) async fn send(&self, update: Update) {
        if self.updates.send(update).await.is_err() {
            tracing::debug!("the screen is gone");
        }
    }

    /// Hands an update over if there is a place for it; counts it otherwise.
    pub(crate) fn offer(&self, update: Update) {
        let is_event = matches!(update, Update::Run(RunUpdate::Event(_)));
        let is_full = is_event && self.updates.capacity() <= NOT_FOR_EVENTS;
        if is_full || self.updates.try_send(update).is_err() {
            self.not_shown.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many updates found no room so far.
    pub(crate) fn not_shown(&self) -> u64 {
        self.not_shown.load(Ordering::Relaxed)
    }
}

/// The thread that shows updates on stdout.
#[derive(Debug)]
pub(crate) struct Screen {
    thread: JoinHandle<()>,
}

impl Screen {
    /// Starts it: as JSON, with progress on a terminal, or in plain lines.
    ///
    /// # Errors
    /// Where the operating system gives no thread.
    pub(crate) fn start(
        output: Output,
        is_verbose: bool,
        progress: MultiProgress,
    ) -> Result<(Self, Feed)> {
        let stdout = io::stdout();
        let mut renderer: Box<dyn Renderer> = match output {
            Output::Json => Box::new(Json::new(stdout)),
            Output::Text if stdout.is_terminal() => {
                Box::new(Text::new(Terminal::new(progress), is_verbose))
            }
            Output::Text => Box::new(Text::new(Plain::new(stdout), is_verbose)),
        };
        let (updates, mut queue) = mpsc::channel(QUEUE);
        let feed = Feed {
            updates,
            not_shown: Arc::default(),
        };
        let thread = std::thread::Builder::new()
            .name(String::from("seectl-screen"))
            .spawn(move || {
                let mut watched = true;
                // The queue is emptied even when nobody watches: the run goes on, and it is recorded.
                while let Some(update) = queue.blocking_recv() {
                    if watched && let Err(error) = renderer.show(&update) {
                        tracing::warn!("stdout cannot be written any more: {error}");
                        watched = false;
                    }
                }
            })
            .map_err(|error| Error::io("the screen's thread cannot be started", error))?;
        Ok((Self { thread }, feed))
    }

    /// Waits until everything is shown; every feed must be gone by then.
    pub(crate) async fn finish(self) {
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("what happened could not be shown to its end");
        }
    }
}

#[cfg(test)]
mod tests {
    use see_core::Event;

    use super::*;

    #[test]
    fn events_leave_places_free_for_what_begins_and_ends() {
        let (updates, _queue) = mpsc::channel(NOT_FOR_EVENTS + 1);
        let feed = Feed {
            updates,
            not_shown: Arc::default(),
        };
        for _ in 0..2 {
            feed.offer(Update::Run(RunUpdate::Event(Event::new("flood"))));
        }
        assert_eq!(feed.not_shown(), 1);
        feed.offer(Update::Run(RunUpdate::Started("teardown")));
        assert_eq!(feed.not_shown(), 1);
    }
}

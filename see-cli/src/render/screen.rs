//! The thread that shows what happens, and the bounded way to it.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use indicatif::MultiProgress;
use see_core::{Error, Event, ImageReport, Result};
use tokio::sync::mpsc;

use super::json::Json;
use super::plain::Plain;
use super::terminal::Terminal;
use super::text::Text;
use crate::args::Output;
use crate::outcome::{Header, RunResult, StepResult};

/// How many events may wait to be shown.
const QUEUE: usize = 16 * 1024;

/// Something to show.
#[derive(Debug)]
pub(crate) enum Update {
    /// A run begins.
    Begin(Box<Header>),
    /// A step outside the protocol begins: `check`, `allocate`, `teardown`.
    Started(&'static str),
    /// It ended.
    Ended(StepResult),
    /// An event of the environment.
    Event(Event),
    /// How far the fetch of an image is.
    Image(ImageReport),
    /// Something begins that is no step of a run.
    Working(String),
    /// One thing that was done outside a run, in words and for programs.
    Told {
        /// Whether it went well; `None` where it is just told.
        is_good: Option<bool>,
        /// A line for people.
        words: String,
        /// The object for programs.
        json: serde_json::Value,
    },
    /// The sum of a command that is no run: for programs alone.
    Result(serde_json::Value),
    /// A word about the run itself.
    Note(String),
    /// The run ended.
    Finished(Box<RunResult>),
    /// What ended the command before a run began.
    Failed(String),
    /// All runs ended, where there were several.
    Summary(Vec<RunResult>),
}

/// Shows updates. An error means that nobody can see any more.
pub(super) trait Renderer: Send {
    fn show(&mut self, update: &Update) -> io::Result<()>;
}

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

    /// Hands an update over if there is room; counts it otherwise.
    pub(crate) fn offer(&self, update: Update) {
        if self.updates.try_send(update).is_err() {
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
    pub(crate) fn start(output: Output, progress: MultiProgress) -> Result<(Self, Feed)> {
        let stdout = io::stdout();
        let mut renderer: Box<dyn Renderer> = match output {
            Output::Json => Box::new(Json::new(stdout)),
            Output::Text if stdout.is_terminal() => Box::new(Text::new(Terminal::new(progress))),
            Output::Text => Box::new(Text::new(Plain::new(stdout))),
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

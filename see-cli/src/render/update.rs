//! What there is to show, and what shows it.

use std::io;
use std::path::PathBuf;

use see_core::{ErrorReport, ImageReport, RunResult, RunUpdate};

/// Something to show.
#[derive(Debug)]
pub(crate) enum Update {
    /// Runs will begin: in what machine, and how many.
    Machine {
        /// The machine in a few words that follow what runs in it.
        words: String,
        /// How many runs there will be.
        runs: usize,
    },
    /// Something happened in a run.
    Run(RunUpdate),
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
    /// A signal was heard: what is under way ends.
    Interrupted(String),
    /// The run ended.
    Finished(Box<RunResult>),
    /// What ended the command before a run began.
    Failed(Vec<ErrorReport>),
    /// All runs ended, where there were several.
    Summary {
        /// Those that began, in order.
        results: Vec<RunResult>,
        /// The samples that were not run any more.
        not_run: Vec<PathBuf>,
    },
}

/// Shows updates. An error means that nobody can see any more.
pub(super) trait Renderer: Send {
    fn show(&mut self, update: &Update) -> io::Result<()>;
}

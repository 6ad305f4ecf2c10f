//! When a run is cut off.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use see_tests::{Home, Live, until};
use serde_json::Value;

use crate::arena::PATIENCE;

/// How often a record is looked at: its lines are milliseconds apart.
const PERIOD: Duration = Duration::from_micros(200);

/// A part of a run's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Allocate,
    PowerOn,
    /// The allocation of a run whose disk is a whole copy.
    FullClone,
    Teardown,
}

impl Phase {
    /// All of them; a container's root is always a copy, and a large one takes its time.
    pub(crate) const ALL: [Self; 4] = [
        Self::Allocate,
        Self::PowerOn,
        Self::FullClone,
        Self::Teardown,
    ];

    /// The run file of a run that is cut off in it.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::FullClone => "copy.json",
            _ => "run.json",
        }
    }

    /// The step whose beginning is its own.
    pub(crate) fn step(self) -> &'static str {
        match self {
            Self::Allocate | Self::FullClone => "allocate",
            Self::PowerOn => "poweron",
            Self::Teardown => "teardown",
        }
    }
}

/// An instant of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At {
    /// As soon as the ledger's record has so many lines.
    Line(usize),
    /// So long after the beginning of a phase.
    Within(Phase, Duration),
    /// Never: it comes to its end.
    Never,
}

impl At {
    /// Waits for it; whether it came before the run's end.
    pub(crate) fn come(self, home: &Home, live: &mut Live, identifier: &str) -> bool {
        match self {
            Self::Line(lines) => Follower::new(home, identifier).reaches(lines, live),
            Self::Within(phase, delay) => {
                let begun = live.wait_for("beginning of a phase", PATIENCE, |line| {
                    line["event"] == "step_started" && line["attributes"]["step"] == phase.step()
                });
                let begin = Instant::now();
                until("an instant", delay + PATIENCE, || {
                    begin.elapsed() >= delay || !live.runs()
                });
                begun.is_some() && live.runs()
            }
            Self::Never => false,
        }
    }

    /// Whether it is an instant of the teardown.
    pub(crate) fn is_in_teardown(self) -> bool {
        matches!(self, Self::Within(Phase::Teardown, _))
    }

    /// Whether what was said so far shows that the phase is over.
    pub(crate) fn is_late(self, said: &[String]) -> bool {
        let Self::Within(phase, _) = self else {
            return false;
        };
        said.iter().any(|line| end_of(phase.step(), line).is_some())
    }
}

/// When a step was over, in seconds since the epoch, where a line says so.
pub(crate) fn end_of(step: &str, line: &str) -> Option<f64> {
    let line: Value = serde_json::from_str(line).ok()?;
    let is_end = line["event"] == "step_finished" && line["attributes"]["step"] == step;
    is_end.then(|| line["timestamp"].as_f64()).flatten()
}

/// Reads a record while it is written. It stays readable after its removal.
pub(crate) struct Follower {
    path: std::path::PathBuf,
    file: Option<File>,
    text: Vec<u8>,
}

impl Follower {
    pub(crate) fn new(home: &Home, identifier: &str) -> Self {
        Self {
            path: home.path(&format!("state/ledger/{identifier}.jsonl")),
            file: None,
            text: Vec::new(),
        }
    }

    /// Waits until the record has so many lines; false when the run ended by then.
    fn reaches(&mut self, lines: usize, live: &mut Live) -> bool {
        let end = Instant::now() + PATIENCE;
        loop {
            let ended = !live.runs();
            // A run that has ended wrote all of its lines: none is left to be cut off after.
            if self.lines() >= lines || ended {
                return !ended;
            }
            assert!(Instant::now() < end, "no line {lines} in {PATIENCE:?}");
            std::thread::sleep(PERIOD);
        }
    }

    /// The whole record of a run that comes to its end.
    pub(crate) fn whole(mut self, live: &mut Live) -> Vec<Value> {
        self.reaches(usize::MAX, live);
        let text = String::from_utf8(self.text).expect("a record is text");
        let lines = text.lines();
        lines
            .map(|line| serde_json::from_str(line).expect("a record is lines of JSON"))
            .collect()
    }

    fn lines(&mut self) -> usize {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        let Some(file) = &mut self.file else { return 0 };
        let long = file.metadata().expect("an open file has a length").size();
        if long > self.text.len() as u64 {
            file.read_to_end(&mut self.text).expect("it can be read");
        }
        self.text.iter().filter(|byte| **byte == b'\n').count()
    }
}

/// How many lines of a whole record are written until all is made.
pub(crate) fn made(record: &[Value]) -> usize {
    let last = record
        .iter()
        .rposition(|line| line.get("created").is_some());
    last.expect("something is made") + 1
}

/// After which lines of a whole record a run can be cut off: after each but those that were written together.
pub(crate) fn steps(record: &[Value]) -> Vec<usize> {
    let intends = |line: Option<&Value>| line.is_some_and(|line| line.get("intend").is_some());
    (1..=record.len())
        .filter(|lines| !(intends(record.get(lines - 1)) && intends(record.get(*lines))))
        .collect()
}

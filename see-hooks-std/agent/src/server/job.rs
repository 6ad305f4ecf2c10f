//! The programs in the background that an agent remembers, and what they wrote.

use super::lock;
use crate::protocol::{FailureCode, JobState, Outcome, Reply, Stream};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// The jobs that an agent remembers, over sessions.
#[derive(Debug)]
pub(super) struct Jobs {
    state: Mutex<State>,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    last: u32,
    jobs: BTreeMap<u32, Arc<Job>>,
}

/// One program in the background.
#[derive(Debug)]
pub(super) struct Job {
    record: Mutex<Record>,
    kill: AtomicBool,
}

#[derive(Debug)]
struct Record {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    state: JobState,
}

impl Jobs {
    pub(super) fn new(most: usize) -> Self {
        Self {
            state: Mutex::default(),
            most,
        }
    }

    /// A number for a new job. The oldest one that has ended makes room.
    pub(super) fn add(&self) -> Result<(u32, Arc<Job>), Reply> {
        let mut state = lock(&self.state);
        if state.jobs.len() >= self.most {
            let ended = state.jobs.iter().find(|(_, job)| job.has_ended());
            let Some(oldest) = ended.map(|(number, _)| *number) else {
                let message = format!("{} programs run in the background already", self.most);
                return Err(Reply::failed(FailureCode::Busy, message));
            };
            state.jobs.remove(&oldest);
        }
        // Zero means the foreground; a number in use is stepped over.
        loop {
            state.last = state.last.wrapping_add(1).max(1);
            if !state.jobs.contains_key(&state.last) {
                break;
            }
        }
        let job = Arc::new(Job {
            record: Mutex::new(Record {
                stdout: Vec::new(),
                stderr: Vec::new(),
                state: JobState::Running,
            }),
            kill: AtomicBool::new(false),
        });
        let number = state.last;
        state.jobs.insert(number, Arc::clone(&job));
        Ok((number, job))
    }

    pub(super) fn remove(&self, number: u32) {
        lock(&self.state).jobs.remove(&number);
    }

    pub(super) fn find(&self, number: u32) -> Result<Arc<Job>, Reply> {
        lock(&self.state).jobs.get(&number).cloned().ok_or_else(|| {
            let message = format!("there is no program {number} in the background");
            Reply::failed(FailureCode::NotFound, message)
        })
    }
}

impl Job {
    fn has_ended(&self) -> bool {
        lock(&self.record).state != JobState::Running
    }

    pub(super) fn state(&self) -> JobState {
        lock(&self.record).state
    }

    /// At most `most` bytes of what it wrote, from this offset on.
    pub(super) fn written(&self, stream: Stream, from: u64, most: usize) -> Vec<u8> {
        let record = lock(&self.record);
        let kept = match stream {
            Stream::Stdout => &record.stdout,
            Stream::Stderr => &record.stderr,
        };
        let from = usize::try_from(from).unwrap_or(usize::MAX).min(kept.len());
        kept[from..].iter().take(most).copied().collect()
    }

    /// Asks for its end; false when it has ended already.
    pub(super) fn kill(&self) -> bool {
        self.kill.store(true, Ordering::Relaxed);
        !self.has_ended()
    }

    pub(super) fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut record = lock(&self.record);
        match stream {
            Stream::Stdout => record.stdout.extend_from_slice(bytes),
            Stream::Stderr => record.stderr.extend_from_slice(bytes),
        }
    }

    pub(super) fn end(&self, outcome: Outcome) {
        lock(&self.record).state = JobState::Ended(outcome);
    }

    pub(super) fn is_killed(&self) -> bool {
        self.kill.load(Ordering::Relaxed)
    }
}

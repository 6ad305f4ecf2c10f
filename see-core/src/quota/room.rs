//! Room on the host's disks.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{Full, full};
use crate::Error;
use crate::bus::lock;

/// Entries of a folder beyond this count as full: a guest made them.
const MOST_ENTRIES: usize = 100_000;

/// What hooks take down of the machine: pictures, dumps, recordings.
#[derive(Debug, Clone, Default)]
pub(crate) struct Captures(Arc<Mutex<Vec<PathBuf>>>);

impl Captures {
    /// Counts this file, or everything in this folder, from now on.
    pub(crate) fn add(&self, path: PathBuf) {
        let mut paths = lock(&self.0);
        // One more than may be there tells that there are too many.
        if paths.len() <= MOST_ENTRIES {
            paths.push(path);
        }
    }
}

/// Something on the disk that may grow up to a limit.
#[derive(Debug)]
pub(super) struct Room {
    key: &'static str,
    place: Place,
    limit: u64,
    /// The bytes that do not count: those that were used before the run.
    before: AtomicU64,
}

#[derive(Debug)]
enum Place {
    Paths(Vec<PathBuf>),
    Captures(Captures),
}

impl Room {
    pub(super) fn of_paths(key: &'static str, paths: Vec<PathBuf>, limit: u64) -> Self {
        Self {
            key,
            place: Place::Paths(paths),
            limit,
            before: AtomicU64::new(0),
        }
    }

    pub(super) fn of_captures(captures: Captures, limit: u64) -> Self {
        Self {
            key: "captures",
            place: Place::Captures(captures),
            limit,
            before: AtomicU64::new(0),
        }
    }

    /// What lies there already does not count.
    pub(super) fn begin(&self) {
        self.before.store(self.used(), Ordering::Relaxed);
    }

    /// What is used, where the limit is reached.
    pub(super) fn reached(&self) -> Option<Full> {
        let used = self.used();
        let grown = used.saturating_sub(self.before.load(Ordering::Relaxed));
        (grown > self.limit).then_some(Full { used })
    }

    /// The error for a limit that was reached. What is used by then does not count any more.
    pub(super) fn told(&self, reached: Full) -> Error {
        self.before.store(reached.used, Ordering::Relaxed);
        full(self.key, self.key, self.limit)
    }

    fn used(&self) -> u64 {
        let sum = |paths: &[PathBuf]| {
            let used = paths.iter().map(|path| used(path));
            used.fold(0, u64::saturating_add)
        };
        match &self.place {
            Place::Paths(paths) => sum(paths),
            Place::Captures(captures) => {
                let paths = lock(&captures.0).clone();
                if paths.len() > MOST_ENTRIES {
                    return u64::MAX;
                }
                sum(&paths)
            }
        }
    }
}

/// The bytes that a file, or everything in a folder, takes on the disk. Links are not followed.
fn used(path: &Path) -> u64 {
    let mut sum: u64 = 0;
    let mut entries = 0;
    let mut waiting = vec![path.to_owned()];
    while let Some(path) = waiting.pop() {
        entries += 1;
        if entries > MOST_ENTRIES {
            return u64::MAX;
        }
        // What is gone takes no room.
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        sum = sum.saturating_add(found.blocks() * 512);
        if found.is_dir() {
            let inside = fs::read_dir(&path).into_iter().flatten().flatten();
            waiting.extend(inside.take(MOST_ENTRIES + 1).map(|entry| entry.path()));
        }
    }
    sum
}

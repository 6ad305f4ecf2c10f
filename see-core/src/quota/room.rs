//! Room on the host's disks.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::{Full, full};
use crate::sync::lock;
use crate::{Error, ErrorKind};

/// Entries of a folder beyond this are not counted: a guest made them.
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
    /// Entries beyond this are not counted: a guest made them.
    most_entries: usize,
    /// It was told already that there are more.
    told_entries: AtomicBool,
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
            most_entries: MOST_ENTRIES,
            told_entries: AtomicBool::new(false),
        }
    }

    pub(super) fn of_captures(captures: Captures, limit: u64) -> Self {
        Self {
            key: "captures",
            place: Place::Captures(captures),
            limit,
            before: AtomicU64::new(0),
            most_entries: MOST_ENTRIES,
            told_entries: AtomicBool::new(false),
        }
    }

    /// What lies there already does not count.
    pub(super) fn begin(&self) {
        let used = self.used().unwrap_or_default();
        self.before.store(used, Ordering::Relaxed);
    }

    /// What is used, where the limit is reached, or where there is more than can be counted.
    pub(super) fn reached(&self) -> Option<Full> {
        let Some(used) = self.used() else {
            let is_told = self.told_entries.load(Ordering::Relaxed);
            return (!is_told).then_some(Full { used: None });
        };
        let grown = used.saturating_sub(self.before.load(Ordering::Relaxed));
        (grown > self.limit).then_some(Full { used: Some(used) })
    }

    /// The error for a limit that was reached. What is used by then does not count any more.
    pub(super) fn told(&self, reached: Full) -> Error {
        let Some(used) = reached.used else {
            self.told_entries.store(true, Ordering::Relaxed);
            let (key, most) = (self.key, self.most_entries);
            let message = format!("there are more than {most} files in {key}, too many to measure");
            return Error::new(ErrorKind::Exhausted, message).advice(format!(
                "`context.limits.{key}` bounds what can be measured: begin with an empty folder, or keep less"
            ));
        };
        self.before.store(used, Ordering::Relaxed);
        full(self.key, self.key, self.limit)
    }

    /// The bytes that are used; `None` where there are too many entries to look at.
    fn used(&self) -> Option<u64> {
        let sum = |paths: &[PathBuf]| {
            let mut used = paths.iter().map(|path| used(path, self.most_entries));
            used.try_fold(0_u64, |sum, used| Some(sum.saturating_add(used?)))
        };
        match &self.place {
            Place::Paths(paths) => sum(paths),
            Place::Captures(captures) => {
                let paths = lock(&captures.0).clone();
                (paths.len() <= self.most_entries).then(|| sum(&paths))?
            }
        }
    }
}

/// The bytes that a file, or everything in a folder, takes on the disk; `None` where it has more entries than
/// `most`. Links in the folder are not followed.
fn used(root: &Path, most: usize) -> Option<u64> {
    let mut sum: u64 = 0;
    let mut entries = 0;
    // The folder itself may be a link: where it leads to is what fills.
    let root = fs::canonicalize(root).unwrap_or_else(|_| root.to_owned());
    let mut waiting = vec![root];
    while let Some(path) = waiting.pop() {
        entries += 1;
        if entries > most {
            return None;
        }
        // What is gone takes no room.
        let Ok(found) = fs::symlink_metadata(&path) else {
            continue;
        };
        sum = sum.saturating_add(found.blocks() * 512);
        if found.is_dir() {
            let inside = fs::read_dir(&path).into_iter().flatten().flatten();
            waiting.extend(inside.take(most + 1).map(|entry| entry.path()));
        }
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(folder: &Path, limit: u64) -> Room {
        Room {
            most_entries: 20,
            ..Room::of_paths("results", vec![folder.to_owned()], limit)
        }
    }

    fn fill(folder: &Path, files: usize) {
        for index in 0..files {
            fs::write(folder.join(index.to_string()), [1]).unwrap();
        }
    }

    #[test]
    fn more_files_than_can_be_counted_end_a_run_once_and_are_named_even_if_they_were_there_before()
    {
        for before in [0, 30] {
            let folder = tempfile::tempdir().unwrap();
            fill(folder.path(), before);
            let room = results(folder.path(), u64::MAX);
            room.begin();
            fill(folder.path(), 30);
            let reached = room.reached().expect("it cannot be measured");
            let error = room.told(reached).to_string();
            assert!(error.contains("more than 20 files"), "{error}");
            assert!(error.contains("`context.limits.results`"), "{error}");
            assert!(room.reached().is_none());
        }
    }

    #[test]
    fn a_results_folder_behind_a_link_is_measured_and_links_in_it_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, vec![1; 200_000]).unwrap();
        let room = results(&link, 100_000);
        room.begin();
        std::os::unix::fs::symlink(&elsewhere, real.join("elsewhere")).unwrap();
        assert!(room.reached().is_none());
        fs::write(real.join("new"), vec![1; 200_000]).unwrap();
        assert!(room.reached().is_some());
    }
}

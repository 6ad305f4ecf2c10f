//! What a run may use of the host: time, and room for what the guest writes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::config::Size;
use crate::settings::Limits;
use crate::{Error, ErrorKind, Sandbox};

/// How often the room is measured.
const INTERVAL: Duration = Duration::from_millis(250);
/// Entries of a folder beyond this count as full: a guest made them.
const MOST_ENTRIES: usize = 100_000;

/// The limits of one run.
#[derive(Debug, Clone)]
pub struct RunLimits {
    pub(crate) time: Duration,
    disk: Option<u64>,
    console: Option<u64>,
    results: Option<(PathBuf, u64)>,
}

impl RunLimits {
    /// A run that has this much time, and no other limit.
    pub fn time(time: Duration) -> Self {
        Self {
            time,
            disk: None,
            console: None,
            results: None,
        }
    }

    /// The limits of a context section; those of the results hold for the folder `results`.
    pub fn new(limits: &Limits, results: Option<PathBuf>) -> Self {
        Self {
            time: limits.run.0,
            disk: Some(limits.disk.0),
            console: Some(limits.console.0),
            results: results.map(|folder| (folder, limits.results.0)),
        }
    }

    /// Begins to measure: what lies there already does not count.
    pub(crate) async fn watch(&self, sandbox: &dyn Sandbox) -> Quotas {
        let mut quotas = Vec::new();
        if let Some(limit) = self.disk {
            quotas.push(Quota::new("disk", sandbox.disks(), limit));
        }
        if let (Some(limit), Some(console)) = (self.console, sandbox.console()) {
            quotas.push(Quota::new("console", vec![console.log().to_owned()], limit));
        }
        if let Some((folder, limit)) = &self.results {
            quotas.push(Quota::new("results", vec![folder.clone()], *limit));
        }
        // Looking at files waits for the disk, so it has a thread of its own.
        let measured = tokio::task::spawn_blocking(move || {
            for quota in &mut quotas {
                quota.before = quota.used();
            }
            Quotas(Arc::new(quotas))
        });
        measured.await.unwrap_or_default()
    }
}

/// What is measured during a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Quotas(Arc<Vec<Quota>>);

#[derive(Debug)]
struct Quota {
    key: &'static str,
    paths: Vec<PathBuf>,
    limit: u64,
    /// The bytes that were used before the run.
    before: u64,
}

impl Quota {
    fn new(key: &'static str, paths: Vec<PathBuf>, limit: u64) -> Self {
        Self {
            key,
            paths,
            limit,
            before: 0,
        }
    }

    fn used(&self) -> u64 {
        self.paths.iter().map(|path| used(path)).sum()
    }

    fn is_reached(&self) -> bool {
        self.used().saturating_sub(self.before) > self.limit
    }

    fn error(&self) -> Error {
        let limit = Size(self.limit);
        Error::new(
            ErrorKind::Exhausted,
            format!("the {} reached the limit of {limit}", self.key),
        )
        .advice(format!("it is the key `context.limits.{}`", self.key))
    }
}

impl Quotas {
    /// Waits until one of the limits is reached; for ever where none is.
    pub(crate) async fn reached(&self) -> Error {
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            let quotas = Arc::clone(&self.0);
            let looked = tokio::task::spawn_blocking(move || {
                let reached = quotas.iter().find(|quota| quota.is_reached());
                reached.map(Quota::error)
            });
            if let Ok(Some(error)) = looked.await {
                return error;
            }
        }
    }
}

/// The bytes that a file, or everything in a folder, takes on the disk. Links are not followed.
fn used(path: &Path) -> u64 {
    let mut sum = 0;
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
        sum += found.blocks() * 512;
        if found.is_dir() {
            let inside = fs::read_dir(&path).into_iter().flatten().flatten();
            waiting.extend(inside.take(MOST_ENTRIES + 1).map(|entry| entry.path()));
        }
    }
    sum
}

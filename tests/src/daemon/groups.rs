//! The control groups that a private daemon leaves.

use std::path::Path;
use std::time::{Duration, Instant};

const HIERARCHIES: &str = "/sys/fs/cgroup";
/// The kernel empties the groups of processes that it killed a moment later.
const PATIENCE: Duration = Duration::from_secs(5);

/// Removes the groups of this name, with those in them, from every hierarchy.
///
/// # Panics
/// When one cannot be removed, unless the test fails already.
pub(super) fn remove(name: &str) {
    let hierarchies = std::fs::read_dir(HIERARCHIES)
        .into_iter()
        .flatten()
        .flatten();
    let mut left: Vec<_> = hierarchies.map(|entry| entry.path().join(name)).collect();
    left.push(Path::new(HIERARCHIES).join(name));
    let end = Instant::now() + PATIENCE;
    loop {
        left.retain(|folder| folder.is_dir());
        for folder in &left {
            remove_tree(folder);
        }
        left.retain(|folder| folder.is_dir());
        if left.is_empty() {
            return;
        }
        if Instant::now() >= end {
            assert!(
                std::thread::panicking(),
                "control groups are left: {left:?}"
            );
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The files of a control group go with its folder.
fn remove_tree(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // One that is not empty yet is tried again.
    let _ = std::fs::remove_dir(folder);
}

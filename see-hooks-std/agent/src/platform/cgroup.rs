//! A control group (cgroup v2) around each program: its descendants cannot leave it, whatever sessions and process
//! groups they make, and all of them are killed at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, id};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// A group is a process's own, so that one program is started at a time.
static MOVING: Mutex<()> = Mutex::new(());
static COUNT: AtomicU64 = AtomicU64::new(0);

/// The group of one program. It is removed when it is dropped, unless somebody is still in it.
#[derive(Debug)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// Starts a program in a group of its own; without one where the guest has no cgroup v2, or none that this process
    /// may change.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Option<Self>)> {
        let _moving = MOVING.lock().unwrap_or_else(PoisonError::into_inner);
        // A child begins in its parent's group: moved there afterwards, it might have children already.
        let entered = own().and_then(|home| {
            let group = Self::new(&home)?;
            enter(&group.0).ok()?;
            Some((home, group))
        });
        let Some((home, group)) = entered else {
            return Ok((command.spawn()?, None));
        };
        let child = command.spawn();
        // In the program's group this process would be killed with it.
        let is_back = enter(&home).is_ok();
        Ok((child?, is_back.then_some(group)))
    }

    fn new(home: &Path) -> Option<Self> {
        let own = format!("see-{}-", id());
        for entry in fs::read_dir(home).ok()?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(&own) {
                // Where somebody was left in it, and is gone now; the kernel keeps one that has anybody in it.
                drop(fs::remove_dir(entry.path()));
            }
        }
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = home.join(format!("{own}{number}"));
        fs::create_dir(&path).ok()?;
        Some(Self(path))
    }

    /// Kills everybody in it, where the kernel can (Linux 5.14).
    pub(crate) fn kill(&self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What a program leaves behind goes on in it; the next program's start tries again.
        drop(fs::remove_dir(&self.0));
    }
}

/// Moves this process into a group.
fn enter(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), "0")
}

/// The folder of this process's own group.
fn own() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then_some(place)
    })?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount).join(group))
}

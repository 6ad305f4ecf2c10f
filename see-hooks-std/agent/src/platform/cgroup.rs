//! A control group (cgroup v2) around each program: its descendants cannot leave it, whatever sessions and process
//! groups they make, and all of them are killed at once.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, id};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A group is a process's own, so that one program is started at a time.
static MOVING: Mutex<()> = Mutex::new(());
static COUNT: AtomicU64 = AtomicU64::new(0);
/// What the names of the groups begin with; then come the agent's process number and a count.
const PREFIX: &str = "see-";
/// How long what an agent before left behind may take to end when it is killed.
const LAST_WAIT: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);

fn moving() -> MutexGuard<'static, ()> {
    MOVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a program in this process's own group, never in that of a program that is just being started.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    let _moving = moving();
    command.spawn()
}

/// Kills and removes the groups of agents that are gone. What cannot be removed stays: it is no reason not to start.
pub(crate) fn remove_leftovers() {
    let entries = own().and_then(|home| fs::read_dir(home).ok());
    for entry in entries.into_iter().flatten().flatten() {
        let name = entry.file_name();
        let agent = name.to_str().and_then(|name| {
            let (agent, _) = name.strip_prefix(PREFIX)?.split_once('-')?;
            agent.parse().ok()
        });
        if agent.is_none_or(is_another_agent) {
            continue;
        }
        let group = Cgroup(entry.path());
        let until = Instant::now() + LAST_WAIT;
        let is_killed = group.kill().is_ok();
        while is_killed && fs::remove_dir(&group.0).is_err() && Instant::now() < until {
            thread::sleep(LOOK);
        }
    }
}

/// Whether this number is that of an agent that runs beside this one: a process of the same name.
fn is_another_agent(number: u32) -> bool {
    let name = |process: &str| fs::read(format!("/proc/{process}/comm")).ok();
    number != id() && name(&number.to_string()).is_some_and(|it| Some(it) == name("self"))
}

/// The group of one program. It is removed when it is dropped, unless somebody is still in it.
#[derive(Debug)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// Starts a program in a group of its own; without one where the guest has no cgroup v2, or none that this process
    /// may change.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Option<Self>)> {
        let _moving = moving();
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
        let own = format!("{PREFIX}{}-", id());
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
    pub(crate) fn kill(&self) -> io::Result<()> {
        fs::write(self.0.join("cgroup.kill"), "1")
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

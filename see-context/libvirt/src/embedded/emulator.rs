//! The emulators that a dead process left in its root.
//!
//! libvirt could meet them again and end them, but a process can open one root only, and whoever
//! cleans up may have many to visit.

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Flock, FlockType, Pid, PidfdFlags, Signal, fcntl_getlk, pidfd_open, pidfd_send_signal,
};
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::{EmbeddedRoot, opened_root, subject};
use crate::call;
use crate::error::{Cause, Error};

/// A running emulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emulator {
    /// Its process.
    pub pid: u32,
    /// The domain that it runs.
    pub uuid: Uuid,
}

impl EmbeddedRoot {
    /// The emulators that run on this root, whether or not their owner lives: processes whose
    /// command line names a domain and the inside of the root.
    ///
    /// Blocks for a walk through `/proc`.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn emulators(&self) -> Result<Vec<Emulator>, Error> {
        list(&self.path).map_err(|cause| Error::new("list the emulators of", self.subject(), cause))
    }

    /// Kills the emulators of a root whose owner is dead, and waits for their end. Returns how
    /// many there were.
    ///
    /// The empty control groups stay that libvirt made for them: as root, where no systemd does.
    ///
    /// # Errors
    /// [`Cause::RootLocked`] while the owner lives, [`Cause::OtherRoot`] when that is this
    /// process, missing rights, or the time limit; the signals have been sent then.
    pub async fn end_emulators(&self, limit: Duration) -> Result<usize, Error> {
        let path = self.path.clone();
        let place = std::sync::Arc::new(Semaphore::new(1));
        call::call(
            &place,
            limit,
            "end the emulators of",
            self.subject(),
            move || {
                check_abandoned(&path)?;
                let deadline = Instant::now() + limit;
                let mut ended = Vec::new();
                // Until none is left: one may have been starting while the first were listed.
                loop {
                    let found = list(&path)?;
                    if found.is_empty() {
                        return Ok(ended.len());
                    }
                    for emulator in found {
                        end(&path, emulator, deadline)?;
                        if !ended.contains(&emulator.pid) {
                            ended.push(emulator.pid);
                        }
                    }
                    if Instant::now() > deadline {
                        return Err(late(limit));
                    }
                }
            },
        )
        .await
    }

    fn subject(&self) -> String {
        subject(&self.path)
    }
}

fn late(after: Duration) -> Cause {
    Cause::TimedOut {
        after,
        waiting_for: "killed emulators to end",
    }
}

/// libvirt's driver holds a lock on a file of its root as long as its process lives.
fn check_abandoned(root: &Path) -> Result<(), Cause> {
    // Must come first: closing any descriptor of that file would give up our own lock on it.
    if opened_root().is_some_and(|open| open == root) {
        return Err(Cause::OtherRoot {
            open: root.to_owned(),
        });
    }
    let path = root.join("run/qemu/driver.pid");
    let file = match File::open(&path) {
        Ok(file) => file,
        // Nobody came as far as taking it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Cause::file(path, error)),
    };
    let mut question = Flock::from(FlockType::WriteLock);
    question.length = 1;
    let holder = fcntl_getlk(&file, &question).map_err(|error| Cause::file(path, error.into()))?;
    match holder {
        None => Ok(()),
        Some(lock) => Err(Cause::RootLocked {
            pid: lock
                .pid
                .and_then(|pid| pid.as_raw_nonzero().get().try_into().ok()),
            message: "its lock is held".into(),
        }),
    }
}

fn list(root: &Path) -> Result<Vec<Emulator>, Cause> {
    let inside = root.join("lib/qemu/");
    let entries = fs::read_dir("/proc").map_err(|error| Cause::file("/proc", error))?;
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = pid
            && let Some(uuid) = domain_of(pid, &inside)
        {
            found.push(Emulator { pid, uuid });
        }
    }
    Ok(found)
}

/// The domain that process `pid` emulates, if it works on the root that `inside` is in.
fn domain_of(pid: u32, inside: &Path) -> Option<Uuid> {
    // Empty for a process that has ended and waits to be collected.
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let inside = inside.as_os_str().as_bytes();
    if !line.windows(inside.len()).any(|part| part == inside) {
        return None;
    }
    let mut words = line.split(|&byte| byte == 0);
    words.find(|word| *word == b"-uuid")?;
    Uuid::try_parse_ascii(words.next()?).ok()
}

fn end(root: &Path, emulator: Emulator, deadline: Instant) -> Result<(), Cause> {
    let Some(process) = hold(emulator.pid)? else {
        return Ok(());
    };
    // The number may have passed to another process before it was held.
    if domain_of(emulator.pid, &root.join("lib/qemu/")) != Some(emulator.uuid) {
        return Ok(());
    }
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) => {}
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(failed(emulator.pid, error)),
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left).map_err(|_| late(left))?;
    let mut ends = [PollFd::new(&process, PollFlags::IN)];
    poll(&mut ends, Some(&left)).map_err(|error| failed(emulator.pid, error))?;
    Ok(())
}

pub(super) fn hold(pid: u32) -> Result<Option<OwnedFd>, Cause> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => Ok(Some(process)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(failed(pid.as_raw_nonzero().get().unsigned_abs(), error)),
    }
}

fn failed(pid: u32, error: Errno) -> Cause {
    Cause::file(format!("/proc/{pid}"), error.into())
}

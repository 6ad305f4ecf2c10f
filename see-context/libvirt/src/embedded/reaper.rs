//! Taking emulators that ended from the host's table of processes.
//!
//! libvirt lets QEMU go its own way, so that it becomes an orphan, and a destroy returns only when its number is
//! gone from the table. That is pid 1's duty, which some neglect: the program of a container without an init leaves
//! every orphan a zombie, and each destroy then waits for more than a minute. So this process adopts its orphans
//! itself, as a child subreaper, and reaps the emulators: each by its own pidfd, never "any child", since the
//! program's other children are waited for by others.
//!
//! Which processes these are is told by the files in which they write their own pid. inotify tells of one in the
//! moment it is written, early enough for emulators that fail to start. Nobody else reaps them, so that the number
//! cannot have passed to another process in between.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::{fs, thread};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, getpid, pidfd_open, set_child_subreaper, waitid,
};

use crate::error::Cause;

/// The driver's own, with the pid of this process. Closing it would give up libvirt's lock on it.
const DRIVER: &str = "driver.pid";
/// How libvirt names the folder of an emulator that it asks what it can do.
const PROBE: &[u8] = b"qmp-";
/// Room for a dozen changes; what does not fit is read next.
const CHANGES: usize = 4096;

static FOLDERS: OnceLock<Result<Folders, Cause>> = OnceLock::new();
static ADOPTING: OnceLock<Result<(), Cause>> = OnceLock::new();

/// Reaps the emulators of a root from now on. To be called whenever its folders were made.
///
/// The first call makes this process the one that adopts orphans; whoever takes that back has pid 1 reap them.
pub(super) fn follow(root: &Path) -> Result<(), Cause> {
    let folders = FOLDERS.get_or_init(start).as_ref().map_err(Cause::clone)?;
    folders.watch(root.join("run/qemu"), Kind::Domains)?;
    folders.watch(root.join("lib/qemu"), Kind::Probes)?;
    // Only now, as orphans that nobody reaps would be worse off here than with pid 1.
    ADOPTING
        .get_or_init(|| {
            set_child_subreaper(Some(getpid()))
                .map_err(|error| failed("adopt the emulators", error))
        })
        .clone()
}

fn start() -> Result<Folders, Cause> {
    let changes = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)
        .map_err(|error| failed("learn of emulators", error))?;
    // A thread of its own: on libvirt's event loop some calls of libvirt's wait for an emulator's end.
    thread::Builder::new()
        .name("libvirt-reaper".into())
        .spawn(run)
        .map_err(|error| Cause::Aborted(format!("no thread to reap emulators: {error}")))?;
    Ok(Folders {
        changes,
        known: Mutex::default(),
    })
}

fn failed(what: &str, error: Errno) -> Cause {
    Cause::Aborted(format!("this process cannot {what}: {error}"))
}

/// What is written into a folder that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The pids of domains' emulators.
    Domains,
    /// Folders, one a probe.
    Probes,
    /// The pid of one probe's emulator.
    Probe,
}

/// The watched folders, by the numbers that inotify gives them.
struct Folders {
    changes: OwnedFd,
    known: Mutex<HashMap<i32, (PathBuf, Kind)>>,
}

impl Folders {
    fn known(&self) -> MutexGuard<'_, HashMap<i32, (PathBuf, Kind)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A folder that is watched already stays so.
    fn watch(&self, folder: PathBuf, kind: Kind) -> Result<(), Cause> {
        let wanted = match kind {
            Kind::Domains | Kind::Probe => WatchFlags::MODIFY,
            Kind::Probes => WatchFlags::CREATE,
        };
        // Held meanwhile: its first change must find it known.
        let mut known = self.known();
        let number = inotify::add_watch(&self.changes, &folder, wanted | WatchFlags::ONLYDIR)
            .map_err(|error| Cause::file(&folder, error.into()))?;
        known.insert(number, (folder, kind));
        Ok(())
    }

    /// Holds the emulators that wrote their pid since the last time.
    fn look(&self, held: &mut HashMap<u32, Vec<OwnedFd>>) -> Result<(), Errno> {
        let mut room = [MaybeUninit::uninit(); CHANGES];
        let mut changes = inotify::Reader::new(self.changes.as_fd(), &mut room);
        loop {
            let change = match changes.next() {
                Ok(change) => change,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            if change.events().contains(ReadFlags::IGNORED) {
                // The folder is gone.
                self.known().remove(&change.wd());
                continue;
            }
            let Some(name) = change.file_name().map(|name| name.to_bytes()) else {
                continue;
            };
            let Some((folder, kind)) = self.known().get(&change.wd()).cloned() else {
                continue;
            };
            let path = folder.join(OsStr::from_bytes(name));
            match kind {
                Kind::Domains | Kind::Probe => hold(&path, kind, held),
                Kind::Probes if name.starts_with(PROBE) => {
                    // It may be gone again, and is then none of ours.
                    if self.watch(path.clone(), Kind::Probe).is_ok() {
                        hold(&path.join("qmp.pid"), Kind::Probe, held);
                    }
                }
                Kind::Probes => {}
            }
        }
    }
}

/// Holds the process that wrote this file, if it is such a one.
fn hold(path: &Path, kind: Kind, held: &mut HashMap<u32, Vec<OwnedFd>>) {
    if path.extension().is_none_or(|end| end != "pid") || path.file_name() == Some(DRIVER.as_ref())
    {
        return;
    }
    let Some(pid) = fs::read_to_string(path)
        .ok()
        .and_then(|text| text.trim().parse::<u32>().ok())
    else {
        // Not written to its end: that is another change.
        return;
    };
    if held.contains_key(&pid) {
        return;
    }
    match open(pid) {
        // Probes run in a folder that the emulators' account may own: it must not point at others.
        Ok(Some(process)) if kind == Kind::Domains || is_probe(pid, path) => {
            let mut processes = vec![process];
            if kind == Kind::Probe {
                processes.extend(starter(pid));
            }
            held.insert(pid, processes);
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(pid, %error, "the emulator will not be reaped"),
    }
}

/// A process; `None` where there is none of this number.
fn open(pid: u32) -> Result<Option<OwnedFd>, Errno> {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else {
        return Ok(None);
    };
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => Ok(Some(process)),
        Err(Errno::SRCH) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The process that led a probe's emulator into a session of its own, and ended without being waited for.
fn starter(pid: u32) -> Option<OwnedFd> {
    let leader = session(pid)?;
    // 0 is a leader whom this namespace of processes does not know.
    if leader == 0 || leader == pid || session(std::process::id()) == Some(leader) {
        return None;
    }
    open(leader).ok()?
}

/// The leader of a process's session.
fn session(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it, in parentheses, may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(3)?.parse().ok()
}

/// Whether a process was told to write its pid into this file.
fn is_probe(pid: u32, file: &Path) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        line.split(|byte| *byte == 0)
            .any(|word| word == file.as_os_str().as_bytes())
    })
}

/// Gives the orphans back to pid 1 when the thread ends, whyever: nobody should adopt what nobody reaps.
struct Adopting;

impl Drop for Adopting {
    fn drop(&mut self) {
        let _ = set_child_subreaper(None);
    }
}

/// The thread: sleeps until an emulator begins or ends.
fn run() {
    let _adopting = Adopting;
    let Ok(folders) = FOLDERS.wait() else { return };
    let mut held = HashMap::new();
    loop {
        if let Err(error) = wait(folders, &mut held) {
            tracing::error!(%error, "emulators that end are not reaped any more");
            return;
        }
    }
}

fn wait(folders: &Folders, held: &mut HashMap<u32, Vec<OwnedFd>>) -> Result<(), Errno> {
    let mut watched = vec![PollFd::new(&folders.changes, PollFlags::IN)];
    let pids: Vec<u32> = held
        .iter()
        .map(|(pid, process)| {
            watched.push(PollFd::new(&process[0], PollFlags::IN));
            *pid
        })
        .collect();
    match poll(&mut watched, None) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error),
    }
    let ended: Vec<u32> = pids
        .into_iter()
        .zip(&watched[1..])
        .filter(|(_, process)| !process.revents().is_empty())
        .map(|(pid, _)| pid)
        .collect();
    for pid in ended {
        // The emulator first. Its starter is an orphan by now, too, as libvirt waited for who started that.
        for process in held.remove(&pid).into_iter().flatten() {
            reap(pid, &process);
        }
    }
    folders.look(held)
}

fn reap(pid: u32, process: &OwnedFd) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    match waitid(WaitId::PidFd(process.as_fd()), options) {
        Ok(_) => tracing::debug!(pid, "reaped an emulator"),
        // Not a child of ours: another one adopted it, or the program ignores the end of children.
        Err(error) => tracing::debug!(pid, %error, "somebody else reaps an emulator"),
    }
}

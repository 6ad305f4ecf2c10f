//! The processes of one machine.

use std::fs::{File, OpenOptions, read_dir, read_to_string};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use see_core::ledger::Entry;
use see_core::{Error, ErrorKind, Result};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

/// Where the programs are looked for that build the walls.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Those programs.
pub(crate) const PROGRAMS: [&str; 4] = ["unshare", "setpriv", "mount", "pivot_root"];

const WALLS: &str = include_str!("walls.sh");
/// The longest that the walls may take.
const BUILD: Duration = Duration::from_secs(20);
/// The longest until every process of a machine stands still.
const STILL: Duration = Duration::from_secs(5);
/// How much of the console an error quotes, in bytes.
const QUOTE: i64 = 400;

/// A program that runs behind its walls. The handle on its first process, with which all others end.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: Pid,
    handle: OwnedFd,
}

impl Process {
    /// Starts the program, and waits until it is behind its walls. The child is gone once all of it is.
    pub(crate) async fn start(
        program: &[String],
        root: &Path,
        console: &Path,
        entry: &Entry,
    ) -> Result<(Self, Child)> {
        let failed = |error| Error::io("the machine cannot be started", error);
        let log = OpenOptions::new().append(true).create(true).open(console);
        let log = log.map_err(failed)?;
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut child = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--mount", "--pid"])
            // Should `unshare` itself be killed, so is the machine.
            .args(["--fork", "--kill-child=SIGKILL", "--"])
            .args(["sh", "-c", WALLS, "walls"])
            .arg(root)
            .args(program)
            .env_clear()
            .env("PATH", PATH)
            // By this mark a collection recognises the process, should we die before it is recorded.
            .envs([entry.mark()])
            .stdin(OwnedFd::from(theirs))
            .stdout(log.try_clone().map_err(failed)?)
            .stderr(Stdio::from(log))
            // A Ctrl-C is for the run, which ends the machine in order.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        match Self::stands(&child, ours, entry).await {
            Ok(process) => Ok((process, child)),
            Err(error) => {
                let killed = child.kill().await;
                let error = error.advice(format!("its console ends with: {}", end_of(console)));
                Err(match killed {
                    Ok(()) => error,
                    Err(_) => error.advice("and it could not be ended: its record names it"),
                })
            }
        }
    }

    async fn stands(child: &Child, walls: UnixStream, entry: &Entry) -> Result<Self> {
        let failed = |error| Error::io("the machine's walls cannot be heard", error);
        let outer = child.id().and_then(|id| i32::try_from(id).ok());
        let outer = outer.and_then(Pid::from_raw).ok_or_else(not_standing)?;
        entry
            .spawned(outer.as_raw_nonzero().get().unsigned_abs())
            .await?;
        walls.set_nonblocking(true).map_err(failed)?;
        let mut walls = tokio::net::UnixStream::from_std(walls).map_err(failed)?;
        let mut word = [0; 6];
        tokio::time::timeout(BUILD, walls.read_exact(&mut word))
            .await
            .map_err(|_| Error::timeout("the machine's walls", BUILD))?
            .map_err(|error| not_standing().caused_by(error))?;
        let (pid, handle) = children(outer).pop().ok_or_else(not_standing)?;
        Ok(Self { pid, handle })
    }

    /// Sends a signal to the first process. One that has ended is no error.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        match pidfd_send_signal(&self.handle, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(Error::io("the machine takes no signal", error.into())),
        }
    }

    /// Makes every process of the machine stand still. Looks until none runs, twice in a row: one that was
    /// about to stop may have made another after the first look.
    pub(crate) fn stop_all(&self) -> Result<()> {
        let deadline = Instant::now() + STILL;
        let mut calm = 0;
        loop {
            self.signal(Signal::STOP)?;
            let others = self.others();
            for (_, handle) in &others {
                // It may end at any moment.
                let _ = pidfd_send_signal(handle, Signal::STOP);
            }
            let all = others.iter().map(|(pid, _)| *pid).chain([self.pid]);
            let running = all.filter(|pid| runs(*pid)).count();
            calm = if running == 0 { calm + 1 } else { 0 };
            if calm == 2 {
                return Ok(());
            }
            if Instant::now() >= deadline {
                self.continue_all()?;
                return Err(Error::timeout(
                    format!("{running} processes to stand still"),
                    STILL,
                ));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Lets every process of the machine go on.
    pub(crate) fn continue_all(&self) -> Result<()> {
        for (_, handle) in self.others() {
            let _ = pidfd_send_signal(handle, Signal::CONT);
        }
        self.signal(Signal::CONT)
    }

    /// Everything beneath the first process, which is everything: orphans of its namespace become its
    /// children, and namespaces within are beneath it as well.
    fn others(&self) -> Vec<(Pid, OwnedFd)> {
        let mut found = children(self.pid);
        let mut at = 0;
        while let Some((pid, _)) = found.get(at) {
            found.extend(children(*pid));
            at += 1;
        }
        found
    }
}

fn not_standing() -> Error {
    Error::new(ErrorKind::Hypervisor, "the machine's walls do not stand")
}

/// The children of a process. Their numbers may be used again as soon as they are reaped, so each is looked up
/// once more when its handle is open: then it is the one that was meant.
fn children(parent: Pid) -> Vec<(Pid, OwnedFd)> {
    let mut found: Vec<_> = child_numbers(parent)
        .into_iter()
        .filter_map(|pid| Some((pid, pidfd_open(pid, PidfdFlags::empty()).ok()?)))
        .collect();
    let still = child_numbers(parent);
    found.retain(|(pid, _)| still.contains(pid));
    found
}

fn child_numbers(parent: Pid) -> Vec<Pid> {
    let tasks = read_dir(format!("/proc/{}/task", parent.as_raw_nonzero()));
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| read_to_string(task.path().join("children")).ok())
        .flat_map(|line| {
            let numbers = line.split_whitespace().map(str::parse);
            numbers
                .flatten()
                .filter_map(Pid::from_raw)
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Whether a process that was sent a stop goes on nevertheless. One that waits without being interruptible,
/// say for the program of a child that stands still itself, stops before it does anything else.
fn runs(pid: Pid) -> bool {
    let stat = read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    // Its name, in parentheses, may hold anything.
    let state = stat
        .rsplit_once(") ")
        .and_then(|(_, rest)| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'D' | 'T' | 't' | 'X' | 'Z'))
}

/// The end of a console log, for an error: escaped, since it may come from the guest.
fn end_of(console: &Path) -> String {
    let mut text = Vec::new();
    if let Ok(mut file) = File::open(console) {
        let _ = file.seek(SeekFrom::End(-QUOTE));
        let _ = file.take(QUOTE.unsigned_abs()).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text)
        .trim()
        .escape_debug()
        .to_string()
}

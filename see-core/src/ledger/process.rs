//! Processes: what the kernel tells of them, and their collector.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::blocking;
use super::collector::{CollectRequest, Collected, Collector};
use super::resource::{Details, Resource};
use crate::{Error, ErrorKind, Identifier, Result};

/// The environment variable that marks a process as an entry's.
pub(super) const MARK: &str = "SEE_LEDGER";

/// How a process is recognised: its number alone is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProcessIdentity {
    pid: u32,
    /// In clock ticks since boot.
    started: u64,
}

impl ProcessIdentity {
    /// Looks at a process that was just started.
    pub(super) fn of(pid: u32) -> Result<Self> {
        match started(pid)? {
            Some(started) => Ok(Self { pid, started }),
            None => Err(Error::new(ErrorKind::NotFound, "there is no such process").subject(pid)),
        }
    }

    pub(super) fn details(self) -> Result<Details> {
        match serde_json::to_value(self) {
            Ok(Value::Object(details)) => Ok(details),
            _ => Err(Error::new(
                ErrorKind::Internal,
                "a process's identity cannot be written",
            )),
        }
    }
}

/// The value of [`MARK`] for an entry.
pub(super) fn mark(identifier: Identifier, entry: u32) -> String {
    format!("{identifier}/{entry}")
}

/// When a process started, in clock ticks since boot; `None` when there is none that runs.
pub(super) fn started(pid: u32) -> Result<Option<u64>> {
    let path = format!("/proc/{pid}/stat");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if is_gone(&error) => return Ok(None),
        Err(error) => {
            return Err(Error::io("a process cannot be examined", error).subject(path));
        }
    };
    // The second field is the program's name, in parentheses, and may hold anything.
    let mut fields = text
        .rsplit_once(") ")
        .map(|(_, rest)| rest.split(' '))
        .into_iter()
        .flatten();
    let state = fields.next();
    // The start is the 22nd field, the state the third.
    let started = fields.nth(18).and_then(|field| field.parse().ok());
    match (state, started) {
        // A zombie only waits for its parent to take notice.
        (Some("Z" | "X" | "x"), _) => Ok(None),
        (Some(_), Some(started)) => Ok(Some(started)),
        _ => Err(Error::new(ErrorKind::Io, "a process's state has an unknown form").subject(path)),
    }
}

/// The kernel's name for this boot; empty where it has none.
pub(super) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|text| text.trim().to_owned())
        .unwrap_or_default()
}

/// The time of a start, by the ticks of this boot; `None` where it was in another one.
pub(super) fn start(boot_then: &str, ticks: u64) -> Option<SystemTime> {
    if boot_then.is_empty() || boot_then != boot() {
        return None;
    }
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let booted = stat.lines().find_map(|line| line.strip_prefix("btime "));
    let booted: u64 = booted?.trim().parse().ok()?;
    let each_second = rustix::param::clock_ticks_per_second().max(1);
    let seconds = booted.checked_add(ticks / each_second)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

/// Kills processes that carry our mark: the recorded one, and those that inherited its environment.
#[derive(Debug)]
pub(super) struct ProcessCollector;

#[async_trait]
impl Collector for ProcessCollector {
    fn kind(&self) -> &str {
        Resource::PROCESS
    }

    fn runs(&self) -> bool {
        true
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        let request = request.clone();
        blocking(move || collect(&request)).await
    }
}

fn collect(request: &CollectRequest) -> Result<Collected> {
    // No process outlives its kernel.
    if !request.same_boot {
        return Ok(Collected::AlreadyGone);
    }
    let mut collected = Collected::AlreadyGone;
    if let Some(identity) = &request.identity {
        let recorded: ProcessIdentity = serde_json::from_value(Value::Object(identity.clone()))
            .map_err(|error| {
                Error::new(
                    ErrorKind::Io,
                    "the recorded identity is not one of a process",
                )
                .caused_by(error)
            })?;
        if started(recorded.pid)? == Some(recorded.started) {
            match belongs(recorded.pid, request)? {
                Belongs::Yes => {
                    collected = Collected::Removed;
                    if !request.dry_run {
                        end(recorded, request)?;
                    }
                }
                Belongs::Gone => {}
                Belongs::No => {
                    return Ok(Collected::Refused(format!(
                        "process {} names the environment neither in its environment nor in its \
                         arguments",
                        recorded.pid
                    )));
                }
            }
        }
    }
    // A round may miss what is forked meanwhile.
    loop {
        request.check()?;
        let marked = marked(request)?;
        if marked.is_empty() {
            return Ok(collected);
        }
        collected = Collected::Removed;
        if request.dry_run {
            return Ok(collected);
        }
        for process in marked {
            end(process, request)?;
        }
    }
}

enum Belongs {
    Yes,
    No,
    Gone,
}

/// Whether a process carries the entry's mark, or has the environment's identifier in its arguments.
fn belongs(pid: u32, request: &CollectRequest) -> Result<Belongs> {
    let read = |file: &str| -> Result<Option<Vec<u8>>> {
        let path = format!("/proc/{pid}/{file}");
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(Error::io("a process cannot be examined", error).subject(path)),
        }
    };
    let Some(arguments) = read("cmdline")? else {
        return Ok(Belongs::Gone);
    };
    let identifier = request.identifier.to_string();
    if contains(&arguments, identifier.as_bytes()) {
        return Ok(Belongs::Yes);
    }
    Ok(match read("environ")? {
        None => Belongs::Gone,
        Some(environment) if is_marked(&environment, request) => Belongs::Yes,
        Some(_) => Belongs::No,
    })
}

/// All processes with the entry's mark in their environment, except ourselves.
fn marked(request: &CollectRequest) -> Result<Vec<ProcessIdentity>> {
    let failed = |error| Error::io("the list of processes cannot be read", error).subject("/proc");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // An environment that we may not read belongs to somebody else.
        let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else {
            continue;
        };
        if pid != std::process::id()
            && is_marked(&environment, request)
            && let Some(started) = started(pid)?
        {
            found.push(ProcessIdentity { pid, started });
        }
    }
    Ok(found)
}

fn is_marked(environment: &[u8], request: &CollectRequest) -> bool {
    let mark = format!("{MARK}={}", mark(request.identifier, request.entry));
    environment
        .split(|byte| *byte == 0)
        .any(|variable| variable == mark.as_bytes())
}

/// Kills a process and waits until it is no more.
fn end(process: ProcessIdentity, request: &CollectRequest) -> Result<()> {
    let failed =
        |error: Errno| Error::io("a process cannot be killed", error.into()).subject(process.pid);
    let Some(pid) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    let handle = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(handle) => handle,
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    // The handle cannot change to another process any more, so what is seen now stays true.
    if started(process.pid)? != Some(process.started)
        || !matches!(belongs(process.pid, request)?, Belongs::Yes)
    {
        return Ok(());
    }
    match rustix::process::pidfd_send_signal(&handle, Signal::KILL) {
        Ok(()) => {}
        Err(Errno::SRCH) => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    wait(&handle, process, request)
}

fn wait(handle: &OwnedFd, process: ProcessIdentity, request: &CollectRequest) -> Result<()> {
    loop {
        let left = request.deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut watched = [PollFd::new(handle, PollFlags::IN)];
        match rustix::event::poll(&mut watched, Some(&timeout)) {
            Ok(0) => {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    "the process was killed, but did not end in time",
                )
                .subject(process.pid));
            }
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(error) => {
                return Err(
                    Error::io("a process cannot be waited for", error.into()).subject(process.pid)
                );
            }
        }
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

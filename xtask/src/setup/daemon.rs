//! libvirtd where nobody started it: through systemd, or by hand.
//!
//! By hand it runs under a tiny parent of its own: this program again, as a
//! child subreaper that only waits. Where pid 1 is slow to reap orphans,
//! libvirt would otherwise wait seconds for each ended emulator to vanish.

use std::fs::{self, File};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use crate::command;
use crate::failure::{Failure, While, exit_code};
use crate::libvirtd::{OWN_CONFIGURATION, open_run_folder};
use crate::workspace;

const LIBVIRTD_SOCKETS: [&str; 2] = ["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"];
const VIRTLOGD_SOCKET: &str = "/run/libvirt/virtlogd-sock";
/// The daemon's own configuration, which distributions bring.
const LIBVIRTD_CONFIGURATION: &str = "/etc/libvirt/libvirtd.conf";
/// A mount that makes libvirt's LXC driver fail where cgroups are hybrid.
const HYBRID_CGROUPS: &str = "/sys/fs/cgroup/unified";
/// What the parent, the daemon and its log daemon print.
const LOGS: [&str; 3] = ["parent.log", "libvirtd.log", "virtlogd.log"];
/// The first start probes every emulator of the host.
const START_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(20);
/// How often a daemon that crashed is started again. libvirt 9 reads freed memory where a client dies while its
/// subscription to events is on its way; systemd would start the daemon again, too.
const MOST_CRASHES: u32 = 5;

/// Whether [`start`] had to start the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    No,
    Yes,
}

/// What we started, so that exactly that is stopped.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    /// The unit, where systemd started it.
    unit: Option<String>,
    /// The processes, in the order in which they are to end.
    processes: Vec<Process>,
}

/// A process that cannot be mistaken for a later one with the same pid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    name: String,
    pid: i32,
    /// In clock ticks since the host's start, as the kernel says it.
    start_time: u64,
}

impl Process {
    fn of(name: &str, pid: i32) -> Option<Self> {
        Some(Self {
            name: name.to_owned(),
            pid,
            start_time: start_time(pid)?,
        })
    }

    fn runs(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }

    fn signal(&self, signal: Signal) {
        if self.runs()
            && let Some(pid) = Pid::from_raw(self.pid)
        {
            // It may have ended between the look and the signal.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

/// Makes `qemu:///system` answer.
pub(super) fn start() -> Result<Started, Failure> {
    if answers() {
        return Ok(Started::No);
    }
    if !rustix::process::geteuid().is_root() {
        let program = std::env::current_exe().doing("cannot find this program")?;
        return Err(Failure::with(
            exit_code::MISSING_RIGHTS,
            format!(
                "qemu:///system does not answer, and starting it needs root. Run this, then \
                 try again:\n  sudo {} setup --daemon",
                command::quoted(&program.to_string_lossy())
            ),
        ));
    }
    let state = if Path::new("/run/systemd/system").is_dir() {
        start_unit()?
    } else {
        return start_by_hand();
    };
    write_state(&state)?;
    if !command::wait_until(START_DEADLINE, answers) {
        return Err(Failure::new(
            "systemd started libvirt, but qemu:///system does not answer",
        ));
    }
    Ok(Started::Yes)
}

/// Ends what [`start`] started; false when that is nothing.
pub(super) fn stop() -> Result<bool, Failure> {
    let file = state_file();
    let Ok(text) = fs::read_to_string(&file) else {
        return Ok(false);
    };
    let state: State =
        serde_json::from_str(&text).doing(format_args!("cannot read {}", file.display()))?;
    let mut stopped = false;
    if let Some(unit) = &state.unit {
        command::output(
            Command::new("systemctl").args(["stop", unit]),
            STOP_DEADLINE,
        )?;
        stopped = true;
    }
    for process in &state.processes {
        stopped |= process.runs();
        process.signal(Signal::TERM);
        if !command::wait_until(STOP_DEADLINE, || !process.runs()) {
            process.signal(Signal::KILL);
            if !command::wait_until(STOP_DEADLINE, || !process.runs()) {
                return Err(Failure::new(format!(
                    "{} (pid {}) cannot be ended",
                    process.name, process.pid
                )));
            }
        }
    }
    fs::remove_file(&file).doing(format_args!("cannot remove {}", file.display()))?;
    // The parent tells of crashes only, and whoever ran tests meanwhile wants to know.
    let told = fs::read_to_string(folder().join(LOGS[0])).unwrap_or_default();
    for line in told.lines() {
        println!("       {line}");
    }
    Ok(stopped)
}

/// The waiting parent: becomes the reaper of everything libvirtd leaves, and
/// ends when libvirtd has.
pub(crate) fn parent(words: &[String]) -> Result<(), Failure> {
    let [folder] = words else {
        return Err(Failure::usage("the parent of the daemon is not a duty"));
    };
    let folder = Path::new(folder);
    // A session of its own: Ctrl-C in the terminal is not meant for the daemon.
    rustix::process::setsid().doing("cannot leave the terminal's session")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .doing("cannot become the reaper of orphans")?;

    open_run_folder()?;
    // Without systemd nothing starts the log daemon on demand, and the QEMU
    // driver writes its consoles through it.
    let mut log_daemon = None;
    if UnixStream::connect(VIRTLOGD_SOCKET).is_err()
        && let Some(program) = workspace::program("virtlogd")
    {
        let pid = spawn(&mut Command::new(program), &folder.join("virtlogd.log"))?;
        log_daemon = Process::of("virtlogd", pid);
        let up = || UnixStream::connect(VIRTLOGD_SOCKET).is_ok();
        if !command::wait_until(STOP_DEADLINE, up) {
            return Err(Failure::new("virtlogd does not answer"));
        }
    }
    let mut pid = libvirtd(folder, log_daemon.as_ref())?;
    // `wait` returns for any child, adopted orphans included, and fails only
    // when no child is left.
    let mut crashes = 0;
    while let Ok(Some((ended, status))) = rustix::process::wait(WaitOptions::empty()) {
        if ended.as_raw_nonzero().get() != pid {
            continue;
        }
        let crash = status.terminating_signal().filter(is_crash);
        if let Some(signal) = crash
            && crashes < MOST_CRASHES
        {
            crashes += 1;
            eprintln!("libvirtd crashed with signal {signal}, and is started again");
            pid = libvirtd(folder, log_daemon.as_ref())?;
        } else if let Some(log_daemon) = &log_daemon {
            log_daemon.signal(Signal::TERM);
        }
    }
    Ok(())
}

/// Starts libvirtd, writes down what [`stop`] has to end, and gives its pid.
fn libvirtd(folder: &Path, log_daemon: Option<&Process>) -> Result<i32, Failure> {
    let program =
        workspace::program("libvirtd").ok_or_else(|| Failure::new("there is no libvirtd"))?;
    let mut libvirtd = if Path::new(HYBRID_CGROUPS).join("cgroup.procs").exists() {
        let mut command = Command::new("unshare");
        command
            .args(["-m", "sh", "-c"])
            .arg(format!("umount {HYBRID_CGROUPS}; exec \"$0\" \"$@\""))
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    if !Path::new(LIBVIRTD_CONFIGURATION).exists() {
        let own = folder.join("libvirtd.conf");
        fs::write(&own, OWN_CONFIGURATION).doing(format_args!("cannot write {}", own.display()))?;
        libvirtd.arg("-f").arg(own);
    }
    let pid = spawn(&mut libvirtd, &folder.join("libvirtd.log"))?;
    let mut processes = Vec::new();
    processes.extend(Process::of("libvirtd", pid));
    processes.extend(log_daemon.cloned());
    write_state(&State {
        unit: None,
        processes,
    })?;
    Ok(pid)
}

/// Whether a process that ended by this signal was broken, not ended by somebody.
fn is_crash(signal: &i32) -> bool {
    let signals = [
        Signal::SEGV,
        Signal::ABORT,
        Signal::BUS,
        Signal::ILL,
        Signal::FPE,
    ];
    signals.iter().any(|crash| crash.as_raw() == *signal)
}

/// Whether the daemon answers a question, not only a connection.
fn answers() -> bool {
    if !LIBVIRTD_SOCKETS
        .iter()
        .any(|socket| UnixStream::connect(socket).is_ok())
    {
        return false;
    }
    let mut virsh = Command::new("virsh");
    virsh.args(["-q", "-c", "qemu:///system", "version"]);
    command::finish(&mut virsh, START_DEADLINE).is_ok_and(|finished| finished.status.success())
}

fn start_unit() -> Result<State, Failure> {
    let mut last = Failure::new("systemd knows no unit of libvirt");
    for unit in ["libvirtd.socket", "virtqemud.socket", "libvirtd.service"] {
        let mut systemctl = Command::new("systemctl");
        systemctl.args(["start", unit]);
        match command::output(&mut systemctl, START_DEADLINE) {
            Ok(_) => {
                return Ok(State {
                    unit: Some(unit.to_owned()),
                    processes: Vec::new(),
                });
            }
            Err(failure) => last = failure,
        }
    }
    Err(last)
}

fn start_by_hand() -> Result<Started, Failure> {
    super::account::open_kvm()?;
    let folder = folder();
    fs::create_dir_all(&folder).doing(format_args!("cannot make {}", folder.display()))?;
    for log in LOGS.map(|name| folder.join(name)) {
        // What an earlier start wrote would be taken for this one's.
        File::create(&log).doing(format_args!("cannot write {}", log.display()))?;
    }
    let program = std::env::current_exe().doing("cannot find this program")?;
    let log = folder.join("parent.log");
    let mut parent = Command::new(program);
    parent.arg(super::PARENT_WORD).arg(&folder);
    let mut parent = logged(&mut parent, &log)?
        .spawn()
        .doing("cannot start the daemon's parent")?;
    let mut ended = false;
    let answered = command::wait_until(START_DEADLINE, || {
        ended = matches!(parent.try_wait(), Ok(Some(_)));
        ended || answers()
    });
    if answered && !ended {
        return Ok(Started::Yes);
    }
    let said = LOGS
        .iter()
        .filter_map(|name| fs::read_to_string(folder.join(name)).ok())
        .collect::<String>();
    stop()?;
    Err(Failure::new(format!(
        "libvirtd was started by hand, but qemu:///system does not answer:\n{}",
        said.trim_end()
    )))
}

/// Starts a child with its output in a log file and gives its pid.
fn spawn(command: &mut Command, log: &Path) -> Result<i32, Failure> {
    let child = logged(command, log)?
        .spawn()
        .doing(format_args!("cannot start `{}`", command::shown(command)))?;
    i32::try_from(child.id()).doing("a pid of this host")
}

fn logged<'a>(command: &'a mut Command, log: &Path) -> Result<&'a mut Command, Failure> {
    let file = File::options()
        .create(true)
        .append(true)
        .open(log)
        .doing(format_args!("cannot write {}", log.display()))?;
    let again = file.try_clone().doing("cannot share a log file")?;
    Ok(command
        .stdin(Stdio::null())
        .stdout(file)
        .stderr(again)
        .current_dir("/"))
}

fn folder() -> PathBuf {
    workspace::target().join("daemon")
}

fn state_file() -> PathBuf {
    folder().join("state.json")
}

fn write_state(state: &State) -> Result<(), Failure> {
    let file = state_file();
    let text = serde_json::to_string_pretty(state).doing("cannot write the daemon's state")?;
    fs::create_dir_all(folder()).doing("cannot make the daemon's folder")?;
    // Written aside and renamed: a reader sees a whole file or none.
    let aside = file.with_extension("new");
    fs::write(&aside, text).doing(format_args!("cannot write {}", aside.display()))?;
    fs::rename(&aside, &file).doing(format_args!("cannot write {}", file.display()))
}

/// When a process started, in ticks; none when it is gone or only a zombie.
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything, so the fields are
    // counted from its end: the state is the first, the start time the twentieth.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_pid_and_start_time() {
        let own = Process::of("own", rustix::process::getpid().as_raw_nonzero().get())
            .expect("this process runs");
        assert!(own.runs());
        let earlier = Process {
            start_time: own.start_time - 1,
            ..own
        };
        assert!(!earlier.runs());
    }

    #[test]
    fn a_zombie_does_not_run() {
        let mut child = Command::new("true").spawn().expect("true starts");
        let pid = i32::try_from(child.id()).expect("a pid");
        let gone = command::wait_until(Duration::from_secs(10), || start_time(pid).is_none());
        child.wait().expect("true ends");
        assert!(gone);
    }
}

//! Unix; what only Linux has (`/proc`) is simply not found elsewhere.

use crate::protocol::Exit;
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::time::{ClockId, Timespec, clock_settime};
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};

/// Refuses links. Elsewhere than on Linux `O_EXCL`, which every new file gets, does so by itself.
const NO_FOLLOW: i32 = OFlags::NOFOLLOW.bits() as i32;

/// Opening a FIFO that nobody writes to must not block.
const NON_BLOCKING: i32 = OFlags::NONBLOCK.bits() as i32;

/// What a path separator is in a file name.
pub(crate) const SEPARATORS: &[u8] = b"/";

/// Whether an error says that the system or this process is out of memory, files or buffers.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    // `ENOMEM`, `ENFILE`, `EMFILE`, and Linux's `ENOBUFS`: the standard library has no names for most of them.
    matches!(error.raw_os_error(), Some(12 | 23 | 24 | 105))
}

/// Bytes from the wire as the system's string.
pub(crate) fn os_string(bytes: Vec<u8>) -> Option<OsString> {
    (!bytes.contains(&0)).then(|| OsString::from_vec(bytes))
}

/// The system's string as bytes for the wire.
pub(crate) fn os_bytes(text: &OsStr) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Makes a folder, and those that it lies in, which only their owner lists, and everybody passes through: programs
/// run as other users too.
pub(crate) fn make_folder_to_pass(path: &Path) -> io::Result<()> {
    const MODE: u32 = 0o711;
    let missing = path.ancestors().take_while(|folder| !folder.exists());
    let missing: Vec<_> = missing.collect();
    DirBuilder::new().recursive(true).mode(MODE).create(path)?;
    // Whatever the umask says.
    let mut made = missing.into_iter();
    made.try_for_each(|folder| std::fs::set_permissions(folder, Permissions::from_mode(MODE)))
}

/// Makes a file that did not exist, following no link.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(NO_FOLLOW)
        .open(path)
}

/// Opens a file for reading without ever waiting for a writer.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(NON_BLOCKING)
        .open(path)
}

/// Gives an open file these permission bits, whatever the umask says.
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(mode & 0o777))
}

/// A file's permission bits.
pub(crate) fn mode(found: &Metadata) -> u32 {
    found.permissions().mode() & 0o7777
}

/// What a program is killed with: its process group, and on Linux its control group, where there is one.
#[derive(Debug)]
pub(crate) struct Group {
    number: u32,
    #[cfg(target_os = "linux")]
    cgroup: Option<super::cgroup::Cgroup>,
}

impl Group {
    /// Starts a program at the head of a process group of its own, and in a control group of its own where
    /// `control_groups` says so.
    pub(crate) fn spawn(command: &mut Command, control_groups: bool) -> io::Result<(Child, Self)> {
        command.process_group(0);
        #[cfg(target_os = "linux")]
        let (child, cgroup) = match control_groups {
            true => super::cgroup::Cgroup::spawn(command)?,
            false => (spawn(command)?, None),
        };
        #[cfg(not(target_os = "linux"))]
        let (child, _) = (spawn(command)?, control_groups);
        let number = child.id();
        let group = Self {
            number,
            #[cfg(target_os = "linux")]
            cgroup,
        };
        Ok((child, group))
    }

    /// Kills the program and its descendants. Best effort: the caller sees from the leader's end whether it worked. The
    /// leader must not have been waited for, or its number may be another's.
    pub(crate) fn kill(&self) {
        #[cfg(target_os = "linux")]
        if let Some(cgroup) = &self.cgroup {
            let _ = cgroup.kill();
        }
        // Also what another put into a control group of its own, as a login does.
        self.signal(KILL);
    }

    /// Sends a signal to the process group, under the same condition.
    pub(crate) fn signal(&self, signal: i32) {
        let group = i32::try_from(self.number).ok().and_then(Pid::from_raw);
        if let (Some(group), Some(signal)) = (group, Signal::from_named_raw(signal)) {
            let _ = kill_process_group(group, signal);
        }
    }
}

/// Starts a program that is the agent's own, beside those that it is asked to start.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    #[cfg(target_os = "linux")]
    return super::cgroup::spawn(command);
    #[cfg(not(target_os = "linux"))]
    command.spawn()
}

/// Ends the programs of agents that are gone, as far as control groups tell them.
pub(crate) fn remove_leftovers() {
    #[cfg(target_os = "linux")]
    super::cgroup::remove_leftovers();
}

/// The signal that ends a process.
const KILL: i32 = 9;

/// The system's shell with this text.
pub(crate) fn shell(text: &OsStr) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(text);
    command
}

/// Makes the program run as this user, given by name or number, with the user's home, which is also the working folder.
pub(crate) fn run_as(command: &mut Command, user: &str) -> io::Result<()> {
    let users = std::fs::read_to_string("/etc/passwd")?;
    let found = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, uid, gid) = (
            fields.next()?,
            fields.next()?,
            fields.next()?,
            fields.next()?,
        );
        let home = fields.nth(1)?;
        let is_it = name == user || uid == user;
        is_it.then(|| Some((name, uid.parse().ok()?, gid.parse().ok()?, home)))?
    });
    let Some((name, uid, gid, home)) = found else {
        let message = "`/etc/passwd` has no such user";
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    };
    // A folder of the agent's may be closed to the user.
    let folder = Some(home).filter(|home| Path::new(home).is_dir());
    command.current_dir(folder.unwrap_or("/"));
    command.uid(uid).gid(gid);
    command
        .env("HOME", home)
        .env("USER", name)
        .env("LOGNAME", name);
    Ok(())
}

/// How a process ended.
pub(crate) fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// Sets the clock to these seconds since 1970.
pub(crate) fn set_clock(unix_seconds: u64) -> io::Result<()> {
    let tv_sec = i64::try_from(unix_seconds).map_err(|_| io::ErrorKind::InvalidInput)?;
    let time = Timespec { tv_sec, tv_nsec: 0 };
    Ok(clock_settime(ClockId::Realtime, time)?)
}

/// The command that adds (`add`) or takes away (`del`) a default route for IPv4; iproute2's and busybox's
/// `ip` both understand it.
pub(crate) fn change_default_route(
    how: &str,
    gateway: Ipv4Addr,
    interface: &str,
) -> Option<Command> {
    let mut command = Command::new("ip");
    let gateway = gateway.to_string();
    command.args(["route", how, "default", "via", &gateway, "dev", interface]);
    cfg!(target_os = "linux").then_some(command)
}

/// The commands that send echo requests, the usual one first; iputils' and busybox's options are the same.
/// A group is given a second request, so that the first one's answers are all heard.
pub(crate) fn pings(address: &str, seconds: u64, group: bool) -> Vec<Command> {
    // The second request goes out a second after the first, for which that is the time to answer.
    let (count, wait) = match group {
        true => ("2", seconds.saturating_sub(1).max(1)),
        false => ("1", seconds),
    };
    let wait = wait.to_string();
    let arguments = ["-c", count, "-W", &wait, address];
    let mut usual = Command::new("ping");
    usual.args(arguments);
    let mut busybox = Command::new("busybox");
    busybox.arg("ping").args(arguments);
    vec![usual, busybox]
}

/// The machine's name.
pub(crate) fn hostname() -> String {
    first_line("/proc/sys/kernel/hostname")
}

/// The kernel's release.
pub(crate) fn release() -> String {
    first_line("/proc/sys/kernel/osrelease")
}

fn first_line(path: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

/// Tells the kernel to take other processes first when memory runs out.
///
/// Children inherit it, so each program that is started gets [`expose_to_memory_pressure`].
pub(crate) fn resist_memory_pressure() {
    // Without the right to do so the agent is as exposed as everyone.
    drop(std::fs::write("/proc/self/oom_score_adj", "-900"));
}

/// Takes a program's inherited protection away again.
pub(crate) fn expose_to_memory_pressure(pid: u32) {
    // The program may have ended already.
    drop(std::fs::write(format!("/proc/{pid}/oom_score_adj"), "0"));
}

//! Unix; what only Linux has (`/proc`) is simply not found elsewhere.

use crate::protocol::Exit;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};

/// `O_NOFOLLOW` of Linux, which differs between architectures; the standard library does not name
/// it. Elsewhere `O_EXCL`, which every new file gets, refuses links by itself.
const NO_FOLLOW: i32 = if cfg!(not(target_os = "linux")) {
    0
} else if cfg!(any(
    target_arch = "arm",
    target_arch = "aarch64",
    target_arch = "powerpc64"
)) {
    0o100_000
} else {
    0o400_000
};

/// `O_NONBLOCK` of Linux: opening a FIFO that nobody writes to must not block.
const NON_BLOCKING: i32 = if cfg!(target_os = "linux") { 0o4000 } else { 0 };

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

/// Makes a folder that only its owner enters.
pub(crate) fn make_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
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

/// Makes the program the leader of a process group of its own, so that it dies with its children.
pub(crate) fn lead_group(command: &mut Command) {
    command.process_group(0);
}

/// A process that kills each group whose number is written to it as a line.
pub(crate) fn killer() -> Option<Command> {
    let mut command = Command::new("/bin/sh");
    command
        .arg("-c")
        .arg("while read -r group; do kill -KILL \"-$group\" 2>/dev/null; done");
    Some(command)
}

/// A process that kills this one group.
pub(crate) fn kill_once(group: u32) -> Command {
    let mut command = Command::new("kill");
    command.arg("-KILL").arg(format!("-{group}"));
    command
}

/// How a process ended.
pub(crate) fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}

/// The command that sets the clock; `-s @N` is understood by GNU's and busybox's `date`.
pub(crate) fn set_clock(unix_seconds: u64) -> Option<Command> {
    let mut command = Command::new("date");
    command.arg("-u").arg("-s").arg(format!("@{unix_seconds}"));
    cfg!(target_os = "linux").then_some(command)
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

//! Windows, as far as the standard library reaches.

use crate::protocol::Exit;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::windows::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// `CREATE_NEW_PROCESS_GROUP`.
const NEW_GROUP: u32 = 0x200;

/// What separates paths, drives and streams in a file name.
pub(crate) const SEPARATORS: &[u8] = b"/\\:";

/// Whether an error says that the system or this process is out of memory, handles or buffers.
pub(crate) fn is_exhausted(error: &io::Error) -> bool {
    // `ERROR_NOT_ENOUGH_MEMORY`, `WSAEMFILE`, `WSAENOBUFS`.
    matches!(error.raw_os_error(), Some(8 | 10_024 | 10_055))
}

/// Bytes from the wire as the system's string.
pub(crate) fn os_string(bytes: Vec<u8>) -> Option<OsString> {
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then(|| text.into())
}

/// The system's string as bytes for the wire.
pub(crate) fn os_bytes(text: &OsStr) -> Vec<u8> {
    text.to_string_lossy().into_owned().into_bytes()
}

/// Makes a folder.
pub(crate) fn make_folder_to_pass(path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(path)
}

/// Makes a file that did not exist.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).open(path)
}

/// Opens a file for reading.
pub(crate) fn open_to_read(path: &Path) -> io::Result<File> {
    File::open(path)
}

/// Windows has no permission bits.
pub(crate) fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// Windows has no permission bits.
pub(crate) fn mode(_found: &Metadata) -> u32 {
    0
}

/// What a program is killed with: its tree of processes.
#[derive(Debug)]
pub(crate) struct Group(u32);

impl Group {
    /// Starts a program at the head of a group of its own.
    pub(crate) fn spawn(command: &mut Command, _control_groups: bool) -> io::Result<(Child, Self)> {
        let child = command.creation_flags(NEW_GROUP).spawn()?;
        let group = Self(child.id());
        Ok((child, group))
    }

    /// Kills the program with the processes that it started.
    pub(crate) fn kill(&self) {
        let mut command = Command::new("taskkill");
        command
            .args(["/f", "/t", "/pid", &self.0.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        drop(command.status());
    }

    /// There are no signals here but the one that ends a program.
    pub(crate) fn signal(&self, signal: i32) {
        if signal == KILL {
            self.kill();
        }
    }
}

/// Starts a program that is the agent's own, beside those that it is asked to start.
pub(crate) fn spawn(command: &mut Command) -> io::Result<Child> {
    command.spawn()
}

/// There are no control groups here.
pub(crate) fn remove_leftovers() {}

/// The number of the signal that ends a process, elsewhere.
const KILL: i32 = 9;

/// The system's shell with this text, as it is: `cmd` does not know the standard library's quotes.
pub(crate) fn shell(text: &OsStr) -> Command {
    let mut command = Command::new("cmd");
    command.args(["/d", "/s", "/c"]).raw_arg("\"");
    command.raw_arg(text).raw_arg("\"");
    command
}

/// Running as somebody else takes a password here.
pub(crate) fn run_as(_command: &mut Command, _user: &str) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// How a process ended.
pub(crate) fn exit_of(status: ExitStatus) -> Exit {
    status.code().map_or(Exit::Unknown, Exit::Code)
}

/// The standard library has no way to set the clock.
pub(crate) fn set_clock(_unix_seconds: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A guest without a default route stays without.
pub(crate) fn change_default_route(
    _how: &str,
    _gateway: Ipv4Addr,
    _interface: &str,
) -> Option<Command> {
    None
}

/// The command that sends echo requests; it counts its time in milliseconds.
pub(crate) fn pings(address: &str, seconds: u64, _group: bool) -> Vec<Command> {
    let mut command = Command::new("ping");
    let milliseconds = (seconds * 1000).to_string();
    command.args(["-n", "1", "-w", &milliseconds, address]);
    vec![command]
}

/// The machine's name.
pub(crate) fn hostname() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_default()
}

/// Nothing in the environment tells it.
pub(crate) fn release() -> String {
    String::new()
}

/// Windows does not choose a process to end when memory runs out.
pub(crate) fn resist_memory_pressure() {}

/// Windows does not choose a process to end when memory runs out.
pub(crate) fn expose_to_memory_pressure(_pid: u32) {}

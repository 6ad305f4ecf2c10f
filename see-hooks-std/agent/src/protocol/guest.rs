//! What a guest is made of, in replies: its system, its programs, its processes.

use super::wire::milliseconds;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest message of a failure, and the longest text about the guest, in bytes.
pub const MAX_MESSAGE: usize = 512;
/// How many bytes a name, or the arguments, may have in a list of files or processes.
pub(super) const MAX_LISTED: u64 = 1024;

/// Who answers, and on what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Info {
    /// The agent's version.
    pub agent: String,
    /// The protocol version that both speak.
    pub protocol: u16,
    /// The operating system: `linux`, `windows`.
    pub system: String,
    /// Its release, such as the kernel's.
    pub release: String,
    /// The machine's architecture, such as `x86_64`.
    pub architecture: String,
    /// The guest's host name.
    pub hostname: String,
    /// The folder that uploads go to.
    #[serde(with = "serde_bytes")]
    pub folder: Vec<u8>,
    /// A number that is another one each time the agent starts.
    pub instance: u64,
    /// The guest's clock in milliseconds since 1970.
    pub unix_milliseconds: u64,
}

/// One of the two output streams of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It could not be seen: the program was killed, and its end did not come in time.
    #[default]
    Unknown,
}

/// The end of a program.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Outcome {
    /// How it ended.
    pub exit: Exit,
    /// It was killed at its deadline.
    pub timed_out: bool,
    /// It was killed on request, or because its session ended.
    pub killed: bool,
    /// Standard output went on after its limit.
    pub stdout_truncated: bool,
    /// Standard error went on after its limit.
    pub stderr_truncated: bool,
    /// Descendants were left that still hold its output; what they write is dropped.
    pub output_held: bool,
    /// How many bytes it wrote to standard output.
    pub stdout_bytes: u64,
    /// How many bytes it wrote to standard error.
    pub stderr_bytes: u64,
    /// How long it ran.
    #[serde(rename = "elapsed_ms", with = "milliseconds")]
    pub elapsed: Duration,
}

/// A program in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// It still runs.
    Running,
    /// It has ended.
    Ended(Outcome),
}

/// A process of the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's number.
    pub parent: u32,
    /// Its name.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// Its arguments, each ended by a zero byte; cut at 1024 bytes, empty for a kernel thread.
    #[serde(with = "serde_bytes")]
    pub command_line: Vec<u8>,
}

/// What is at a path of the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FileInfo {
    /// The last part of its path.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// What it is; a link is not followed.
    pub kind: FileKind,
    /// Its length in bytes.
    pub size: u64,
    /// Its permission bits; on Windows 0.
    pub mode: u32,
    /// When its content was last changed, since 1970.
    #[serde(rename = "modified_ms", with = "milliseconds")]
    pub modified: Duration,
}

/// What sort of file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FileKind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, a socket, a pipe, or what this version does not know.
    #[default]
    #[serde(other)]
    Other,
}

/// Cuts a text to at most as many bytes, between two characters.
pub(super) fn cut(text: &mut String, most: usize) {
    while text.len() > most {
        let end = (0..=most).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
    }
}

//! What a guest is made of, in replies: its system, its programs, its processes.

use super::field::{FieldReader, FieldWriter, check};
use super::{MAX_BODY, ProtocolError};
use std::time::Duration;

/// The longest message of a failure, and the longest text about the guest, in bytes.
pub const MAX_MESSAGE: usize = 512;

/// The longest name and command line in a list of processes, in bytes.
const MAX_COMMAND: usize = 1024;

/// Who answers, and on what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It could not be seen: the program was killed, and its end did not come in time.
    Unknown,
}

/// The end of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    pub elapsed: Duration,
}

/// A program in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobState {
    /// It still runs.
    Running,
    /// It has ended.
    Ended(Outcome),
}

/// A process of the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Its parent's number.
    pub parent: u32,
    /// Its name.
    pub name: Vec<u8>,
    /// Its arguments, each ended by a zero byte; cut at 1024 bytes, empty for a kernel thread.
    pub command_line: Vec<u8>,
}

impl Info {
    pub(super) fn write(&self, w: &mut FieldWriter) -> Vec<u8> {
        w.bytes(cut(&self.agent, MAX_MESSAGE))
            .u16(self.protocol)
            .bytes(cut(&self.system, MAX_MESSAGE))
            .bytes(cut(&self.release, MAX_MESSAGE))
            .bytes(cut(&self.architecture, MAX_MESSAGE))
            .bytes(cut(&self.hostname, MAX_MESSAGE))
            .bytes(&self.folder)
            .u64(self.instance)
            .u64(self.unix_milliseconds)
            .finish()
    }

    pub(super) fn read(r: &mut FieldReader<'_>) -> Result<Self, ProtocolError> {
        Ok(Self {
            agent: r.text("the agent's version", MAX_MESSAGE)?,
            protocol: r.u16()?,
            system: r.text("the system's name", MAX_MESSAGE)?,
            release: r.text("the system's release", MAX_MESSAGE)?,
            architecture: r.text("the architecture", MAX_MESSAGE)?,
            hostname: r.text("the host name", MAX_MESSAGE)?,
            folder: r.bytes("the upload folder", MAX_BODY)?.to_vec(),
            instance: r.u64()?,
            unix_milliseconds: r.u64()?,
        })
    }
}

impl Outcome {
    pub(super) fn write(&self, w: &mut FieldWriter) {
        let (how, number) = match self.exit {
            Exit::Code(code) => (0, code),
            Exit::Signal(signal) => (1, signal),
            Exit::Unknown => (2, 0),
        };
        let flags = [
            self.timed_out,
            self.killed,
            self.stdout_truncated,
            self.stderr_truncated,
            self.output_held,
        ];
        let flags = flags
            .iter()
            .rev()
            .fold(0, |bits, flag| bits << 1 | u8::from(*flag));
        w.u8(how)
            .u32(number.cast_unsigned())
            .u8(flags)
            .u64(self.stdout_bytes)
            .u64(self.stderr_bytes)
            .u64(u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX));
    }

    pub(super) fn read(r: &mut FieldReader<'_>) -> Result<Self, ProtocolError> {
        let how = r.u8()?;
        check("the kind of exit", u64::from(how), 2)?;
        let number = r.u32()?;
        if how == 2 {
            check("the number of an unknown exit", u64::from(number), 0)?;
        }
        let number = number.cast_signed();
        let flags = r.u8()?;
        check("the outcome's flags", u64::from(flags), 0b1_1111)?;
        Ok(Self {
            exit: match how {
                0 => Exit::Code(number),
                1 => Exit::Signal(number),
                _ => Exit::Unknown,
            },
            timed_out: flags & 1 != 0,
            killed: flags & 2 != 0,
            stdout_truncated: flags & 4 != 0,
            stderr_truncated: flags & 8 != 0,
            output_held: flags & 16 != 0,
            stdout_bytes: r.u64()?,
            stderr_bytes: r.u64()?,
            elapsed: Duration::from_millis(r.u64()?),
        })
    }
}

impl Process {
    /// The bytes that it takes in a reply.
    pub(crate) fn encoded_len(&self) -> usize {
        16 + self.name.len().min(MAX_COMMAND) + self.command_line.len().min(MAX_COMMAND)
    }

    pub(super) fn write(&self, w: &mut FieldWriter) {
        let name = &self.name[..self.name.len().min(MAX_COMMAND)];
        let line = &self.command_line[..self.command_line.len().min(MAX_COMMAND)];
        w.u32(self.pid).u32(self.parent).bytes(name).bytes(line);
    }

    pub(super) fn read(r: &mut FieldReader<'_>) -> Result<Self, ProtocolError> {
        Ok(Self {
            pid: r.u32()?,
            parent: r.u32()?,
            name: r.bytes("a process's name", MAX_COMMAND)?.to_vec(),
            command_line: r.bytes("a command line", MAX_COMMAND)?.to_vec(),
        })
    }
}

/// The start of a text that fits; cut within a character, the reader replaces the rest.
pub(super) fn cut(text: &str, most: usize) -> &[u8] {
    &text.as_bytes()[..text.len().min(most)]
}

//! What the agent sends.

use super::field::{FieldReader, FieldWriter, check};
use super::{Frame, MAX_BODY, ProtocolError};
use std::time::Duration;

/// The longest message of a failure, and the longest text about the guest, in bytes.
pub const MAX_MESSAGE: usize = 512;

/// The longest name and command line in a list of processes, in bytes.
const MAX_COMMAND: usize = 1024;

/// A message from the agent to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// The session is open.
    Welcome(Box<Info>),
    /// The answer to a ping.
    Pong(Box<Info>),
    /// A program runs. The last answer for one in the background.
    Started {
        /// What to ask after it by, in the background; 0 in the foreground.
        job: u32,
        /// Its process number.
        pid: u32,
    },
    /// What a program wrote.
    ///
    /// Each of the two streams is in order; between the two the order is that of reading, which is
    /// the order of writing unless both were written within the same moment.
    Output {
        /// Where it wrote it.
        stream: Stream,
        /// What it wrote.
        bytes: Vec<u8>,
    },
    /// A program in the foreground has ended. The last answer.
    Exited(Outcome),
    /// A file was stored. The last answer to an upload.
    Stored {
        /// Its path in the guest.
        path: Vec<u8>,
        /// Its length in bytes.
        size: u64,
    },
    /// The next bytes of a download.
    Data(Vec<u8>),
    /// Some of the guest's processes.
    Processes(Vec<Process>),
    /// A download or a list is complete. The last answer.
    End {
        /// How many bytes, or processes, were sent.
        total: u64,
        /// There was more than the limit allows.
        truncated: bool,
    },
    /// A program in the background. The last answer to the question after it.
    Job(JobState),
    /// Done, with nothing to tell. The last answer.
    Done,
    /// The request failed. The last answer.
    Failed {
        /// What sort of failure.
        code: FailureCode,
        /// What happened, for people; at most [`MAX_MESSAGE`] bytes.
        message: String,
    },
    /// This much of a stream's cost was dealt with.
    Credit(u32),
}

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

/// What sort of failure a [`Reply::Failed`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FailureCode {
    /// The request breaks the protocol or has a value that is not allowed.
    BadRequest,
    /// The host's protocol version is none that the agent speaks.
    Version,
    /// As many requests, programs or jobs as are allowed are under way.
    Busy,
    /// The token is not the right one.
    WrongToken,
    /// The agent has not been given a token yet, and this transport needs one.
    NoToken,
    /// The session is not, or no longer, open: another host came, or the agent was started anew.
    NoSession,
    /// The file, program or job does not exist.
    NotFound,
    /// The guest's system denied it.
    Denied,
    /// The guest's system failed otherwise.
    Io,
    /// The request was cancelled.
    Cancelled,
    /// The agent cannot do this on this system.
    Unsupported,
    /// A code that this version does not know.
    Other(u16),
}

/// Each code with its number on the wire.
const CODES: [(FailureCode, u16); 11] = [
    (FailureCode::BadRequest, 1),
    (FailureCode::Version, 2),
    (FailureCode::Busy, 3),
    (FailureCode::WrongToken, 4),
    (FailureCode::NoToken, 5),
    (FailureCode::NoSession, 6),
    (FailureCode::NotFound, 7),
    (FailureCode::Denied, 8),
    (FailureCode::Io, 9),
    (FailureCode::Cancelled, 10),
    (FailureCode::Unsupported, 11),
];

impl From<u16> for FailureCode {
    fn from(number: u16) -> Self {
        CODES
            .iter()
            .find(|(_, known)| *known == number)
            .map_or(Self::Other(number), |(code, _)| *code)
    }
}

impl From<FailureCode> for u16 {
    fn from(code: FailureCode) -> Self {
        match code {
            FailureCode::Other(number) => number,
            code => CODES
                .iter()
                .find(|(known, _)| *known == code)
                .map_or(0, |(_, number)| *number),
        }
    }
}

mod kind {
    pub(super) const WELCOME: u8 = 0x81;
    pub(super) const PONG: u8 = 0x82;
    pub(super) const STARTED: u8 = 0x83;
    pub(super) const STDOUT: u8 = 0x84;
    pub(super) const STDERR: u8 = 0x85;
    pub(super) const EXITED: u8 = 0x86;
    pub(super) const STORED: u8 = 0x87;
    pub(super) const DATA: u8 = 0x88;
    pub(super) const PROCESSES: u8 = 0x89;
    pub(super) const END: u8 = 0x8A;
    pub(super) const JOB: u8 = 0x8B;
    pub(super) const DONE: u8 = 0x8C;
    pub(super) const FAILED: u8 = 0x8D;
    pub(super) const CREDIT: u8 = 0x8E;
}

impl Reply {
    /// The frame that carries this reply.
    ///
    /// # Errors
    /// [`ProtocolError::TooLong`] when it does not fit one.
    pub fn into_frame(self, session: u64, request: u32) -> Result<Frame, ProtocolError> {
        let mut w = FieldWriter::default();
        let (kind, body) = match self {
            Self::Welcome(info) => (kind::WELCOME, info.write(&mut w)),
            Self::Pong(info) => (kind::PONG, info.write(&mut w)),
            Self::Started { job, pid } => (kind::STARTED, w.u32(job).u32(pid).finish()),
            Self::Output {
                stream: Stream::Stdout,
                bytes,
            } => (kind::STDOUT, bytes),
            Self::Output {
                stream: Stream::Stderr,
                bytes,
            } => (kind::STDERR, bytes),
            Self::Exited(outcome) => {
                outcome.write(&mut w);
                (kind::EXITED, w.finish())
            }
            Self::Stored { path, size } => (kind::STORED, w.bytes(&path).u64(size).finish()),
            Self::Data(bytes) => (kind::DATA, bytes),
            Self::Processes(processes) => {
                for process in &processes {
                    process.write(&mut w);
                }
                (kind::PROCESSES, w.finish())
            }
            Self::End { total, truncated } => {
                (kind::END, w.u64(total).u8(truncated.into()).finish())
            }
            Self::Job(state) => {
                match state {
                    JobState::Running => {
                        w.u8(0);
                    }
                    JobState::Ended(outcome) => {
                        outcome.write(w.u8(1));
                    }
                }
                (kind::JOB, w.finish())
            }
            Self::Done => (kind::DONE, Vec::new()),
            Self::Failed { code, message } => (
                kind::FAILED,
                w.u16(code.into()).bytes(cut(&message)).finish(),
            ),
            Self::Credit(amount) => (kind::CREDIT, w.u32(amount).finish()),
        };
        if body.len() > MAX_BODY {
            return Err(ProtocolError::TooLong { found: body.len() });
        }
        Ok(Frame {
            session,
            request,
            kind,
            body,
        })
    }

    /// The reply in a frame.
    ///
    /// # Errors
    /// Any [`ProtocolError`] of a body that is not one.
    pub fn from_frame(frame: Frame) -> Result<Self, ProtocolError> {
        match frame.kind {
            kind::STDOUT => {
                return Ok(Self::Output {
                    stream: Stream::Stdout,
                    bytes: frame.body,
                });
            }
            kind::STDERR => {
                return Ok(Self::Output {
                    stream: Stream::Stderr,
                    bytes: frame.body,
                });
            }
            kind::DATA => return Ok(Self::Data(frame.body)),
            _ => {}
        }
        let mut r = FieldReader::new(&frame.body);
        let reply = match frame.kind {
            kind::WELCOME => Self::Welcome(Box::new(Info::read(&mut r)?)),
            kind::PONG => Self::Pong(Box::new(Info::read(&mut r)?)),
            kind::STARTED => Self::Started {
                job: r.u32()?,
                pid: r.u32()?,
            },
            kind::EXITED => Self::Exited(Outcome::read(&mut r)?),
            kind::STORED => Self::Stored {
                path: r.bytes("the path's length", MAX_BODY)?.to_vec(),
                size: r.u64()?,
            },
            kind::PROCESSES => {
                let mut processes = Vec::new();
                while !r.is_empty() {
                    processes.push(Process::read(&mut r)?);
                }
                Self::Processes(processes)
            }
            kind::END => Self::End {
                total: r.u64()?,
                truncated: r.flag("truncated")?,
            },
            kind::JOB => Self::Job(if r.flag("the job's state")? {
                JobState::Ended(Outcome::read(&mut r)?)
            } else {
                JobState::Running
            }),
            kind::DONE => Self::Done,
            kind::FAILED => Self::Failed {
                code: r.u16()?.into(),
                message: r.text("the message's length", MAX_MESSAGE)?,
            },
            kind::CREDIT => Self::Credit(r.u32()?),
            other => return Err(ProtocolError::UnknownKind(other)),
        };
        r.finish()?;
        Ok(reply)
    }

    /// A failure with this message.
    pub fn failed(code: FailureCode, message: impl Into<String>) -> Self {
        Self::Failed {
            code,
            message: message.into(),
        }
    }
}

impl Info {
    fn write(&self, w: &mut FieldWriter) -> Vec<u8> {
        w.bytes(cut(&self.agent))
            .u16(self.protocol)
            .bytes(cut(&self.system))
            .bytes(cut(&self.release))
            .bytes(cut(&self.architecture))
            .bytes(cut(&self.hostname))
            .bytes(&self.folder)
            .u64(self.instance)
            .u64(self.unix_milliseconds)
            .finish()
    }

    fn read(r: &mut FieldReader<'_>) -> Result<Self, ProtocolError> {
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
    fn write(&self, w: &mut FieldWriter) {
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

    fn read(r: &mut FieldReader<'_>) -> Result<Self, ProtocolError> {
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

    fn write(&self, w: &mut FieldWriter) {
        let name = &self.name[..self.name.len().min(MAX_COMMAND)];
        let line = &self.command_line[..self.command_line.len().min(MAX_COMMAND)];
        w.u32(self.pid).u32(self.parent).bytes(name).bytes(line);
    }

    fn read(r: &mut FieldReader<'_>) -> Result<Self, ProtocolError> {
        Ok(Self {
            pid: r.u32()?,
            parent: r.u32()?,
            name: r.bytes("a process's name", MAX_COMMAND)?.to_vec(),
            command_line: r.bytes("a command line", MAX_COMMAND)?.to_vec(),
        })
    }
}

/// The start of a text that fits a message; cut within a character, the reader replaces the rest.
fn cut(text: &str) -> &[u8] {
    &text.as_bytes()[..text.len().min(MAX_MESSAGE)]
}

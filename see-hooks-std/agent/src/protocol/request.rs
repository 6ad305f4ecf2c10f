//! What the host sends.

use super::probe::{MAX_PROBE_PATIENCE, MAX_TARGETS, Probe};
use super::wire::{self, check, kind, list, milliseconds, pairs};
use super::{Frame, HEADER, MAX_PATH, MAX_TOKEN, ProtocolError, Stream};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The most arguments, and the most environment variables, of a program.
pub const MAX_ARGUMENTS: usize = 1024;

/// The longest deadline of a program.
pub const MAX_DEADLINE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A message from the host to the agent.
///
/// Text is bytes as the guest's system has them; on Windows they have to be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// Opens a session, and ends the one before it on the same transport. Answered by
    /// [`Reply::Welcome`](super::Reply::Welcome). Sent again with the same session it is answered
    /// again and changes nothing.
    Hello {
        /// The newest protocol version that the host speaks.
        version: u16,
        /// The token; empty where the transport needs none.
        #[serde(with = "serde_bytes")]
        token: Vec<u8>,
    },
    /// Is the agent there? Answered by [`Reply::Pong`](super::Reply::Pong).
    Ping,
    /// Makes this token the one that TCP needs; only over a transport that needs none itself.
    /// Answered by [`Reply::Done`](super::Reply::Done).
    Authorize {
        /// Between [`MIN_TOKEN`](super::MIN_TOKEN) and [`MAX_TOKEN`] bytes.
        #[serde(with = "serde_bytes")]
        token: Vec<u8>,
    },
    /// Runs a program. Answered by [`Reply::Started`](super::Reply::Started); in the foreground
    /// then [`Reply::Output`](super::Reply::Output) and at last
    /// [`Reply::Exited`](super::Reply::Exited).
    Run(Run),
    /// Stores a file: its content follows as [`Data`](Self::Data) and [`End`](Self::End).
    /// Answered by [`Reply::Stored`](super::Reply::Stored).
    Upload(Upload),
    /// Stores a file, then runs a program in whose arguments each `{sample}` is replaced by the
    /// file's path. The program cannot have streamed input.
    UploadRun(Upload, Run),
    /// Sends a regular file of the guest as [`Reply::Data`](super::Reply::Data) and
    /// [`Reply::End`](super::Reply::End).
    Download {
        /// Its path in the guest.
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
        /// How many bytes to send at most.
        limit: u64,
    },
    /// Lists a folder as [`Reply::Files`](super::Reply::Files) and [`Reply::End`](super::Reply::End).
    List {
        /// Its absolute path.
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
    },
    /// What is at a path? Answered by [`Reply::File`](super::Reply::File).
    Stat {
        /// Its absolute path.
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
    },
    /// Makes a folder, and those that it lies in. Answered by [`Reply::Done`](super::Reply::Done).
    MakeFolder {
        /// Its absolute path.
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
    },
    /// Removes a file, a link, or a folder with all that is in it. Answered by
    /// [`Reply::Done`](super::Reply::Done).
    Remove {
        /// Its absolute path.
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
    },
    /// Lists the guest's processes as [`Reply::Processes`](super::Reply::Processes) and
    /// [`Reply::End`](super::Reply::End).
    Processes,
    /// Sets the guest's clock. Answered by [`Reply::Done`](super::Reply::Done).
    SetClock {
        /// Seconds since 1970, UTC.
        unix_seconds: u64,
    },
    /// Asks after a program in the background: its output from these offsets on as
    /// [`Reply::Output`](super::Reply::Output), then [`Reply::Job`](super::Reply::Job).
    Job {
        /// The number from [`Reply::Started`](super::Reply::Started).
        job: u32,
        /// The first byte of standard output that is wanted.
        #[serde(default)]
        stdout_from: u64,
        /// The first byte of standard error that is wanted.
        #[serde(default)]
        stderr_from: u64,
    },
    /// Ends a program in the background with its whole process group. Answered by
    /// [`Reply::Done`](super::Reply::Done).
    Kill {
        /// The number from [`Reply::Started`](super::Reply::Started).
        job: u32,
    },
    /// Tries what is to be closed to the guest. Answered by [`Reply::Probed`](super::Reply::Probed).
    Probe(Probe),
    /// The next bytes of an upload or of a program's input.
    #[serde(skip)]
    Data(Vec<u8>),
    /// The upload or the input is complete.
    End,
    /// This much of a stream's cost was dealt with.
    Credit(u32),
    /// Sends a signal to the process group of the request's program: on Unix any, on Windows 9 alone, which ends it.
    Signal(i32),
    /// The request is no longer wanted: a program in the foreground is killed, an unfinished upload
    /// removed. The request is still answered.
    Cancel,
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What to start, and with which surroundings.
    pub program: Program,
    /// Where it runs.
    #[serde(default)]
    pub placement: Placement,
    /// After this time its whole process group is killed; at most [`MAX_DEADLINE`].
    #[serde(rename = "deadline_ms", with = "milliseconds")]
    pub deadline: Duration,
    /// How many bytes of standard output are kept; the rest is read and dropped.
    pub stdout_limit: u64,
    /// How many bytes of standard error are kept; the rest is read and dropped.
    pub stderr_limit: u64,
}

/// What to start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Program {
    /// The program and its arguments; no shell is between.
    #[serde(with = "list")]
    pub arguments: Vec<Vec<u8>>,
    /// Text for the system's shell (`/bin/sh`, `cmd`) in place of the arguments; empty for none.
    #[serde(with = "serde_bytes")]
    pub shell: Vec<u8>,
    /// Variables to set on top of the agent's own environment.
    #[serde(with = "pairs")]
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Start from an empty environment instead.
    pub clear_environment: bool,
    /// The name or the number of the user that it runs as; empty: the agent's own. On Unix alone.
    pub user: String,
    /// The working folder; empty: the agent's upload folder.
    #[serde(with = "serde_bytes")]
    pub folder: Vec<u8>,
}

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Placement {
    /// The request lasts as long as the program, and carries its output.
    Foreground {
        /// Its standard input follows as [`Request::Data`] and [`Request::End`]; else it has none.
        input: bool,
    },
    /// The request ends once the program has started; [`Request::Job`] asks after it later.
    Background,
}

/// A file to store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upload {
    /// A plain file name in the agent's upload folder, or an absolute path in a folder that exists; at most
    /// [`MAX_NAME`](super::MAX_NAME) bytes of a name, [`MAX_PATH`](super::MAX_PATH) of a path.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// Its permission bits, such as `0o644`; of no meaning on Windows.
    pub mode: u32,
    /// How many bytes follow.
    pub size: u64,
}

impl Default for Placement {
    fn default() -> Self {
        Self::Foreground { input: false }
    }
}

impl Request {
    /// The frame that carries this request.
    ///
    /// # Errors
    /// [`ProtocolError::TooLong`] when it does not fit one.
    pub fn into_frame(self, session: u64, request: u32) -> Result<Frame, ProtocolError> {
        match self {
            Self::Data(bytes) => wire::frame(session, request, kind::DATA, bytes),
            message => wire::message(session, request, &message),
        }
    }

    /// The request in a frame.
    ///
    /// # Errors
    /// Any [`ProtocolError`] of a body that is not one.
    pub fn from_frame(frame: Frame) -> Result<Self, ProtocolError> {
        let request: Self = match frame.kind {
            kind::MESSAGE => wire::read(&frame.body)?,
            kind::DATA => return Ok(Self::Data(frame.body)),
            other => return Err(ProtocolError::UnknownKind(other)),
        };
        match &request {
            Self::Hello { token, .. } | Self::Authorize { token } => {
                check("the token's length", token.len() as u64, MAX_TOKEN as u64)?;
            }
            Self::Run(run) => run.check()?,
            Self::Upload(upload) => upload.check()?,
            Self::UploadRun(upload, run) => {
                upload.check()?;
                run.check()?;
            }
            Self::Probe(probe) => {
                let (patience, most) = (probe.patience.as_millis(), MAX_PROBE_PATIENCE.as_millis());
                check("the patience in milliseconds", patience as u64, most as u64)?;
                let count = probe.targets.len() as u64;
                check("the number of targets", count, MAX_TARGETS as u64)?;
            }
            _ => {}
        }
        Ok(request)
    }

    /// Whether it is over at once, whatever else runs.
    #[must_use]
    pub fn is_short(&self) -> bool {
        matches!(
            self,
            Self::Ping | Self::Authorize { .. } | Self::Job { .. } | Self::Kill { .. }
        )
    }

    /// Whether the request waits for an answer; the others belong to one that does.
    pub fn is_answered(&self) -> bool {
        !matches!(
            self,
            Self::Data(_) | Self::End | Self::Credit(_) | Self::Signal(_) | Self::Cancel
        )
    }

    /// What a stream frame with this many bytes costs.
    pub fn stream_cost(bytes: usize) -> usize {
        HEADER + bytes
    }
}

impl Run {
    /// The limit of one of the two streams.
    pub fn limit(&self, stream: Stream) -> u64 {
        match stream {
            Stream::Stdout => self.stdout_limit,
            Stream::Stderr => self.stderr_limit,
        }
    }

    fn check(&self) -> Result<(), ProtocolError> {
        let program = &self.program;
        for (field, count) in [
            ("the number of arguments", program.arguments.len()),
            ("the number of variables", program.environment.len()),
        ] {
            check(field, count as u64, MAX_ARGUMENTS as u64)?;
        }
        let (deadline, most) = (self.deadline.as_millis(), MAX_DEADLINE.as_millis());
        check("the deadline in milliseconds", deadline as u64, most as u64)
    }
}

impl Upload {
    fn check(&self) -> Result<(), ProtocolError> {
        check(
            "the file name's length",
            self.name.len() as u64,
            MAX_PATH as u64,
        )?;
        check("the permission bits", u64::from(self.mode), 0o777)
    }
}

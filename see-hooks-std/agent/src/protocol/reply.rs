//! What the agent sends.

use super::field::{FieldReader, FieldWriter};
use super::guest::{Info, JobState, MAX_MESSAGE, Outcome, Process, Stream, cut};
use super::probe::{Finding, MAX_TARGETS};
use super::{Frame, MAX_BODY, ProtocolError};

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
    /// What came of each target of a probe, in its order. The last answer.
    Probed(Vec<Finding>),
    /// This much of a stream's cost was dealt with.
    Credit(u32),
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
    pub(super) const PROBED: u8 = 0x8F;
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
                w.u16(code.into())
                    .bytes(cut(&message, MAX_MESSAGE))
                    .finish(),
            ),
            Self::Probed(findings) => {
                w.u32(u32::try_from(findings.len()).unwrap_or(u32::MAX));
                for finding in &findings {
                    finding.write(&mut w);
                }
                (kind::PROBED, w.finish())
            }
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
            kind::PROBED => {
                let count = r.count("the number of findings", MAX_TARGETS)?;
                let findings: Result<_, _> = (0..count).map(|_| Finding::read(&mut r)).collect();
                Self::Probed(findings?)
            }
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

//! What the agent sends.

use super::guest::{
    FileInfo, Info, JobState, MAX_LISTED, MAX_MESSAGE, Outcome, Process, Stream, cut,
};
use super::probe::{Finding, MAX_FINDING, MAX_TARGETS};
use super::wire::{self, check, kind};
use super::{Frame, ProtocolError};
use serde::{Deserialize, Serialize};

/// A message from the agent to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reply {
    /// The session is open.
    Welcome(Box<Info>),
    /// The answer to a ping.
    Pong(Box<Info>),
    /// A program runs. The last answer for one in the background.
    Started {
        /// What to ask after it by, in the background; 0 in the foreground.
        #[serde(default)]
        job: u32,
        /// Its process number.
        pid: u32,
    },
    /// What a program wrote.
    ///
    /// Each of the two streams is in order; between the two the order is that of reading, which is
    /// the order of writing unless both were written within the same moment.
    #[serde(skip)]
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
        #[serde(with = "serde_bytes")]
        path: Vec<u8>,
        /// Its length in bytes.
        size: u64,
    },
    /// The next bytes of a download.
    #[serde(skip)]
    Data(Vec<u8>),
    /// Some of the guest's processes.
    Processes(Vec<Process>),
    /// Some of what is in a folder.
    Files(Vec<FileInfo>),
    /// What is at a path. The last answer.
    File(FileInfo),
    /// A download or a list is complete. The last answer.
    End {
        /// How many bytes, processes or files were sent.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
    #[serde(other)]
    Other,
}

impl Reply {
    /// The frame that carries this reply; texts that are too long are cut.
    ///
    /// # Errors
    /// [`ProtocolError::TooLong`] when it does not fit one.
    pub fn into_frame(mut self, session: u64, request: u32) -> Result<Frame, ProtocolError> {
        self.cut();
        let (kind, bytes) = match self {
            Self::Data(bytes) => (kind::DATA, bytes),
            Self::Output { stream, bytes } => match stream {
                Stream::Stdout => (kind::STDOUT, bytes),
                Stream::Stderr => (kind::STDERR, bytes),
            },
            message => return wire::message(session, request, &message),
        };
        wire::frame(session, request, kind, bytes)
    }

    /// The reply in a frame; texts that are too long are cut.
    ///
    /// # Errors
    /// Any [`ProtocolError`] of a body that is not one.
    pub fn from_frame(frame: Frame) -> Result<Self, ProtocolError> {
        let bytes = frame.body;
        let output = |stream, bytes| Ok(Self::Output { stream, bytes });
        let mut reply: Self = match frame.kind {
            kind::MESSAGE => wire::read(&bytes)?,
            kind::DATA => return Ok(Self::Data(bytes)),
            kind::STDOUT => return output(Stream::Stdout, bytes),
            kind::STDERR => return output(Stream::Stderr, bytes),
            other => return Err(ProtocolError::UnknownKind(other)),
        };
        let listed = |bytes: &[u8]| check("the length of a name", bytes.len() as u64, MAX_LISTED);
        match &reply {
            Self::Probed(findings) => {
                let count = findings.len() as u64;
                check("the number of findings", count, MAX_TARGETS as u64)?;
            }
            Self::Processes(processes) => {
                for process in processes {
                    listed(&process.name)?;
                    listed(&process.command_line)?;
                }
            }
            Self::Files(files) => files.iter().try_for_each(|file| listed(&file.name))?,
            _ => {}
        }
        reply.cut();
        Ok(reply)
    }

    fn cut(&mut self) {
        match self {
            Self::Failed { message, .. } => cut(message, MAX_MESSAGE),
            Self::Welcome(info) | Self::Pong(info) => {
                let Info {
                    agent,
                    system,
                    release,
                    architecture,
                    hostname,
                    ..
                } = &mut **info;
                for text in [agent, system, release, architecture, hostname] {
                    cut(text, MAX_MESSAGE);
                }
            }
            Self::Probed(findings) => {
                for finding in findings {
                    if let Finding::Answered(text) | Finding::Untried(text) = finding {
                        cut(text, MAX_FINDING);
                    }
                }
            }
            _ => {}
        }
    }

    /// Whether it is a part of a stream, which the receiver has to make room for.
    pub fn is_streamed(&self) -> bool {
        matches!(
            self,
            Self::Output { .. } | Self::Data(_) | Self::Processes(_) | Self::Files(_)
        )
    }

    /// A failure with this message.
    pub fn failed(code: FailureCode, message: impl Into<String>) -> Self {
        Self::Failed {
            code,
            message: message.into(),
        }
    }
}

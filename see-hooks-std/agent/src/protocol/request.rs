//! What the host sends.

use super::field::{FieldReader, FieldWriter, check};
use super::probe::Probe;
use super::{Frame, HEADER, MAX_BODY, MAX_NAME, MAX_TOKEN, ProtocolError, Stream};
use std::time::Duration;

/// The most arguments, and the most environment variables, of a program.
pub const MAX_ARGUMENTS: usize = 1024;

/// The longest deadline of a program.
pub const MAX_DEADLINE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A message from the host to the agent.
///
/// Text is bytes as the guest's system has them; on Windows they have to be UTF-8.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// Opens a session, and ends the one before it on the same transport. Answered by
    /// [`Reply::Welcome`](super::Reply::Welcome). Sent again with the same session it is answered
    /// again and changes nothing.
    Hello {
        /// The newest protocol version that the host speaks.
        version: u16,
        /// The token; empty where the transport needs none.
        token: Vec<u8>,
    },
    /// Is the agent there? Answered by [`Reply::Pong`](super::Reply::Pong).
    Ping,
    /// Makes this token the one that TCP needs; only over a transport that needs none itself.
    /// Answered by [`Reply::Done`](super::Reply::Done).
    Authorize {
        /// Between [`MIN_TOKEN`](super::MIN_TOKEN) and [`MAX_TOKEN`] bytes.
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
        path: Vec<u8>,
        /// How many bytes to send at most.
        limit: u64,
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
        stdout_from: u64,
        /// The first byte of standard error that is wanted.
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
    Data(Vec<u8>),
    /// The upload or the input is complete.
    End,
    /// This much of a stream's cost was dealt with.
    Credit(u32),
    /// The request is no longer wanted: a program in the foreground is killed, an unfinished upload
    /// removed. The request is still answered.
    Cancel,
}

/// A program to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What to start, and with which surroundings.
    pub program: Program,
    /// Where it runs.
    pub placement: Placement,
    /// After this time its whole process group is killed; at most [`MAX_DEADLINE`].
    pub deadline: Duration,
    /// How many bytes of standard output are kept; the rest is read and dropped.
    pub stdout_limit: u64,
    /// How many bytes of standard error are kept; the rest is read and dropped.
    pub stderr_limit: u64,
}

/// What to start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Program {
    /// The program and its arguments; no shell is between.
    pub arguments: Vec<Vec<u8>>,
    /// Variables to set on top of the agent's own environment.
    pub environment: Vec<(Vec<u8>, Vec<u8>)>,
    /// Start from an empty environment instead.
    pub clear_environment: bool,
    /// The working folder; empty: the agent's upload folder.
    pub folder: Vec<u8>,
}

/// Where a program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// The request lasts as long as the program, and carries its output.
    Foreground {
        /// Its standard input follows as [`Request::Data`] and [`Request::End`]; else it has none.
        input: bool,
    },
    /// The request ends once the program has started; [`Request::Job`] asks after it later.
    Background,
}

/// A file to store in the agent's upload folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// A plain file name: never a path.
    pub name: Vec<u8>,
    /// Its permission bits, such as `0o644`; of no meaning on Windows.
    pub mode: u32,
    /// How many bytes follow.
    pub size: u64,
}

mod kind {
    pub(super) const HELLO: u8 = 0x01;
    pub(super) const PING: u8 = 0x02;
    pub(super) const AUTHORIZE: u8 = 0x03;
    pub(super) const RUN: u8 = 0x04;
    pub(super) const UPLOAD: u8 = 0x05;
    pub(super) const UPLOAD_RUN: u8 = 0x06;
    pub(super) const DOWNLOAD: u8 = 0x07;
    pub(super) const PROCESSES: u8 = 0x08;
    pub(super) const SET_CLOCK: u8 = 0x09;
    pub(super) const JOB: u8 = 0x0A;
    pub(super) const KILL: u8 = 0x0B;
    pub(super) const DATA: u8 = 0x0C;
    pub(super) const END: u8 = 0x0D;
    pub(super) const CREDIT: u8 = 0x0E;
    pub(super) const CANCEL: u8 = 0x0F;
    pub(super) const PROBE: u8 = 0x10;
}

impl Request {
    /// The frame that carries this request.
    ///
    /// # Errors
    /// [`ProtocolError::TooLong`] when it does not fit one.
    pub fn into_frame(self, session: u64, request: u32) -> Result<Frame, ProtocolError> {
        let mut w = FieldWriter::default();
        let (kind, body) = match self {
            Self::Hello { version, token } => (kind::HELLO, w.u16(version).bytes(&token).finish()),
            Self::Ping => (kind::PING, Vec::new()),
            Self::Authorize { token } => (kind::AUTHORIZE, w.bytes(&token).finish()),
            Self::Run(run) => {
                run.write(&mut w);
                (kind::RUN, w.finish())
            }
            Self::Upload(upload) => {
                upload.write(&mut w);
                (kind::UPLOAD, w.finish())
            }
            Self::UploadRun(upload, run) => {
                upload.write(&mut w);
                run.write(&mut w);
                (kind::UPLOAD_RUN, w.finish())
            }
            Self::Download { path, limit } => (kind::DOWNLOAD, w.bytes(&path).u64(limit).finish()),
            Self::Processes => (kind::PROCESSES, Vec::new()),
            Self::SetClock { unix_seconds } => (kind::SET_CLOCK, w.u64(unix_seconds).finish()),
            Self::Job {
                job,
                stdout_from,
                stderr_from,
            } => (
                kind::JOB,
                w.u32(job).u64(stdout_from).u64(stderr_from).finish(),
            ),
            Self::Kill { job } => (kind::KILL, w.u32(job).finish()),
            Self::Probe(probe) => {
                probe.write(&mut w);
                (kind::PROBE, w.finish())
            }
            Self::Data(bytes) => (kind::DATA, bytes),
            Self::End => (kind::END, Vec::new()),
            Self::Credit(amount) => (kind::CREDIT, w.u32(amount).finish()),
            Self::Cancel => (kind::CANCEL, Vec::new()),
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

    /// The request in a frame.
    ///
    /// # Errors
    /// Any [`ProtocolError`] of a body that is not one.
    pub fn from_frame(frame: Frame) -> Result<Self, ProtocolError> {
        if frame.kind == kind::DATA {
            return Ok(Self::Data(frame.body));
        }
        let mut r = FieldReader::new(&frame.body);
        let request = match frame.kind {
            kind::HELLO => Self::Hello {
                version: r.u16()?,
                token: r.bytes("the token's length", MAX_TOKEN)?.to_vec(),
            },
            kind::PING => Self::Ping,
            kind::AUTHORIZE => Self::Authorize {
                token: r.bytes("the token's length", MAX_TOKEN)?.to_vec(),
            },
            kind::RUN => Self::Run(Run::read(&mut r)?),
            kind::UPLOAD => Self::Upload(Upload::read(&mut r)?),
            kind::UPLOAD_RUN => Self::UploadRun(Upload::read(&mut r)?, Run::read(&mut r)?),
            kind::DOWNLOAD => Self::Download {
                path: r.bytes("the path's length", MAX_BODY)?.to_vec(),
                limit: r.u64()?,
            },
            kind::PROCESSES => Self::Processes,
            kind::SET_CLOCK => Self::SetClock {
                unix_seconds: r.u64()?,
            },
            kind::JOB => Self::Job {
                job: r.u32()?,
                stdout_from: r.u64()?,
                stderr_from: r.u64()?,
            },
            kind::KILL => Self::Kill { job: r.u32()? },
            kind::PROBE => Self::Probe(Probe::read(&mut r)?),
            kind::END => Self::End,
            kind::CREDIT => Self::Credit(r.u32()?),
            kind::CANCEL => Self::Cancel,
            other => return Err(ProtocolError::UnknownKind(other)),
        };
        r.finish()?;
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
            Self::Data(_) | Self::End | Self::Credit(_) | Self::Cancel
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

    fn write(&self, w: &mut FieldWriter) {
        let program = &self.program;
        w.u32(u32::try_from(program.arguments.len()).unwrap_or(u32::MAX));
        for argument in &program.arguments {
            w.bytes(argument);
        }
        w.u32(u32::try_from(program.environment.len()).unwrap_or(u32::MAX));
        for (name, value) in &program.environment {
            w.bytes(name).bytes(value);
        }
        w.u8(program.clear_environment.into())
            .bytes(&program.folder);
        w.u8(match self.placement {
            Placement::Foreground { input: false } => 0,
            Placement::Foreground { input: true } => 1,
            Placement::Background => 2,
        });
        w.u64(u64::try_from(self.deadline.as_millis()).unwrap_or(u64::MAX));
        w.u64(self.stdout_limit).u64(self.stderr_limit);
    }

    fn read(r: &mut FieldReader<'_>) -> Result<Self, ProtocolError> {
        let count = r.count("the number of arguments", MAX_ARGUMENTS)?;
        let mut arguments = Vec::new();
        for _ in 0..count {
            arguments.push(r.bytes("an argument's length", MAX_BODY)?.to_vec());
        }
        let count = r.count("the number of variables", MAX_ARGUMENTS)?;
        let mut environment = Vec::new();
        for _ in 0..count {
            let name = r.bytes("a variable's name", MAX_BODY)?.to_vec();
            environment.push((name, r.bytes("a variable's value", MAX_BODY)?.to_vec()));
        }
        let clear_environment = r.flag("the empty environment")?;
        let folder = r.bytes("the working folder", MAX_BODY)?.to_vec();
        let placement = r.u8()?;
        check("the placement", u64::from(placement), 2)?;
        let placement = match placement {
            0 => Placement::Foreground { input: false },
            1 => Placement::Foreground { input: true },
            _ => Placement::Background,
        };
        let deadline = r.u64()?;
        check(
            "the deadline in milliseconds",
            deadline,
            MAX_DEADLINE.as_millis() as u64,
        )?;
        Ok(Self {
            program: Program {
                arguments,
                environment,
                clear_environment,
                folder,
            },
            placement,
            deadline: Duration::from_millis(deadline),
            stdout_limit: r.u64()?,
            stderr_limit: r.u64()?,
        })
    }
}

impl Upload {
    fn write(&self, w: &mut FieldWriter) {
        w.bytes(&self.name).u32(self.mode).u64(self.size);
    }

    fn read(r: &mut FieldReader<'_>) -> Result<Self, ProtocolError> {
        let name = r.bytes("the file name's length", MAX_NAME)?.to_vec();
        let mode = r.u32()?;
        check("the permission bits", u64::from(mode), 0o777)?;
        Ok(Self {
            name,
            mode,
            size: r.u64()?,
        })
    }
}

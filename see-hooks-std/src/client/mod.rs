//! An async client of the guest agent, over any byte stream.
//!
//! Requests are multiplexed: up to [`MAX_REQUESTS`](see_agent::protocol::MAX_REQUESTS) run beside
//! each other on one stream, each with its own flow control. Every call has a deadline, and may be
//! dropped at any time: the agent is then told that its request is no longer wanted.
//!
//! The guest is hostile. Whatever it sends is bounded in memory, and a guest that breaks the
//! protocol (overruns a window, answers what was not asked, sends damaged frames again and again)
//! loses the connection with [`ClientError::Violation`].

mod call;
mod error;
mod execution;
mod files;
mod link;
mod probe;
mod route;

pub use call::Input;
pub use error::ClientError;
pub use execution::{Execution, Progress};
pub use files::Downloaded;

use call::Call;
use link::Link;
use see_agent::protocol::{
    FailureCode, Info, JobState, MAX_DEADLINE, MAX_TOKEN, MIN_TOKEN, Process, Reply, Request, Run,
    Stream, VERSION,
};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// How often a host says hello until the agent answers: the guest may still boot.
const HELLO_AGAIN: Duration = Duration::from_millis(250);
/// The most processes that are taken from a guest.
const MAX_PROCESSES: usize = 8192;

/// A session with a guest agent; cheap to clone. It ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Client {
    link: Arc<Link>,
    info: Arc<Info>,
}

/// A program in the background, as it was asked after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobReport {
    /// Whether it still runs.
    pub state: JobState,
    /// What it wrote to standard output, from the offset that was asked for.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, from the offset that was asked for.
    pub stderr: Vec<u8>,
}

impl Client {
    /// Opens a session over this stream; says hello until the agent answers.
    ///
    /// `token` is what the agent expects over TCP; empty over a guest channel.
    ///
    /// # Errors
    /// [`ClientError::Timeout`] when nobody answers, [`ClientError::Refused`] when the token is not
    /// the right one, and whatever ends a connection.
    pub async fn connect(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        token: &[u8],
        deadline: Duration,
    ) -> Result<Self, ClientError> {
        let link = Link::open(stream)?;
        let hello = async {
            link.pad().await?;
            let hello = || Request::Hello {
                version: VERSION,
                token: token.to_vec(),
            };
            let mut call = Call::start(&link, hello(), |_| false).await?;
            loop {
                match tokio::time::timeout(HELLO_AGAIN, call.next()).await {
                    Ok(Ok(Reply::Welcome(info))) => return Ok(info),
                    Ok(reply) => return Err(link.unexpected(reply?)),
                    // Under the same number: a late answer to an earlier one serves as well.
                    Err(_) => call.send(hello()).await?,
                }
            }
        };
        let info = within(deadline, "the agent to answer", hello).await?;
        if info.protocol != VERSION {
            let message = format!("the agent speaks protocol version {}", info.protocol);
            return Err(ClientError::Violation(message));
        }
        Ok(Self {
            link,
            info: Arc::from(info),
        })
    }

    /// What the agent said of itself and its guest when the session began. Nothing in it is to be
    /// believed.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// Asks whether the agent is there.
    ///
    /// # Errors
    /// When it does not answer within `deadline`.
    pub async fn ping(&self, deadline: Duration) -> Result<Info, ClientError> {
        match self.ask(Request::Ping, deadline).await? {
            Reply::Pong(info) => Ok(*info),
            other => Err(self.link.unexpected(other)),
        }
    }

    /// Hands the agent the token that it is to expect over TCP; only over a guest channel.
    ///
    /// # Errors
    /// When the token has a length that no agent accepts, or the agent refuses it.
    pub async fn authorize(&self, token: &[u8], deadline: Duration) -> Result<(), ClientError> {
        if !(MIN_TOKEN..=MAX_TOKEN).contains(&token.len()) {
            return Err(ClientError::Refused {
                code: FailureCode::BadRequest,
                message: format!("a token has {MIN_TOKEN} to {MAX_TOKEN} bytes"),
            });
        }
        let token = token.to_vec();
        self.done(Request::Authorize { token }, deadline).await
    }

    /// Waits until the agent is lost, since the connection ended or an answer told that the session is gone; gives the
    /// reason. The end of an agent behind a port that outlives it is noticed with the next request only. May be
    /// dropped at any time.
    pub async fn lost(&self) -> ClientError {
        self.link.ended().await
    }

    /// Whether the agent is lost; every further request then fails.
    pub fn is_lost(&self) -> bool {
        self.link.has_ended()
    }

    /// How many messages the agent has sent in this session, whatever they belong to. One that goes on sending is
    /// alive, also while its answer to a ping waits behind others.
    pub fn heard(&self) -> u64 {
        self.link.routes.heard()
    }

    /// Sets the guest's clock, to the second.
    ///
    /// # Errors
    /// When the guest cannot, or its time is out of range.
    pub async fn set_clock(&self, to: SystemTime, deadline: Duration) -> Result<(), ClientError> {
        let unix_seconds = to.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.done(Request::SetClock { unix_seconds }, deadline)
            .await
    }

    /// The guest's processes; `true` when there are more than are listed.
    ///
    /// # Errors
    /// When the agent cannot list them.
    pub async fn processes(&self, deadline: Duration) -> Result<(Vec<Process>, bool), ClientError> {
        within(deadline, "the list of processes", async {
            let mut call = Call::start(&self.link, Request::Processes, |_| false).await?;
            let mut all = Vec::new();
            loop {
                match call.next().await? {
                    Reply::Processes(some) if all.len() + some.len() <= MAX_PROCESSES => {
                        all.extend(some);
                    }
                    Reply::Processes(_) => {
                        return Err(self.link.violated("it lists more processes than it may"));
                    }
                    Reply::End { truncated, .. } => return Ok((all, truncated)),
                    other => return Err(self.link.unexpected(other)),
                }
            }
        })
        .await
    }

    /// Starts a program in the background, within `deadline`, which begins when it is its turn as for
    /// [`Client::run`]; gives the number to ask after it by, and its process number.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn start(&self, run: Run, deadline: Duration) -> Result<(u32, u32), ClientError> {
        let request = Request::Run(run);
        let room = self.turn(&request).await?;
        within(deadline, "the program to start", async {
            let is_last = |reply: &Reply| matches!(reply, Reply::Started { .. });
            let mut call = Call::start_in(&self.link, room, request, is_last).await?;
            match call.next().await? {
                Reply::Started { job, pid } => Ok((job, pid)),
                other => Err(self.link.unexpected(other)),
            }
        })
        .await
    }

    /// Asks after a program in the background, from these offsets of its output on; `most` bytes
    /// of each stream are taken.
    ///
    /// # Errors
    /// When the agent knows no such program.
    pub async fn job(
        &self,
        job: u32,
        (stdout_from, stderr_from): (u64, u64),
        most: usize,
        deadline: Duration,
    ) -> Result<JobReport, ClientError> {
        within(deadline, "news of the program", async {
            let request = Request::Job {
                job,
                stdout_from,
                stderr_from,
            };
            let mut call = Call::start(&self.link, request, |_| false).await?;
            let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
            loop {
                match call.next().await? {
                    Reply::Output { stream, bytes } => {
                        let kept = match stream {
                            Stream::Stdout => &mut stdout,
                            Stream::Stderr => &mut stderr,
                        };
                        let room = most.saturating_sub(kept.len()).min(bytes.len());
                        kept.extend_from_slice(&bytes[..room]);
                    }
                    Reply::Job(state) => {
                        return Ok(JobReport {
                            state,
                            stdout,
                            stderr,
                        });
                    }
                    other => return Err(self.link.unexpected(other)),
                }
            }
        })
        .await
    }

    /// Ends a program in the background.
    ///
    /// # Errors
    /// When the agent knows no such program, or it has ended.
    pub async fn kill(&self, job: u32, deadline: Duration) -> Result<(), ClientError> {
        self.done(Request::Kill { job }, deadline).await
    }

    /// Waits for the turn of a program: no longer than those before it may run.
    async fn turn(&self, request: &Request) -> Result<OwnedSemaphorePermit, ClientError> {
        let turn = self.link.room_for(request);
        within(MAX_DEADLINE, "the turn of the program", turn).await
    }

    /// A request with one answer.
    async fn ask(&self, request: Request, deadline: Duration) -> Result<Reply, ClientError> {
        within(deadline, "the agent's answer", async {
            let mut call = Call::start(&self.link, request, |_| false).await?;
            call.next().await
        })
        .await
    }

    async fn done(&self, request: Request, deadline: Duration) -> Result<(), ClientError> {
        match self.ask(request, deadline).await? {
            Reply::Done => Ok(()),
            other => Err(self.link.unexpected(other)),
        }
    }
}

/// Gives up at the deadline, naming what was waited for.
async fn within<T>(
    deadline: Duration,
    what: &'static str,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let until = Instant::now() + deadline;
    tokio::time::timeout_at(until, work)
        .await
        .unwrap_or(Err(ClientError::Timeout {
            what,
            waited: deadline,
        }))
}

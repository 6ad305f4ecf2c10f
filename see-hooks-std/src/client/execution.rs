//! A program that runs in the foreground of the guest.

use super::call::{Call, Input};
use super::{Client, ClientError, within};
use see_agent::protocol::{Outcome, Reply, Request, Run, Stream, Upload};
use std::time::Duration;
use tokio::io::AsyncRead;

/// A running program; dropped before its end, it is killed.
#[derive(Debug)]
pub struct Execution {
    call: Call,
    pid: u32,
    path: Option<Vec<u8>>,
    /// What is still taken of each stream.
    left: [u64; 2],
    /// What the guest sent beyond it, against its own word.
    dropped: [bool; 2],
}

/// What a running program did next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// It wrote something. Each stream is in order.
    Output {
        /// Where.
        stream: Stream,
        /// What.
        bytes: Vec<u8>,
    },
    /// It ended.
    Exited(Outcome),
}

impl Client {
    /// Starts a program in the foreground, within `deadline`; its own deadline is in `run`. While as many run as
    /// the agent serves at once, it waits for its turn, which costs it none of its time.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn run(&self, run: Run, deadline: Duration) -> Result<Execution, ClientError> {
        let left = [run.stdout_limit, run.stderr_limit];
        let request = Request::Run(run);
        let room = self.turn(&request).await?;
        within(deadline, "the program to start", async {
            let call = Call::start_in(&self.link, room, request, |_| false).await?;
            Execution::started(call, None, left).await
        })
        .await
    }

    /// Stores a file in the guest and starts a program in whose arguments each `{sample}` stands
    /// for it, within `deadline`, which begins when it is its turn as for [`Client::run`].
    ///
    /// # Errors
    /// When the file cannot be read or stored, or the program not be started.
    pub async fn upload_and_run(
        &self,
        upload: Upload,
        content: impl AsyncRead + Unpin,
        run: Run,
        deadline: Duration,
    ) -> Result<Execution, ClientError> {
        let left = [run.stdout_limit, run.stderr_limit];
        let size = upload.size;
        let request = Request::UploadRun(upload, run);
        let room = self.turn(&request).await?;
        within(deadline, "the upload, and the program to start", async {
            let mut call = Call::start_in(&self.link, room, request, |_| false).await?;
            let path = call.feed_upload(content, size).await?;
            Execution::started(call, Some(path), left).await
        })
        .await
    }

    /// Stores a file in the guest and starts a program on it in the background, within `deadline`, which begins when it
    /// is its turn as for [`Client::run`]; gives the number to ask after it by, and its process number.
    ///
    /// # Errors
    /// When the file cannot be read or stored, or the program not be started.
    pub async fn upload_and_start(
        &self,
        upload: Upload,
        content: impl AsyncRead + Unpin,
        run: Run,
        deadline: Duration,
    ) -> Result<(u32, u32), ClientError> {
        let size = upload.size;
        let request = Request::UploadRun(upload, run);
        let room = self.turn(&request).await?;
        within(deadline, "the upload, and the program to start", async {
            let is_last = |reply: &Reply| matches!(reply, Reply::Started { .. });
            let mut call = Call::start_in(&self.link, room, request, is_last).await?;
            call.feed_upload(content, size).await?;
            match call.next().await? {
                Reply::Started { job, pid } => Ok((job, pid)),
                other => Err(self.link.unexpected(other)),
            }
        })
        .await
    }
}

impl Execution {
    async fn started(
        mut call: Call,
        path: Option<Vec<u8>>,
        left: [u64; 2],
    ) -> Result<Self, ClientError> {
        match call.next().await? {
            Reply::Started { pid, .. } => Ok(Self {
                call,
                pid,
                path,
                left,
                dropped: [false; 2],
            }),
            other => Err(call.unexpected(other)),
        }
    }

    /// Its process number in the guest.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Where the uploaded file is in the guest.
    pub fn path(&self) -> Option<&[u8]> {
        self.path.as_deref()
    }

    /// Sends a signal to its process group; of no use once it has ended.
    ///
    /// # Errors
    /// When the agent is lost.
    pub async fn signal(&self, signal: i32) -> Result<(), ClientError> {
        self.call.send(Request::Signal(signal)).await
    }

    /// Its standard input, for a program that was given one
    /// ([`Placement::Foreground`](see_agent::protocol::Placement::Foreground) with `input`).
    pub fn input(&self) -> Input {
        self.call.input()
    }

    /// What it does next; after [`Progress::Exited`] there is nothing more. May be dropped and
    /// called again.
    ///
    /// # Errors
    /// When the agent is lost.
    pub async fn next(&mut self) -> Result<Progress, ClientError> {
        loop {
            match self.call.next().await? {
                Reply::Output { stream, mut bytes } => {
                    let at = usize::from(stream == Stream::Stderr);
                    let kept = usize::try_from(self.left[at]).unwrap_or(usize::MAX);
                    self.dropped[at] |= kept < bytes.len();
                    bytes.truncate(kept);
                    self.left[at] -= bytes.len() as u64;
                    if !bytes.is_empty() {
                        return Ok(Progress::Output { stream, bytes });
                    }
                }
                Reply::Exited(mut outcome) => {
                    outcome.stdout_truncated |= self.dropped[0];
                    outcome.stderr_truncated |= self.dropped[1];
                    return Ok(Progress::Exited(outcome));
                }
                other => {
                    return Err(self.call.unexpected(other));
                }
            }
        }
    }
}

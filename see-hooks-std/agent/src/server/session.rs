//! A host's session: its open requests, and serving each of them.

use super::folder::io_failure;
use super::outbox::Outbox;
use super::program::{self, PipeCount, Sink};
use super::stream::{Incoming, Room, StreamPair};
use super::{Agent, download, job, lock, probe, process, start_thread};
use crate::platform;
use crate::protocol::{
    FailureCode, MAX_BODY, MAX_REQUESTS, MAX_SHORT_REQUESTS, Placement, Reply, Request, Run,
    SAMPLE_PLACEHOLDER, Stream, Upload,
};
use std::collections::HashMap;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{ChildStdin, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a host may take to read an answer before it is dropped.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a host may take to make room for a stream's next frame.
const STREAM_PATIENCE: Duration = Duration::from_secs(300);

/// One session on one transport.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: u64,
    agent: Arc<Agent>,
    outbox: Arc<Outbox>,
    open: Mutex<HashMap<u32, Open>>,
}

/// A request that is being served.
#[derive(Debug)]
struct Open {
    is_short: bool,
    streams: Arc<StreamPair>,
}

impl Session {
    pub(super) fn new(number: u64, agent: &Arc<Agent>, outbox: &Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self {
            number,
            agent: Arc::clone(agent),
            outbox: Arc::clone(outbox),
            open: Mutex::default(),
        })
    }

    /// Ends everything that is open: programs in the foreground are killed, unfinished uploads
    /// removed.
    pub(super) fn end(&self) {
        for open in lock(&self.open).values() {
            open.streams.cancel();
        }
    }

    pub(super) fn reply(&self, request: u32, reply: Reply) {
        // A host that does not read misses its answer, and its own deadline tells it so.
        self.outbox
            .send(self.number, request, reply, Instant::now() + PATIENCE);
    }

    /// A frame that belongs to an open request. One that has been answered meanwhile is no error.
    pub(super) fn feed(&self, request: u32, piece: Request) {
        let open = lock(&self.open);
        let Some(streams) = open.get(&request).map(|open| Arc::clone(&open.streams)) else {
            return;
        };
        drop(open);
        match piece {
            Request::Data(bytes) => {
                if !streams.receive(bytes) {
                    streams.cancel();
                }
            }
            Request::End => streams.end(),
            Request::Credit(amount) => streams.credit(amount),
            _ => streams.cancel(),
        }
    }

    /// Serves a request that takes time on a thread of its own.
    pub(super) fn begin(self: &Arc<Self>, number: u32, request: Request) {
        let streams = Arc::new(StreamPair::new());
        let is_short = request.is_short();
        let most = if is_short {
            MAX_SHORT_REQUESTS
        } else {
            MAX_REQUESTS
        };
        {
            let mut open = lock(&self.open);
            let refusal = if open.contains_key(&number) {
                Some((FailureCode::BadRequest, "a request of this number is open"))
            } else if open
                .values()
                .filter(|other| other.is_short == is_short)
                .count()
                >= most
            {
                Some((
                    FailureCode::Busy,
                    "as many requests as are allowed are open",
                ))
            } else {
                None
            };
            if let Some((code, message)) = refusal {
                drop(open);
                return self.reply(number, Reply::failed(code, message));
            }
            let streams = Arc::clone(&streams);
            open.insert(number, Open { is_short, streams });
        }
        let session = Arc::clone(self);
        let started = start_thread("request", move || {
            let answer = Answer {
                session: &session,
                number,
                streams: &streams,
            };
            let served = catch_unwind(AssertUnwindSafe(|| answer.serve(request)));
            let reply = match served {
                Ok(Ok(reply) | Err(reply)) => reply,
                Err(_) => Reply::failed(FailureCode::Io, "the agent failed; please report it"),
            };
            // Before the answer: the host may use the room as soon as it has it.
            lock(&session.open).remove(&number);
            // A thread that waits for a program's input would wait for ever.
            streams.cancel();
            session.reply(number, reply);
        });
        if let Err(error) = started {
            lock(&self.open).remove(&number);
            self.reply(
                number,
                io_failure("starting a thread for the request", &error),
            );
        }
    }
}

/// One request being served.
#[derive(Debug)]
pub(super) struct Answer<'a> {
    session: &'a Session,
    number: u32,
    streams: &'a Arc<StreamPair>,
}

impl Answer<'_> {
    /// Does what is asked; both results are the last answer.
    fn serve(&self, request: Request) -> Result<Reply, Reply> {
        let agent = &self.session.agent;
        match request {
            Request::Run(run) => self.run(run),
            Request::Upload(upload) => self.upload(&upload),
            Request::UploadRun(upload, mut run) => {
                if (run.placement == Placement::Foreground { input: true }) {
                    let message = "a program that is uploaded cannot have streamed input";
                    return Err(Reply::failed(FailureCode::BadRequest, message));
                }
                let stored = self.upload(&upload)?;
                if let Reply::Stored { path, .. } = &stored {
                    for argument in &mut run.program.arguments {
                        *argument = substitute(argument, path);
                    }
                }
                self.session.reply(self.number, stored);
                self.run(run)
            }
            Request::Download { path, limit } => download::download(self, path, limit),
            Request::Processes => process::list(self),
            Request::SetClock { unix_seconds } => set_clock(unix_seconds),
            Request::Job {
                job,
                stdout_from,
                stderr_from,
            } => {
                let job = agent.jobs.find(job)?;
                // The state first: what is written until the end is then never missed.
                let state = job.state();
                self.send_written(&job, Stream::Stdout, stdout_from)?;
                self.send_written(&job, Stream::Stderr, stderr_from)?;
                Ok(Reply::Job(state))
            }
            Request::Probe(wanted) => probe::probe(self, &agent.default_route, &wanted),
            Request::Kill { job } => {
                if agent.jobs.find(job)?.kill() {
                    Ok(Reply::Done)
                } else {
                    let message = "the program has ended already";
                    Err(Reply::failed(FailureCode::NotFound, message))
                }
            }
            other => {
                let message = format!("{other:?} cannot be served here");
                Err(Reply::failed(FailureCode::BadRequest, message))
            }
        }
    }

    /// Whether the host has given the request up.
    pub(super) fn is_cancelled(&self) -> bool {
        self.streams.is_cancelled()
    }

    /// Sends a frame of a stream once the host has room for it; `length` is that of its body.
    pub(super) fn stream(&self, reply: Reply, length: usize) -> Result<(), Reply> {
        let cancelled = |message| Reply::failed(FailureCode::Cancelled, message);
        match self.send(reply, length, Instant::now() + STREAM_PATIENCE) {
            Room::Taken => Ok(()),
            Room::Cancelled => Err(cancelled("the request was cancelled")),
            Room::Expired => Err(cancelled("the host took no more of the stream")),
        }
    }

    fn send(&self, reply: Reply, length: usize, until: Instant) -> Room {
        let cost = Request::stream_cost(length);
        let room = self.streams.take_room(cost, until);
        if room != Room::Taken {
            return room;
        }
        let session = self.session;
        if session
            .outbox
            .send(session.number, self.number, reply, until)
        {
            return Room::Taken;
        }
        self.streams.credit(cost as u32);
        if Instant::now() < until {
            // Nobody writes any more.
            return Room::Cancelled;
        }
        Room::Expired
    }

    fn give_back(&self, bytes: usize) {
        let amount = self.streams.dealt_with(bytes);
        self.session.reply(self.number, Reply::Credit(amount));
    }

    fn upload(&self, upload: &Upload) -> Result<Reply, Reply> {
        let agent = &self.session.agent;
        if upload.size > agent.limits.upload {
            let message = format!("an upload may have at most {} bytes", agent.limits.upload);
            return Err(Reply::failed(FailureCode::BadRequest, message));
        }
        let mut unfinished = agent.folder.begin(upload)?;
        let mut size = 0;
        loop {
            match self.streams.next(Some(Instant::now() + STREAM_PATIENCE)) {
                Incoming::Data(bytes) => {
                    size += bytes.len() as u64;
                    if size > upload.size {
                        break;
                    }
                    unfinished
                        .write(&bytes)
                        .map_err(|error| io_failure("storing the upload", &error))?;
                    self.give_back(bytes.len());
                }
                Incoming::End => break,
                Incoming::Cancelled => {
                    let message = "the upload was cancelled, stalled, or overran its window";
                    return Err(Reply::failed(FailureCode::Cancelled, message));
                }
            }
        }
        if size != upload.size {
            let message = format!("{size} bytes came, {} were announced", upload.size);
            return Err(Reply::failed(FailureCode::BadRequest, message));
        }
        let path = unfinished
            .finish()
            .map_err(|error| io_failure("naming the upload", &error))?;
        Ok(Reply::Stored {
            path: platform::os_bytes(path.as_os_str()),
            size,
        })
    }

    fn run(&self, mut run: Run) -> Result<Reply, Reply> {
        let agent = &self.session.agent;
        let input = match run.placement {
            Placement::Background => return job::start(agent, run),
            Placement::Foreground { input } => input,
        };
        let (running, input) = program::start(agent, std::mem::take(&mut run.program), input)?;
        if let Some(input) = input {
            self.move_input(input);
        }
        let started = Reply::Started {
            job: 0,
            pid: running.pid(),
        };
        self.session.reply(self.number, started);
        Ok(Reply::Exited(running.supervise(
            agent,
            &run,
            &mut Forward(self),
        )))
    }

    /// Starts the thread that feeds a program's standard input.
    fn move_input(&self, mut input: ChildStdin) {
        let count = PipeCount::new(&self.session.agent);
        let streams = Arc::clone(self.streams);
        let outbox = Arc::clone(&self.session.outbox);
        let (session, number) = (self.session.number, self.number);
        let started = start_thread("input", move || {
            let _count = count;
            while let Incoming::Data(bytes) = streams.next(None) {
                // A program may stop reading its input; what is left of it is dropped.
                drop(input.write_all(&bytes));
                let credit = Reply::Credit(streams.dealt_with(bytes.len()));
                outbox.send(session, number, credit, Instant::now() + PATIENCE);
            }
        });
        // Without a thread the program sees the end of its input at once, and may say so.
        drop(started);
    }

    fn send_written(&self, job: &job::Job, stream: Stream, from: u64) -> Result<(), Reply> {
        let mut offset = from;
        // What a program writes meanwhile is sent too, but never more than is kept at all.
        loop {
            let bytes = job.written(stream, offset, MAX_BODY);
            if bytes.is_empty() {
                return Ok(());
            }
            let length = bytes.len();
            offset += length as u64;
            self.stream(Reply::Output { stream, bytes }, length)?;
        }
    }
}

/// A program's output on its way to the host.
struct Forward<'a>(&'a Answer<'a>);

impl Sink for Forward<'_> {
    fn output(&mut self, stream: Stream, bytes: &[u8], until: Instant) -> Room {
        let reply = Reply::Output {
            stream,
            bytes: bytes.to_vec(),
        };
        self.0.send(reply, bytes.len(), until)
    }

    fn is_cancelled(&self) -> bool {
        self.0.streams.is_cancelled()
    }
}

/// The argument with each placeholder replaced by the path.
fn substitute(argument: &[u8], path: &[u8]) -> Vec<u8> {
    let placeholder = SAMPLE_PLACEHOLDER.as_bytes();
    let mut result = Vec::with_capacity(argument.len());
    let mut rest = argument;
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(placeholder) {
            result.extend_from_slice(path);
            rest = after;
        } else {
            result.push(*first);
            rest = after;
        }
    }
    result
}

fn set_clock(unix_seconds: u64) -> Result<Reply, Reply> {
    let Some(mut command) = platform::set_clock(unix_seconds) else {
        let message = "the agent cannot set the clock of this system";
        return Err(Reply::failed(FailureCode::Unsupported, message));
    };
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(|error| io_failure("starting date", &error))?;
    if status.success() {
        Ok(Reply::Done)
    } else {
        let message = format!("date refused to set the clock: {status}");
        Err(Reply::failed(FailureCode::Denied, message))
    }
}

#[cfg(test)]
mod tests {
    use super::substitute;

    #[test]
    fn each_placeholder_becomes_the_path() {
        assert_eq!(substitute(b"{sample}", b"/up/x"), b"/up/x");
        assert_eq!(
            substitute(b"a{sample}b{sample}", b"/{sample}"),
            b"a/{sample}b/{sample}"
        );
        assert_eq!(substitute(b"{sampl}", b"/up/x"), b"{sampl}");
    }
}

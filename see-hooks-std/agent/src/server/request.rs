//! Serving one request.

use super::answer::{Answer, STREAM_PATIENCE};
use super::folder::io_failure;
use super::program::{self, PipeCount, Sink};
use super::stream::{Incoming, Room};
use super::{Agent, background, download, files, job, probe, process, start_thread};
use crate::platform;
use crate::protocol::{
    FailureCode, MAX_BODY, Placement, Reply, Request, Run, SAMPLE_PLACEHOLDER, Stream, Upload,
};
use std::io::Write;
use std::process::ChildStdin;
use std::sync::Arc;
use std::time::Instant;

/// Does what is asked; both results are the last answer.
pub(super) fn serve(agent: &Arc<Agent>, answer: &Answer, request: Request) -> Result<Reply, Reply> {
    Serving { agent, answer }.serve(request)
}

struct Serving<'a> {
    agent: &'a Arc<Agent>,
    answer: &'a Answer,
}

impl Serving<'_> {
    fn serve(&self, request: Request) -> Result<Reply, Reply> {
        let agent = self.agent;
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
                    let program = &mut run.program;
                    for text in program.arguments.iter_mut().chain([&mut program.shell]) {
                        *text = substitute(text, path);
                    }
                }
                self.answer.reply(stored);
                self.run(run)
            }
            Request::Download { path, limit } => download::download(self.answer, path, limit),
            Request::List { path } => files::list(self.answer, path),
            Request::Stat { path } => files::stat(path),
            Request::MakeFolder { path } => files::make_folder(path),
            Request::Remove { path } => files::remove(path),
            Request::Processes => process::list(self.answer),
            Request::SetClock { unix_seconds } => platform::set_clock(unix_seconds)
                .map(|()| Reply::Done)
                .map_err(|error| io_failure("setting the clock", &error)),
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
            Request::Probe(wanted) => probe::probe(self.answer, &agent.default_route, &wanted),
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

    fn upload(&self, upload: &Upload) -> Result<Reply, Reply> {
        let agent = self.agent;
        if upload.size > agent.limits.upload {
            let message = format!("an upload may have at most {} bytes", agent.limits.upload);
            return Err(Reply::failed(FailureCode::BadRequest, message));
        }
        let mut unfinished = agent.folder.begin(upload)?;
        let mut size = 0;
        loop {
            match self
                .answer
                .streams
                .next(Some(Instant::now() + STREAM_PATIENCE))
            {
                Incoming::Data(bytes) => {
                    size += bytes.len() as u64;
                    if size > upload.size {
                        break;
                    }
                    unfinished
                        .write(&bytes)
                        .map_err(|error| io_failure("storing the upload", &error))?;
                    self.answer.give_back(bytes.len());
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
        let agent = self.agent;
        let input = match run.placement {
            Placement::Background => return background::start(agent, run),
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
        self.answer.reply(started);
        Ok(Reply::Exited(
            running.supervise(&run, &mut Forward(self.answer)),
        ))
    }

    /// Starts the thread that feeds a program's standard input.
    fn move_input(&self, mut input: ChildStdin) {
        let count = PipeCount::new(self.agent);
        let answer = self.answer.clone();
        let started = start_thread("input", move || {
            let _count = count;
            while let Incoming::Data(bytes) = answer.streams.next(None) {
                // A program may stop reading its input; what is left of it is dropped.
                drop(input.write_all(&bytes));
                answer.give_back(bytes.len());
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
            offset += bytes.len() as u64;
            self.answer.stream(Reply::Output { stream, bytes })?;
        }
    }
}

/// A program's output on its way to the host.
struct Forward<'a>(&'a Answer);

impl Sink for Forward<'_> {
    fn output(&mut self, stream: Stream, bytes: &[u8], until: Instant) -> Room {
        let reply = Reply::Output {
            stream,
            bytes: bytes.to_vec(),
        };
        self.0.send(reply, until)
    }

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }

    fn next_signal(&mut self) -> Option<i32> {
        self.0.next_signal()
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

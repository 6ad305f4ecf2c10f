//! Running programs in the background.

use super::folder::io_failure;
use super::job::Job;
use super::program::{self, Running, Sink};
use super::stream::Room;
use super::{Agent, start_thread};
use crate::protocol::{Reply, Run, Stream};
use std::sync::Arc;
use std::time::Instant;

/// Starts a program in the background; answers with its number.
pub(super) fn start(agent: &Arc<Agent>, mut run: Run) -> Result<Reply, Reply> {
    run.stdout_limit = run.stdout_limit.min(agent.limits.job_output);
    run.stderr_limit = run.stderr_limit.min(agent.limits.job_output);
    let (number, job) = agent.jobs.add()?;
    let started = program::start(agent, std::mem::take(&mut run.program), false);
    let running = match started {
        Ok((running, _)) => running,
        Err(reply) => {
            agent.jobs.remove(number);
            return Err(reply);
        }
    };
    let pid = running.pid();
    watch(running, run, job).inspect_err(|_| agent.jobs.remove(number))?;
    Ok(Reply::Started { job: number, pid })
}

/// Starts the thread that sees to the program.
fn watch(running: Running, run: Run, job: Arc<Job>) -> Result<(), Reply> {
    // Where no thread can be started, the program is dropped with its work, and killed by that.
    start_thread("job", move || {
        let outcome = running.supervise(&run, &mut Recorder(&job));
        job.end(outcome);
    })
    .map_err(|error| io_failure("starting a thread for the program", &error))
}

struct Recorder<'a>(&'a Job);

impl Sink for Recorder<'_> {
    fn output(&mut self, stream: Stream, bytes: &[u8], _until: Instant) -> Room {
        self.0.write(stream, bytes);
        Room::Taken
    }

    fn is_cancelled(&self) -> bool {
        self.0.is_killed()
    }

    fn next_signal(&mut self) -> Option<i32> {
        None
    }
}

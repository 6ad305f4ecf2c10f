//! Starting a program, moving what it writes, and ending it at its deadline.

use super::folder::io_failure;
use super::stream::Room;
use super::{Agent, start_thread};
use crate::platform::{self, Group};
use crate::protocol::{Exit, FailureCode, Outcome, Program, Reply, Run, Stream};
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, Instant};

/// How much of a program's output is read at a time.
const CHUNK: usize = 32 * 1024;
/// How many pieces of its output wait.
const WAITING: usize = 8;
/// How often a program is looked at that writes nothing.
const TICK: Duration = Duration::from_millis(20);
/// How long a program's output has to be silent after its end, where descendants still hold it.
const SILENCE: Duration = Duration::from_millis(500);
/// The most that is read after a program's end: the largest pipe that Linux gives without rights.
const LEFT_OVER: u64 = 1 << 20;
/// How long a killed program may take to end; only one stuck in the kernel needs it.
const LAST_WAIT: Duration = Duration::from_secs(10);
/// How often killing is repeated until the program has ended.
const KILL_AGAIN: Duration = Duration::from_millis(500);
/// How long the host may take to accept what a program wrote before its deadline.
const LAST_OUTPUT: Duration = Duration::from_secs(30);
/// How many outputs and inputs threads may be busy with, those that descendants hold included.
const MAX_PIPES: usize = 96;

/// Where a program's output goes.
pub(super) trait Sink {
    /// Takes what the program wrote, waiting for room at most until then.
    fn output(&mut self, stream: Stream, bytes: &[u8], until: Instant) -> Room;
    /// Whether the program is no longer wanted.
    fn is_cancelled(&self) -> bool;
    /// The next signal for the program.
    fn next_signal(&mut self) -> Option<i32>;
}

/// A program that runs, its input and output still to be moved.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    group: Group,
    outputs: Receiver<Piece>,
    /// A piece that was received and did not fit the one before it.
    kept_back: Option<Piece>,
    started: Instant,
}

#[derive(Debug)]
enum Piece {
    Bytes(Stream, Vec<u8>),
    End,
}

/// Starts a program at the head of a process group of its own. Its input is given back when asked
/// for.
pub(super) fn start(
    agent: &Agent,
    program: Program,
    input: bool,
) -> Result<(Running, Option<ChildStdin>), Reply> {
    if agent.pipes.load(Ordering::Relaxed) + 3 > MAX_PIPES {
        let message = "too many programs left descendants that hold their output";
        return Err(Reply::failed(FailureCode::Busy, message));
    }
    let mut command = command(agent, program)?;
    command
        .stdin(if input { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let (mut child, group) = spawn(agent, &mut command)
        .map_err(|error| io_failure(&format!("starting {:?}", command.get_program()), &error))?;
    platform::expose_to_memory_pressure(child.id());

    let (sender, outputs) = mpsc::sync_channel(WAITING);
    let readers = move_output(agent, Stream::Stdout, child.stdout.take(), sender.clone())
        .and_then(|()| move_output(agent, Stream::Stderr, child.stderr.take(), sender));
    if let Err(error) = readers {
        group.kill();
        drop(child.wait());
        return Err(io_failure(
            "starting a thread for the program's output",
            &error,
        ));
    }
    let input = child.stdin.take();
    Ok((
        Running {
            child,
            group,
            outputs,
            kept_back: None,
            started: Instant::now(),
        },
        input,
    ))
}

fn command(agent: &Agent, program: Program) -> Result<Command, Reply> {
    let text = |bytes: Vec<u8>, what: &str| {
        platform::os_string(bytes).ok_or_else(|| {
            let message = format!("{what} has bytes that this system cannot pass on");
            Reply::failed(FailureCode::BadRequest, message)
        })
    };
    let mut command = match program.shell.is_empty() {
        true => {
            let mut arguments = program.arguments.into_iter();
            let Some(name) = arguments.next().filter(|name| !name.is_empty()) else {
                let message = "a program has to be named as the first argument";
                return Err(Reply::failed(FailureCode::BadRequest, message));
            };
            let mut command = Command::new(text(name, "the program's name")?);
            for argument in arguments {
                command.arg(text(argument, "an argument")?);
            }
            command
        }
        false if program.arguments.is_empty() => {
            platform::shell(&text(program.shell, "the shell's text")?)
        }
        false => {
            let message = "a program has arguments or text for a shell, not both";
            return Err(Reply::failed(FailureCode::BadRequest, message));
        }
    };
    if program.clear_environment {
        command.env_clear();
    }
    command.current_dir(agent.folder.path());
    if !program.user.is_empty() {
        // Before the folder and the variables that the request sets: it may choose others.
        platform::run_as(&mut command, &program.user)
            .map_err(|error| io_failure(&format!("running as {:?}", program.user), &error))?;
    }
    for (name, value) in program.environment {
        if name.is_empty() || name.contains(&b'=') {
            let message = "a variable's name is empty or has an equals sign";
            return Err(Reply::failed(FailureCode::BadRequest, message));
        }
        command.env(text(name, "a variable's name")?, text(value, "a variable")?);
    }
    if !program.folder.is_empty() {
        let folder = PathBuf::from(text(program.folder, "the working folder")?);
        // The standard library reports a missing folder as a missing program.
        if !folder.is_dir() {
            let message = format!("the working folder {folder:?} does not exist");
            return Err(Reply::failed(FailureCode::NotFound, message));
        }
        command.current_dir(folder);
    }
    Ok(command)
}

/// Starts the command; again when the file is still open for writing in a child that another
/// thread is just starting.
fn spawn(agent: &Agent, command: &mut Command) -> io::Result<(Child, Group)> {
    let mut attempts = 0;
    loop {
        match Group::spawn(command, agent.control_groups) {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && attempts < 50 => {
                attempts += 1;
                thread::sleep(Duration::from_millis(10));
            }
            result => return result,
        }
    }
}

/// Counts a thread that is busy with a pipe for as long as it lives.
#[derive(Debug)]
pub(super) struct PipeCount(Arc<AtomicUsize>);

impl PipeCount {
    pub(super) fn new(agent: &Agent) -> Self {
        agent.pipes.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&agent.pipes))
    }
}

impl Drop for PipeCount {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Starts the thread that reads one stream of a program.
///
/// It reads until everyone who holds the pipe has let go of it, also after nobody listens any
/// more: descendants that a program leaves behind go on as if they were alone.
fn move_output(
    agent: &Agent,
    stream: Stream,
    pipe: Option<impl Read + Send + 'static>,
    pieces: SyncSender<Piece>,
) -> io::Result<()> {
    let Some(mut pipe) = pipe else {
        return Ok(());
    };
    let count = PipeCount::new(agent);
    start_thread("output", move || {
        let _count = count;
        let mut buffer = vec![0; CHUNK];
        let mut heard = true;
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) if heard => {
                    let bytes = buffer[..length].to_vec();
                    heard = pieces.send(Piece::Bytes(stream, bytes)).is_ok();
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // Nobody listening is no failure here.
        drop(pieces.send(Piece::End));
    })
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.group.kill();
        }
    }
}

/// One stream's count against its limit.
#[derive(Debug, Default)]
struct Tally {
    written: u64,
    truncated: bool,
}

/// The end of a program, as it comes about.
#[derive(Debug, Default)]
struct Ending {
    status: Option<ExitStatus>,
    killed_at: Option<Instant>,
    last_kill: Option<Instant>,
    timed_out: bool,
    cancelled: bool,
}

impl Running {
    /// The process number, which is also the group's.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Moves the output until the program has ended, killing it at its deadline or when it is no
    /// longer wanted.
    pub(super) fn supervise(mut self, run: &Run, sink: &mut dyn Sink) -> Outcome {
        let deadline = self.started + run.deadline;
        let mut ending = Ending::default();
        let mut tallies = [Tally::default(), Tally::default()];
        let mut open = 2;
        let mut silent_since = Instant::now();
        let mut left_over = 0;
        let mut ended_at = None;
        loop {
            // Once both streams have ended nothing comes any more, and this only waits.
            let piece = if open == 0 {
                thread::sleep(Duration::from_millis(1).max(TICK / 4));
                Err(RecvTimeoutError::Timeout)
            } else {
                self.next_piece()
            };
            match piece {
                Ok(Piece::Bytes(stream, bytes)) => {
                    if ending.status.is_some() {
                        left_over += bytes.len() as u64;
                    }
                    let tally = &mut tallies[usize::from(stream == Stream::Stderr)];
                    self.keep(run, sink, tally, &mut ending, stream, &bytes);
                    silent_since = Instant::now();
                }
                Ok(Piece::End) => open -= 1,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => open = 0,
            }
            self.look(sink, deadline, &mut ending);
            if ending.status.is_some() {
                let ended = *ended_at.get_or_insert_with(Instant::now);
                let silent = silent_since.max(ended).elapsed() >= SILENCE;
                if open == 0 || silent || left_over > LEFT_OVER {
                    break;
                }
            } else if ending.killed_at.is_some_and(|at| at.elapsed() > LAST_WAIT) {
                break;
            }
        }
        let [stdout, stderr] = tallies;
        Outcome {
            exit: ending.status.map_or(Exit::Unknown, platform::exit_of),
            timed_out: ending.timed_out,
            killed: ending.cancelled,
            stdout_truncated: stdout.truncated,
            stderr_truncated: stderr.truncated,
            output_held: open > 0,
            stdout_bytes: stdout.written,
            stderr_bytes: stderr.written,
            elapsed: ended_at.unwrap_or_else(Instant::now) - self.started,
        }
    }

    /// The next piece of output; what a program writes byte by byte comes in larger ones.
    fn next_piece(&mut self) -> Result<Piece, RecvTimeoutError> {
        let mut piece = match self.kept_back.take() {
            Some(piece) => piece,
            None => self.outputs.recv_timeout(TICK)?,
        };
        if let Piece::Bytes(stream, bytes) = &mut piece {
            while bytes.len() <= CHUNK {
                match self.outputs.try_recv() {
                    // Two chunks still fit a frame.
                    Ok(Piece::Bytes(same, more)) if same == *stream => bytes.extend(more),
                    Ok(other) => {
                        self.kept_back = Some(other);
                        break;
                    }
                    Err(_) => break,
                }
            }
        }
        Ok(piece)
    }

    /// Hands on what the limit leaves of these bytes.
    fn keep(
        &mut self,
        run: &Run,
        sink: &mut dyn Sink,
        tally: &mut Tally,
        ending: &mut Ending,
        stream: Stream,
        bytes: &[u8],
    ) {
        let room = run.limit(stream).saturating_sub(tally.written);
        let kept = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        tally.written += bytes.len() as u64;
        if tally.truncated || kept < bytes.len() {
            tally.truncated = true;
        }
        if kept == 0 {
            return;
        }
        let deadline = self.started + run.deadline;
        loop {
            let until = ending
                .killed_at
                .map_or(deadline, |killed_at| killed_at + LAST_OUTPUT);
            match sink.output(stream, &bytes[..kept], until) {
                Room::Taken => return,
                Room::Cancelled => break,
                Room::Expired if ending.killed_at.is_some() => break,
                Room::Expired => {
                    self.look(sink, deadline, ending);
                    // It may have ended by itself just in time: its output still has its grace.
                    ending.killed_at.get_or_insert_with(Instant::now);
                }
            }
        }
        tally.truncated = true;
    }

    /// Sees whether the program has ended, and ends it when it is time.
    fn look(&mut self, sink: &mut dyn Sink, deadline: Instant, ending: &mut Ending) {
        if ending.status.is_some() {
            return;
        }
        // An error means that the system knows no such child, which cannot become better.
        ending.status = self.child.try_wait().unwrap_or_default();
        if ending.status.is_some() {
            return;
        }
        while let Some(signal) = sink.next_signal() {
            self.group.signal(signal);
        }
        let now = Instant::now();
        if ending.killed_at.is_none() {
            ending.cancelled = sink.is_cancelled();
            ending.timed_out = !ending.cancelled && now >= deadline;
            if ending.cancelled || ending.timed_out {
                ending.killed_at = Some(now);
            }
        }
        let again = ending.last_kill.is_none_or(|last| now - last >= KILL_AGAIN);
        if ending.killed_at.is_some() && again {
            ending.last_kill = Some(now);
            // The leader is not reaped yet, so that the number is still this group's.
            self.group.kill();
            drop(self.child.kill());
        }
    }
}

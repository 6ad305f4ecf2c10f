//! Carrying out an order, from its start to the event that tells its end.

use super::finished::Finished;
use super::guest::{Guest, Way};
use super::order::{Kind, Order};
use super::output::Output;
use super::python_agent::PythonAgent;
use super::sample::{self, Taker};
use super::shell;
use crate::client::{Client, ClientError, Execution, Progress};
use see_agent::protocol::{JobState, Placement, Run, Stream};
use see_core::{Error, ErrorKind, Event, Result, SandboxChange, SandboxState};
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// How often the machine is looked at while a program runs.
const LOOK: Duration = Duration::from_secs(1);
/// After how many silent looks the agent is asked whether it is there.
const SILENT_LOOKS: u32 = 6;
/// How long it may take to answer; a guest under load needs some time.
const PING: Duration = Duration::from_secs(15);
/// How often it may miss that.
const MISSED_PINGS: u32 = 2;
/// How much longer than its deadline a program may take to end in the guest's view of time.
const GRACE: Duration = Duration::from_secs(45);
/// How long a program may take to start.
const START: Duration = Duration::from_secs(60);
/// How slow an upload may be, in bytes a second.
const SLOWEST_UPLOAD: u64 = 256 << 10;
/// How often a program in the background is asked after.
const ASK: Duration = Duration::from_millis(500);
/// How long a guest whose agent is gone may take until it is off, or starts again.
const LEAVING: Duration = Duration::from_secs(10);
/// How much of each output of a program in the background is taken in all: the agent keeps no more.
const KEPT: u64 = 256 << 10;

/// Carries out an order and posts how it ended. Nothing is posted once the environment is closed.
pub(super) async fn execute(guest: &Guest, order: Order) {
    let started = Instant::now();
    let (mut output, mut boot) = (None, guest.boot());
    let done = carry_out(guest, &order, &mut output, &mut boot);
    let Ok(finished) = guest.context().stop_token().or("execute", done).await else {
        return;
    };
    let finished = finished.unwrap_or_else(|error| Finished::failed(error.chain()));
    if let Some(output) = &mut output {
        output.finish().await;
    }
    if let Some(error) = &finished.error {
        match order.kind {
            Kind::Sample => tracing::warn!(command = order.command.text(), "{error}"),
            // A guest that ended or restarted, by this command perhaps, is told of by other events.
            Kind::Command if finished.agent_lost && has_left(guest, boot).await => {}
            // Of a sample's end the run is told by its event; of a command's nobody else tells.
            Kind::Command => {
                let error = Error::new(ErrorKind::Guest, error.clone());
                let error = error.subject(order.command.text());
                guest.context().report_failure("run_command", &error);
            }
        }
    }
    let event = finished.event(&order, output.as_ref(), started.elapsed());
    guest.post_surely(event).await;
}

/// Whether the guest went off, or began another boot than this one, since its agent was lost; an agent is gone
/// before the machine is. Whoever ends the environment meanwhile does not ask any more.
async fn has_left(guest: &Guest, boot: u64) -> bool {
    let goes_off = async {
        // Watched first, so that no change falls between the look and the watch.
        let mut changes = guest.context().machine().watch();
        let mut is_gone = is_off(guest).await;
        while !is_gone {
            let Some(change) = changes.recv().await else {
                return std::future::pending().await;
            };
            is_gone = matches!(change, SandboxChange::State(state) if state.is_off())
                || is_off(guest).await;
        }
    };
    let leaves = async {
        tokio::select! {
            () = guest.boots_anew(boot) => true,
            () = goes_off => true,
            () = tokio::time::sleep(LEAVING) => false,
        }
    };
    let left = guest.context().stop_token().or("look at the guest", leaves);
    left.await.unwrap_or(true)
}

async fn is_off(guest: &Guest) -> bool {
    let state = guest.context().machine().state().await;
    state.is_ok_and(SandboxState::is_off)
}

async fn carry_out(
    guest: &Guest,
    order: &Order,
    output: &mut Option<Output>,
    boot: &mut u64,
) -> Result<Finished> {
    if let Some(mistake) = &order.mistake {
        return Err(Error::new(ErrorKind::Configuration, mistake.clone()));
    }
    let way = guest.answering(PING).await?;
    *boot = guest.boot();
    let made = Output::new(guest.context(), order.kind);
    let output = output.insert(match (order.kind, &guest.configuration().results_folder) {
        (Kind::Sample, Some(folder)) => {
            let name = order.sample.as_deref().map(name_of);
            let name = name.as_deref().unwrap_or("command");
            made.with_files(folder.path(), name).await?
        }
        _ => made,
    });
    match way {
        Way::Nobody => Err(
            Error::new(ErrorKind::Unsupported, "there is no agent in the guest")
                .advice("set `agent` of the context to a transport other than `none`"),
        ),
        Way::Python(agent) => by_python_agent(guest, order, &agent, output).await,
        Way::Agent(client) if order.background => {
            in_background(guest, order, &client, output).await
        }
        Way::Agent(client) => in_foreground(guest, order, &client, output).await,
    }
}

fn name_of(sample: &Path) -> String {
    let name = sample.file_name().map(|name| name.to_string_lossy());
    name.unwrap_or_default().into_owned()
}

fn started(order: &Order, pid: Option<u32>) -> Event {
    let event = match order.kind {
        Kind::Sample => Event::new("sample_started"),
        Kind::Command => Event::new("command_started"),
    };
    let event = event.with("command", order.command.text()).with("pid", pid);
    match &order.sample {
        Some(sample) => event.with("sample", sample.as_path()),
        None => event,
    }
}

fn run_of(guest: &Guest, order: &Order, client: &Client, placement: Placement) -> Result<Run> {
    let limit = guest.configuration().output_limit();
    Ok(Run {
        program: order.program(&client.info().system)?,
        placement,
        deadline: order.deadline,
        stdout_limit: limit,
        stderr_limit: limit,
    })
}

/// A program could not be started: was it the agent's end?
fn not_started(error: ClientError) -> Result<Finished> {
    if error.is_lost() {
        return Ok(Finished::lost(error.to_string()));
    }
    Err(error.into())
}

async fn in_foreground(
    guest: &Guest,
    order: &Order,
    client: &Client,
    output: &mut Output,
) -> Result<Finished> {
    let run = run_of(guest, order, client, Placement::Foreground { input: false })?;
    let start = async {
        Ok::<_, Error>(match &order.sample {
            Some(sample) => {
                let taker = Taker::agent(&client.info().system, order);
                let (upload, file) = sample::open(guest, order, sample, taker).await?;
                let time = START + Duration::from_secs(upload.size / SLOWEST_UPLOAD);
                client.upload_and_run(upload, file, run, time).await
            }
            None => client.run(run, START).await,
        })
    };
    let execution = tokio::select! {
        execution = start => execution?,
        // A command that restarts the guest may be quicker than the agent's word of its start.
        () = guest.boots_anew(guest.boot()) => {
            return Ok(Finished::lost("the guest started anew, or went off"));
        }
    };
    let execution = match execution {
        Ok(execution) => execution,
        Err(error) => return not_started(error),
    };
    guest
        .post_surely(started(order, Some(execution.pid())))
        .await;
    Ok(follow(guest, order, client, execution, output).await)
}

/// Takes a program's output until it ends, or nobody can tell any more.
async fn follow(
    guest: &Guest,
    order: &Order,
    client: &Client,
    mut execution: Execution,
    output: &mut Output,
) -> Finished {
    let mut watch = Watch::new(order.deadline);
    let mut look = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            progress = execution.next() => match progress {
                Ok(Progress::Output { stream, bytes }) => {
                    watch.silent_looks = 0;
                    output.take(stream, &bytes).await;
                }
                Ok(Progress::Exited(outcome)) => return outcome.into(),
                Err(error) if error.is_lost() => return Finished::lost(error.to_string()),
                Err(error) => return Finished::failed(error.to_string()),
            },
            _ = look.tick() => {
                if let Err(lost) = watch.look(guest, client).await {
                    return lost;
                }
            }
        }
    }
}

/// Whether a program that says nothing still has somebody to tell its end.
struct Watch {
    /// The time that is left for it, not counting what the machine spent paused.
    left: Duration,
    looked: Instant,
    silent_looks: u32,
    /// How many messages the agent had sent at the last look.
    heard: u64,
    missed: u32,
}

impl Watch {
    fn new(deadline: Duration) -> Self {
        let left = deadline + GRACE;
        Self {
            left,
            looked: Instant::now(),
            silent_looks: 0,
            heard: 0,
            missed: 0,
        }
    }

    /// Looks at the machine, and now and then at the agent; an error when the program's end will
    /// never be known.
    async fn look(&mut self, guest: &Guest, client: &Client) -> Result<(), Finished> {
        let passed = self.looked.elapsed();
        self.looked = Instant::now();
        match guest.context().machine().state().await {
            // A machine that stands still owes nothing.
            Ok(SandboxState::Paused | SandboxState::Suspended) => {
                self.silent_looks = 0;
                return Ok(());
            }
            Ok(state) if state.is_off() => {
                return Err(Finished::lost(format!("the machine is {state}")));
            }
            // Not knowing is not the program's fault.
            _ => {}
        }
        self.left = self.left.saturating_sub(passed);
        if self.left.is_zero() {
            let message = "the agent did not end the program at its deadline";
            return Err(Finished {
                timed_out: true,
                ..Finished::lost(message)
            });
        }
        // Whatever it sends, to whomever of its callers: it lives.
        let heard = client.heard();
        if heard != self.heard {
            (self.heard, self.silent_looks, self.missed) = (heard, 0, 0);
        }
        self.silent_looks += 1;
        if self.silent_looks < SILENT_LOOKS {
            return Ok(());
        }
        self.silent_looks = 0;
        match client.ping(PING).await {
            Ok(_) => self.missed = 0,
            Err(error) if error.is_lost() => return Err(Finished::lost(error.to_string())),
            Err(_) if client.heard() != self.heard => {}
            Err(error) => {
                self.missed += 1;
                // Paused in the meantime: the next look sees it.
                let state = guest.context().machine().state().await;
                let runs = matches!(state, Ok(SandboxState::Running) | Err(_));
                if runs && self.missed >= MISSED_PINGS {
                    return Err(Finished::lost(error.to_string()));
                }
            }
        }
        Ok(())
    }
}

/// Runs it in the background of the agent and asks after it until it ends.
async fn in_background(
    guest: &Guest,
    order: &Order,
    client: &Client,
    output: &mut Output,
) -> Result<Finished> {
    let run = run_of(guest, order, client, Placement::Background)?;
    let begun = match &order.sample {
        Some(sample) => {
            let taker = Taker::agent(&client.info().system, order);
            let (upload, file) = sample::open(guest, order, sample, taker).await?;
            let time = START + Duration::from_secs(upload.size / SLOWEST_UPLOAD);
            client.upload_and_start(upload, file, run, time).await
        }
        None => client.start(run, START).await,
    };
    let (job, pid) = match begun {
        Ok(begun) => begun,
        Err(error) => return not_started(error),
    };
    guest.post_surely(started(order, Some(pid))).await;
    let mut client = client.clone();
    let mut watch = Watch::new(order.deadline);
    let limit = guest.configuration().output_limit().min(KEPT);
    let mut truncated = false;
    loop {
        let from = (
            output.written(Stream::Stdout),
            output.written(Stream::Stderr),
        );
        match client.job(job, from, KEPT as usize, PING).await {
            Ok(report) => {
                watch.missed = 0;
                watch.silent_looks = 0;
                let mut is_new = false;
                for (stream, bytes) in [
                    (Stream::Stdout, report.stdout),
                    (Stream::Stderr, report.stderr),
                ] {
                    let left = limit.saturating_sub(output.written(stream));
                    let kept = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    truncated |= kept < bytes.len();
                    if kept > 0 {
                        is_new = true;
                        output.take(stream, &bytes[..kept]).await;
                    }
                }
                if let JobState::Ended(outcome) = report.state
                    && !is_new
                {
                    let mut finished = Finished::from(outcome);
                    finished.truncated |= truncated;
                    return Ok(finished);
                }
            }
            // It runs on while the same agent is reached by another connection.
            Err(error) if error.is_lost() => {
                let again = tokio::time::timeout(watch.left, guest.way()).await;
                match again {
                    Ok(Ok(Way::Agent(other)))
                        if other.info().instance == client.info().instance =>
                    {
                        client = other;
                    }
                    _ => return Ok(Finished::lost(error.to_string())),
                }
            }
            Err(ClientError::Timeout { .. }) => watch.silent_looks = SILENT_LOOKS,
            Err(error) => return Err(error.into()),
        }
        if let Err(lost) = watch.look(guest, &client).await {
            return Ok(lost);
        }
        tokio::time::sleep(ASK).await;
    }
}

async fn by_python_agent(
    guest: &Guest,
    order: &Order,
    agent: &PythonAgent,
    output: &mut Output,
) -> Result<Finished> {
    if order.has_surroundings() {
        let message = "python-see's agent takes no `user`, `folder` or `environment`";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    let sample = match &order.sample {
        Some(sample) => Some(sample::open(guest, order, sample, Taker::PythonSee).await?),
        None => None,
    };
    guest.post_surely(started(order, None)).await;
    let command = match sample {
        Some(_) => shell::as_placeholder(&order.command.text()),
        None => order.command.text(),
    };
    let answer = agent
        .run(&command, order.background, sample, order.deadline)
        .await;
    match answer {
        Ok(answer) => {
            let kept = usize::try_from(guest.configuration().output_limit()).unwrap_or(usize::MAX);
            let text = answer.command_output.as_bytes();
            output
                .take(Stream::Stdout, &text[..kept.min(text.len())])
                .await;
            Ok(Finished {
                exit_code: answer.exit_code,
                truncated: kept < text.len(),
                written: Some((text.len() as u64, 0)),
                ..Finished::default()
            })
        }
        Err(error) if error.kind() == ErrorKind::Timeout => Ok(Finished {
            timed_out: true,
            ..Finished::failed(error.chain())
        }),
        Err(error) if error.kind() == ErrorKind::Unavailable => Ok(Finished::lost(error.chain())),
        Err(error) => Err(error),
    }
}

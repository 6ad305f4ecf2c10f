//! Running a protocol: its steps, within the run's limits, and what came of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::bus::{Kept, Listener, Turn};
use crate::config::Origin;
use crate::event::Text;
use crate::isolation::Walls;
use crate::proof::IsolationVerdict;
use crate::protocol::{Action, Protocol, SAMPLE_FINISHED, Step};
use crate::quota::{Quotas, RunLimits};
use crate::shared::Shared;
use crate::{Environment, Error, ErrorKind, Event, Result, Transition};

/// The events that have something run in the guest. A step that triggers one first waits for the proof that
/// the guest's network is closed, where that is owed.
const RUNS: [&str; 2] = ["run_sample", "run_command"];

/// What steps marked `always` have in any case after a failed step, together: the analysis of a run that used
/// up its time. The guest's power is cut at the limit all the same, also under a step that goes on.
const LAST_STEPS: Duration = Duration::from_secs(60);

/// How many ends of samples a report keeps: hooks may tell of as many as they like.
const MOST_SAMPLES: usize = 1024;

/// How long handlers may hold up the end of a guest that must not go on.
const HELD_UP: Duration = Duration::from_secs(5);

/// How a run went.
#[derive(Debug)]
pub struct RunReport {
    /// Every step that was done, in order.
    pub steps: Vec<StepReport>,
    /// The step that failed first, and why: the run's verdict. `None`: every step went well. What hooks could
    /// not do says [`EventBus::hook_failure`](crate::EventBus::hook_failure).
    pub failure: Option<(String, Error)>,
    /// Every `sample_finished`, in order; of very many the first ones.
    pub samples: Vec<Event>,
    /// What is known of the walls around the guest: whether the results can be trusted.
    pub isolation: IsolationVerdict,
}

/// How one step went.
#[derive(Debug, Clone, Serialize)]
pub struct StepReport {
    /// What was done, in words.
    pub step: String,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// What failed, where it did: the chain in one line.
    pub error: Option<String>,
}

impl Environment {
    /// Runs a protocol to its end, within `limits`.
    ///
    /// A step that fails ends the others, but for those marked `always`; these share what is left of the run's
    /// time, and have a minute in any case. The limits are watched from the first step to the last one,
    /// whatever failed. When one of them is reached, or the walls around the guest's network are found broken or
    /// cannot be tried, the guest's power is cut and the step under way fails; at the end of the run's time a step that
    /// follows a failed one goes on for what is left of its minute. A guest whose walls broke, or could not be tried, is
    /// neither started nor resumed again.
    ///
    /// A guest that owes the proof that its network is closed ([`Isolation::is_verified`]) is not started where
    /// no hook announced that it delivers it, a step that triggers `run_sample` or `run_command` waits for the
    /// proof, and a protocol that ends without it fails. The walls are looked at once more at the end.
    ///
    /// `step_started` (`step`, `index`) and `step_finished` (`step`, `index`, `seconds`, `error`) are
    /// triggered around each step.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) where the environment is stopped before its turn
    /// comes. A step's failure is no error here, but the report's.
    ///
    /// [`Isolation::is_verified`]: crate::Isolation::is_verified
    pub async fn run(&mut self, protocol: &Protocol, limits: &RunLimits) -> Result<RunReport> {
        let shared = Arc::clone(self.shared());
        let (machine, captures) = (&shared.machine, &shared.captures);
        let quotas = limits.watch(machine, captures, &self.bus().mishaps).await;
        let mut turn = self.turn().await?;
        let mut watch = Watch {
            walls: Walls::watch(&shared, &mut turn),
            quotas,
            shared: Arc::clone(&shared),
            limit: limits.time,
            end: tokio::time::Instant::now() + limits.time,
            is_over: false,
            last: None,
            cutting: None,
        };
        // Ears are opened before the first step, so that nothing fires too early to be heard.
        let mut ears: Vec<(String, Listener)> = Vec::new();
        for name in protocol.events_to_wait_for() {
            if !ears.iter().any(|(known, _)| known == name) {
                ears.push((name.to_owned(), turn.listen(name)));
            }
        }
        let samples = turn.keep(SAMPLE_FINISHED, |all: &mut Vec<Event>, event| {
            if all.len() < MOST_SAMPLES {
                all.push(event.clone());
            }
        });
        let waiting = turn.keep("waiting_for_guest", |last: &mut Option<Event>, event| {
            *last = Some(event.clone());
        });
        let mut report = RunReport {
            steps: Vec::with_capacity(protocol.steps.len()),
            failure: None,
            samples: Vec::new(),
            isolation: IsolationVerdict::NoWalls,
        };
        if let Err(error) = shared.check_running_guest().await {
            cut_power(&shared, &mut turn).await;
            watch.has_failed();
            report.failure = Some(("begin".to_owned(), error));
        }
        for (index, step) in protocol.steps.iter().enumerate() {
            if report.failure.is_some() && !step.always {
                continue;
            }
            let name = step.action.to_string();
            let about = |event: &'static str| {
                Event::new(event)
                    .source("protocol")
                    .with("step", name.clone())
                    .with("index", index as u64)
            };
            let started = Instant::now();
            let depth = turn.depth();
            let taking = async {
                let _ = turn.trigger(about("step_started")).await;
                take(step, &mut turn, &mut ears, limits.time).await
            };
            let taken = watch.over(taking).await;
            let outcome = settle(taken, &shared, &mut turn, depth).await;
            let outcome = outcome.map_err(|error| why_not_ready(error, &step.action, &waiting));
            let outcome = outcome.map_err(|error| match &step.place {
                // A step that nobody wrote has no place that helps.
                Some(place) if place.origin != Origin::Program => error.or_at(place),
                _ => error,
            });
            let seconds = started.elapsed().as_secs_f64();
            let failure = outcome.as_ref().err().map(Error::chain);
            let finished = about("step_finished")
                .with("seconds", seconds)
                .with("error", failure.clone());
            if outcome.is_err() {
                watch.has_failed();
            }
            let telling = async {
                let _ = turn.trigger(finished).await;
                Ok(())
            };
            let told = watch.over(telling).await;
            let told = settle(told, &shared, &mut turn, depth).await;
            report.steps.push(StepReport {
                step: name.clone(),
                seconds,
                error: failure,
            });
            if let Err(error) = outcome.and(told) {
                watch.has_failed();
                report.failure.get_or_insert((name, error));
            }
        }
        if let Some(cutting) = watch.cutting.take() {
            let _ = cutting.await;
        }
        // What was posted last may be the proof, or a hole.
        let _ = turn.handle_posted().await;
        let told = watch.walls.told().map_or(Ok(()), Err);
        let looked = watch.walls.last_look().await;
        let proven = match report.failure {
            None => shared.proof.check_end(&shared.machine),
            Some(_) => Ok(()),
        };
        for (name, looked) in [
            ("look at the walls", told.and(looked)),
            ("proof of the closed network", proven),
        ] {
            if let Err(error) = looked {
                cut_power(&shared, &mut turn).await;
                report.failure.get_or_insert((name.to_owned(), error));
            }
        }
        report.isolation = watch.walls.verdict();
        report.samples = samples.take();
        Ok(report)
    }
}

/// What came of something that was watched; the guest of what was cut off must not go on.
async fn settle(ended: Ended, shared: &Arc<Shared>, turn: &mut Turn, depth: usize) -> Result<()> {
    match ended {
        Ended::ByItself(outcome) => outcome,
        Ended::Cut(error) => {
            // It may have been dropped while handlers ran.
            turn.restore_depth(depth);
            cut_power(shared, turn).await;
            Err(error)
        }
    }
}

/// What is watched during a run, from its first step to its last one.
#[derive(Debug)]
struct Watch {
    walls: Walls,
    quotas: Quotas,
    shared: Arc<Shared>,
    limit: Duration,
    /// When the run's time is over.
    end: tokio::time::Instant,
    is_over: bool,
    /// When the steps that follow a failed one have to be done.
    last: Option<tokio::time::Instant>,
    /// The end of the guest under a step that goes on.
    cutting: Option<tokio::task::JoinHandle<()>>,
}

/// How a step ended.
enum Ended {
    /// It was done, or failed.
    ByItself(Result<()>),
    /// A limit or the walls ended it: the guest must not go on.
    Cut(Error),
}

impl Watch {
    /// A step failed: those that follow have what is left, and a minute in any case.
    fn has_failed(&mut self) {
        let least = tokio::time::Instant::now() + LAST_STEPS;
        self.last.get_or_insert(least.max(self.end));
    }

    /// Takes a step while everything is watched.
    async fn over(&mut self, step: impl Future<Output = Result<()>>) -> Ended {
        tokio::pin!(step);
        let walls_stand = !self.walls.have_ended_the_run();
        loop {
            let last = self.last.unwrap_or(self.end);
            let ended = tokio::select! {
                biased;
                outcome = &mut step => Ended::ByItself(outcome),
                reached = self.quotas.reached() => Ended::Cut(reached),
                broken = self.walls.broken(), if walls_stand => Ended::Cut(broken),
                () = tokio::time::sleep_until(self.end), if !self.is_over => {
                    self.is_over = true;
                    // The step keeps its minute, but not the guest.
                    if self.last.is_some_and(|last| tokio::time::Instant::now() < last) {
                        let shared = Arc::clone(&self.shared);
                        let cutting = async move { cut_power_beside(&shared).await };
                        self.cutting = Some(self.shared.runtime.spawn(cutting));
                        continue;
                    }
                    // Without power there is nothing to cut, and an analysis may go on.
                    if self.last.is_some() && self.shared.machine.is_off().await {
                        continue;
                    }
                    Ended::Cut(self.time_is_up())
                }
                () = tokio::time::sleep_until(last), if self.is_over => {
                    let steps = "the steps that follow a failed one";
                    Ended::Cut(Error::timeout(steps, LAST_STEPS).advice(
                        "they have what is left of `context.limits.run`, and a minute in any case",
                    ))
                }
            };
            // The step may have ended by what was told with the hole, or in the same instant.
            return match (ended, self.walls.told()) {
                (Ended::ByItself(_), Some(hole)) => Ended::Cut(hole),
                (ended, _) => ended,
            };
        }
    }

    fn time_is_up(&self) -> Error {
        Error::timeout("the run to end", self.limit)
            .advice("its limit is the key `context.limits.run`")
    }
}

/// A wait for the guest that was over before the hook that looks for it gave up says what that hook waits for.
fn why_not_ready(error: Error, action: &Action, waiting: &Kept<Option<Event>>) -> Error {
    let event = match action {
        Action::Wait { event, .. } => event.as_deref(),
        _ => None,
    };
    if error.kind() != ErrorKind::Timeout || !matches!(event, Some("ready" | "ip_address")) {
        return error;
    }
    let why = waiting.take();
    match why.as_ref().and_then(|why| why.get("message")?.as_str()) {
        Some(why) => error.advice(format!("the last that is known: {why}")),
        None => error,
    }
}

/// Ends a guest that must not go on. Handlers that hear of it beforehand hold it up for a moment only.
async fn cut_power(shared: &Arc<Shared>, turn: &mut Turn) {
    let depth = turn.depth();
    let cut = match tokio::time::timeout(HELD_UP, turn.poweroff()).await {
        Ok(cut) => cut,
        Err(_) => {
            turn.restore_depth(depth);
            tracing::warn!(
                "handlers hold up the end of a guest that must not go on: its power is cut"
            );
            let cut = shared.act(Transition::Poweroff).await;
            let _ = turn
                .trigger(Event::new("post_poweroff").source("environment"))
                .await;
            cut
        }
    };
    match cut {
        Ok(()) => {}
        // It is said to be off, and a start that is under way may be about to bring it on.
        Err(error) if error.kind() == ErrorKind::IllegalTransition => {
            destroy(shared).await;
        }
        Err(error) => {
            tracing::warn!("the power of a guest that must not go on is cut at once: {error}");
            destroy(shared).await;
        }
    }
}

/// The same while a step has the turn: no handler hears of it beforehand.
async fn cut_power_beside(shared: &Arc<Shared>) {
    let was_on = !shared.machine.is_off().await;
    // Also where it is said to be off: a start that is under way may be about to bring it on.
    if destroy(shared).await && was_on {
        let cut = Event::new("post_poweroff").source("environment");
        // On an environment that is closed nobody wants to know.
        let _ = shared.post(cut);
    }
}

/// Cuts the power whatever the state is said to be; whether that was done.
async fn destroy(shared: &Arc<Shared>) -> bool {
    match shared.act(Transition::Poweroff).await {
        Ok(()) => true,
        Err(error) => {
            if !shared.machine.is_off().await {
                tracing::warn!("the power of a guest that must not go on stays on: {error}");
            }
            false
        }
    }
}

async fn take(
    step: &Step,
    turn: &mut Turn,
    ears: &mut [(String, Listener)],
    limit: Duration,
) -> Result<()> {
    match &step.action {
        Action::Power(transition) => turn.change(*transition, []).await,
        Action::Shutdown(timeout) => turn.shutdown(*timeout).await.map(|_| ()),
        Action::Wait {
            event: Some(name),
            timeout,
        } => {
            let ear = ears.iter_mut().find(|(known, _)| known == name);
            let Some((_, ear)) = ear else {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "nobody listened for the event",
                ));
            };
            turn.wait(ear, *timeout).await.map(|_| ())
        }
        Action::Wait {
            event: None,
            timeout,
        } => turn.pass(*timeout).await,
        Action::Trigger { event, attributes } => {
            if RUNS.contains(&event.as_str()) {
                turn.wait_for_proof(limit).await?;
            }
            let attributes = attributes
                .iter()
                .map(|(name, value)| (Text::from(name.clone()), value.clone()));
            let event = Event::new(event.clone())
                .source("protocol")
                .with_all(attributes);
            turn.trigger(event).await
        }
    }
}

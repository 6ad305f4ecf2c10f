//! The steps of a run, as data.

use std::fmt;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::{Configuration, DurationValue, Origin, Place};
use crate::event::{Text, Value};
use crate::isolation::{IsolationVerdict, Walls};
use crate::quota::RunLimits;
use crate::turn::{Listener, Turn};
use crate::{Environment, Error, ErrorKind, Event, Result, Transition};

/// The event that carries how the sample ended.
pub const SAMPLE_FINISHED: &str = "sample_finished";

/// The steps of a run.
///
/// In a run file it is a list of objects: `step`, one of the [`Action`]s in lower case, with the keys of
/// that action, and `always`.
#[derive(Debug, Clone, Default)]
pub struct Protocol {
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is done.
    pub action: Action,
    /// Whether it is done even after a step before it failed.
    pub always: bool,
    /// Where it stands.
    pub place: Option<Place>,
}

/// What a step does.
#[derive(Debug, Clone)]
pub enum Action {
    /// A change of power: `poweron pause resume poweroff restart`.
    Power(Transition),
    /// `shutdown`: asks the guest, and cuts the power after `timeout` (60 s).
    Shutdown(Duration),
    /// `wait`: for an event (`for`), at most for `timeout` (60 s). Without an event: lets time pass.
    Wait {
        /// The event's name.
        event: Option<String>,
        /// The longest wait.
        timeout: Duration,
    },
    /// `trigger`: an `event`, with `attributes`.
    Trigger {
        /// The event's name.
        event: String,
        /// Its attributes.
        attributes: Vec<(String, Value)>,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Power(transition) => write!(f, "{transition}"),
            Self::Shutdown(_) => f.write_str("shutdown"),
            Self::Wait {
                event: Some(event), ..
            } => write!(f, "wait for {event}"),
            Self::Wait { timeout, .. } => write!(f, "wait {timeout:.0?}"),
            Self::Trigger { event, .. } => write!(f, "trigger {event}"),
        }
    }
}

/// The keys of a `wait`.
#[derive(Deserialize)]
struct WaitKeys {
    #[serde(rename = "for")]
    event: Option<String>,
    timeout: Option<DurationValue>,
}

/// The keys of a `shutdown`.
#[derive(Deserialize)]
struct ShutdownKeys {
    timeout: Option<DurationValue>,
}

/// The keys of a `trigger`.
#[derive(Deserialize)]
struct TriggerKeys {
    event: String,
    attributes: Option<Configuration>,
}

/// The keys of a step that has none.
#[derive(Deserialize)]
struct NoKeys {}

/// The names of the steps.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StepName {
    Poweron,
    Pause,
    Resume,
    Poweroff,
    Restart,
    Shutdown,
    Wait,
    Trigger,
}

/// How long a wait or a shutdown takes at most where the step does not say.
const STEP_TIMEOUT: Duration = Duration::from_secs(60);
/// How long after the sample's deadline its end is waited for.
const LAST_WORD: Duration = Duration::from_secs(60);

impl Protocol {
    /// Reads the `protocol` section of a run file.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) and the place of the mistake.
    pub fn from_configuration(section: &Configuration) -> Result<Self> {
        let written: Vec<Configuration> = section.deserialize()?;
        let steps: Result<_> = written.iter().map(Step::from_configuration).collect();
        Ok(Self { steps: steps? })
    }

    /// The protocol of a run whose file has none: power on, wait until the guest is ready, run the sample
    /// for at most `runtime` where there is one, take the snapshots of the paused machine, shut down,
    /// analyse.
    ///
    /// It refers to `${sample}` and `${command}`, which are to be substituted.
    pub fn standard(runtime: Option<Duration>) -> serde_json::Value {
        let mut steps = vec![
            serde_json::json!({ "step": "poweron" }),
            serde_json::json!({ "step": "wait", "for": "ready", "timeout": "60s" }),
        ];
        if let Some(runtime) = runtime {
            let deadline = runtime.as_secs_f64();
            // Who runs the sample ends it at its deadline and tells what was gathered; the wait only has to
            // end when nobody tells any more.
            let lost = deadline + LAST_WORD.as_secs_f64();
            steps.extend([
                serde_json::json!({
                    "step": "trigger", "event": "run_sample", "attributes": {
                        "sample": "${sample}", "command": "${command}", "deadline": deadline,
                    },
                }),
                serde_json::json!({ "step": "wait", "for": SAMPLE_FINISHED, "timeout": lost }),
            ]);
        }
        steps.extend([
            serde_json::json!({ "step": "pause" }),
            serde_json::json!({ "step": "trigger", "event": "snapshots_capture" }),
            serde_json::json!({ "step": "resume" }),
            serde_json::json!({ "step": "shutdown", "timeout": "60s" }),
            serde_json::json!({ "step": "trigger", "event": "start_analysis", "always": true }),
            serde_json::json!({ "step": "trigger", "event": "wait_analysis", "always": true }),
        ]);
        serde_json::Value::Array(steps)
    }

    fn events_to_wait_for(&self) -> impl Iterator<Item = &str> {
        self.steps.iter().filter_map(|step| match &step.action {
            Action::Wait { event, .. } => event.as_deref(),
            _ => None,
        })
    }
}

impl Step {
    fn from_configuration(node: &Configuration) -> Result<Self> {
        let (_, rest) = node.split_tag("step")?;
        let name: StepName = node.get("step").unwrap_or(node).deserialize()?;
        let (always, rest) = match rest.get("always") {
            Some(always) => (always.deserialize()?, rest.without("always")),
            None => (false, rest),
        };
        let power = |transition| {
            rest.deserialize::<NoKeys>()?;
            Ok(Action::Power(transition))
        };
        let limit = |timeout: Option<DurationValue>| timeout.map_or(STEP_TIMEOUT, |value| value.0);
        let action = match name {
            StepName::Poweron => power(Transition::Poweron),
            StepName::Pause => power(Transition::Pause),
            StepName::Resume => power(Transition::Resume),
            StepName::Poweroff => power(Transition::Poweroff),
            StepName::Restart => power(Transition::Restart),
            StepName::Shutdown => {
                let keys: ShutdownKeys = rest.deserialize()?;
                Ok(Action::Shutdown(limit(keys.timeout)))
            }
            StepName::Wait => {
                let WaitKeys { event, timeout } = rest.deserialize()?;
                if event.is_none() && timeout.is_none() {
                    return Err(Error::configuration(
                        node.place(),
                        "a wait needs `for`, `timeout` or both",
                    ));
                }
                Ok(Action::Wait {
                    event,
                    timeout: limit(timeout),
                })
            }
            StepName::Trigger => {
                let keys: TriggerKeys = rest.deserialize()?;
                let attributes = attributes(keys.attributes.as_ref())?;
                Ok(Action::Trigger {
                    event: keys.event,
                    attributes,
                })
            }
        };
        Ok(Self {
            action: action?,
            always,
            place: Some(node.place()),
        })
    }
}

fn attributes(section: Option<&Configuration>) -> Result<Vec<(String, Value)>> {
    let Some(section) = section else {
        return Ok(Vec::new());
    };
    if !section.is_object() {
        return Err(Error::configuration(
            section.place(),
            format!("found {}, expected an object of attributes", section.kind()),
        ));
    }
    Ok(section
        .entries()
        .map(|(key, value)| (key.to_owned(), value.to_json().into()))
        .collect())
}

/// How a run went.
#[derive(Debug)]
pub struct RunReport {
    /// Every step that was done, in order.
    pub steps: Vec<StepReport>,
    /// The step that failed first, and why: the run's verdict. `None`: all went well.
    pub failure: Option<(String, Error)>,
    /// The last `sample_finished`, where there was one.
    pub sample: Option<Event>,
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
    /// A step that fails ends the others, but for those marked `always`; these have the time once more.
    /// When the guest reaches a limit on the host's room, or the walls around its network are found
    /// broken or cannot be tried, its power is cut and the step fails. The walls are looked at once more at the end.
    /// `step_started` (`step`, `index`) and `step_finished` (`step`, `index`, `seconds`, `error`) are
    /// triggered around each step.
    ///
    /// # Errors
    /// [`ErrorKind::Stopped`](crate::ErrorKind::Stopped) where the environment is stopped before its turn
    /// comes. A step's failure is no error here, but the report's.
    pub async fn run(&mut self, protocol: &Protocol, limits: &RunLimits) -> Result<RunReport> {
        let limit = limits.time;
        let quotas = limits.watch(self.sandbox(), &self.shared().captures).await;
        let sandbox = std::sync::Arc::clone(self.sandbox());
        let mut turn = self.turn().await?;
        let mut walls = Walls::watch(&sandbox, &mut turn);
        // Ears are opened before the first step, so that nothing fires too early to be heard.
        let mut ears: Vec<(String, Listener)> = Vec::new();
        for name in protocol.events_to_wait_for() {
            if !ears.iter().any(|(known, _)| known == name) {
                ears.push((name.to_owned(), turn.listen(name)));
            }
        }
        let sample = turn.keep_last(SAMPLE_FINISHED);
        let mut report = RunReport {
            steps: Vec::with_capacity(protocol.steps.len()),
            failure: None,
            sample: None,
            isolation: IsolationVerdict::NoWalls,
        };
        let mut end = tokio::time::Instant::now() + limit;
        let mut failed_before = false;
        for (index, step) in protocol.steps.iter().enumerate() {
            if failed_before && !step.always {
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
            let _ = turn.trigger(about("step_started")).await;
            let mut cut = false;
            let walls_broken = walls.have_ended_the_run();
            let mut outcome = tokio::select! {
                biased;
                outcome = take(step, &mut turn, &mut ears) => outcome,
                reached = quotas.reached(), if !failed_before => {
                    cut = true;
                    Err(reached)
                }
                broken = walls.broken(), if !walls_broken => {
                    cut = true;
                    Err(broken)
                }
                () = tokio::time::sleep_until(end) => {
                    Err(Error::timeout("the run to end", limit)
                        .advice("its limit is the key `context.limits.run`"))
                }
            };
            // The step may have ended by what was told with the hole, or in the same instant.
            if !cut && let Some(hole) = walls.told() {
                cut = true;
                outcome = Err(hole);
            }
            if cut {
                cut_power(&mut turn).await;
            }
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
            let _ = turn.trigger(finished).await;
            report.steps.push(StepReport {
                step: name.clone(),
                seconds,
                error: failure,
            });
            if let Err(error) = outcome
                && report.failure.is_none()
            {
                report.failure = Some((name, error));
                failed_before = true;
                end = tokio::time::Instant::now() + limit;
            }
        }
        if let Err(error) = walls.last_look().await {
            cut_power(&mut turn).await;
            let failure = ("look at the walls".to_owned(), error);
            report.failure.get_or_insert(failure);
        }
        report.isolation = walls.verdict();
        report.sample = sample.take();
        Ok(report)
    }
}

/// Ends a guest that must not go on.
async fn cut_power(turn: &mut Turn) {
    match turn.poweroff().await {
        Ok(()) => {}
        // It is off already.
        Err(error) if error.kind() == ErrorKind::IllegalTransition => {}
        Err(error) => tracing::warn!("the power of a guest that must not go on stays on: {error}"),
    }
}

async fn take(step: &Step, turn: &mut Turn, ears: &mut [(String, Listener)]) -> Result<()> {
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

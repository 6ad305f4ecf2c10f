//! The steps of a run, as data.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::config::{Configuration, DurationValue, Place};
use crate::event::Value;
use crate::{Error, Result, Transition};

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

    pub(crate) fn events_to_wait_for(&self) -> impl Iterator<Item = &str> {
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

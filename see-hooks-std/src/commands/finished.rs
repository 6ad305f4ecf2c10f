//! How an order ended, and the event that tells it.

use super::order::{Kind, Order};
use super::output::Output;
use see_agent::protocol::{Exit, Outcome, Stream};
use see_core::{Event, SAMPLE_FINISHED};
use std::time::Duration;

/// How an order ended.
#[derive(Debug, Clone, Default)]
pub(super) struct Finished {
    pub(super) exit_code: Option<i32>,
    pub(super) signal: Option<i32>,
    pub(super) timed_out: bool,
    pub(super) truncated: bool,
    pub(super) agent_lost: bool,
    pub(super) error: Option<String>,
    /// What the program wrote, where that is more than was kept.
    pub(super) written: Option<(u64, u64)>,
}

impl Finished {
    /// It could not be run, or not to its end.
    pub(super) fn failed(error: impl Into<String>) -> Self {
        Self {
            error: Some(error.into()),
            ..Self::default()
        }
    }

    /// The agent was lost while it ran.
    pub(super) fn lost(error: impl Into<String>) -> Self {
        Self {
            agent_lost: true,
            ..Self::failed(error)
        }
    }

    /// The event that tells it.
    pub(super) fn event(self, order: &Order, output: Option<&Output>, took: Duration) -> Event {
        let name = match order.kind {
            Kind::Sample => SAMPLE_FINISHED,
            Kind::Command => "command_finished",
        };
        let written = |stream| output.map_or(0, |output| output.written(stream));
        let (stdout_bytes, stderr_bytes) = self
            .written
            .unwrap_or((written(Stream::Stdout), written(Stream::Stderr)));
        let mut event = Event::new(name)
            .with("command", order.command.text())
            .with("exit_code", self.exit_code)
            .with("signal", self.signal)
            .with("timed_out", self.timed_out)
            .with("truncated", self.truncated)
            .with("agent_lost", self.agent_lost)
            .with("error", self.error.or_else(|| output?.error.clone()))
            .with("seconds", took.as_secs_f64())
            .with("stdout_bytes", stdout_bytes)
            .with("stderr_bytes", stderr_bytes);
        if let Some(sample) = &order.sample {
            event = event
                .with("sample", sample.as_path())
                .with("guest_name", order.renamed.get().cloned());
        }
        match (order.kind, output) {
            (Kind::Sample, output) => {
                let path = |stream| output.and_then(|output| output.path(stream));
                event
                    .with("stdout", path(Stream::Stdout))
                    .with("stderr", path(Stream::Stderr))
            }
            (Kind::Command, Some(output)) => event.with("output", output.head()),
            (Kind::Command, None) => event,
        }
    }
}

impl From<Outcome> for Finished {
    fn from(outcome: Outcome) -> Self {
        let (exit_code, signal) = match outcome.exit {
            Exit::Code(code) => (Some(code), None),
            Exit::Signal(signal) => (None, Some(signal)),
            Exit::Unknown => (None, None),
        };
        Self {
            exit_code,
            signal,
            timed_out: outcome.timed_out,
            truncated: outcome.stdout_truncated || outcome.stderr_truncated,
            agent_lost: false,
            error: outcome
                .killed
                .then(|| "it was killed on request".to_owned()),
            written: Some((outcome.stdout_bytes, outcome.stderr_bytes)),
        }
    }
}

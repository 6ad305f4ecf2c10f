//! How a run went, as plain data: what `result.json` holds and every renderer shows.

use std::path::{Path, PathBuf};

use see_core::ledger::Looked;
use see_core::{
    Error, ErrorKind, Event, Identifier, IsolationVerdict, RunReport, SAMPLE_FINISHED, Value,
    path_to_text,
};
use serde::{Serialize, Serializer};

use crate::exit_code;
use crate::render::seconds;

/// The sum of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verdict {
    /// Everything went well.
    Ok,
    /// The sample's exit code was not 0, or a signal ended it.
    SampleFailed,
    /// The sample did not end by itself.
    SampleUnfinished,
    /// The sandbox could not be made, failed on the way, or left something behind.
    SandboxFailed,
    /// A hook that is required could not do what it is for.
    HookFailed,
    /// The configuration is wrong.
    BadConfiguration,
    /// Rights are missing.
    MissingRights,
    /// A signal ended the run.
    Interrupted,
}

impl Verdict {
    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Ok => "all went well",
            Self::SampleFailed => "the sample failed",
            Self::SampleUnfinished => "the sample did not end by itself",
            Self::SandboxFailed => "the sandbox failed",
            Self::HookFailed => "a hook failed",
            Self::BadConfiguration => "the configuration is wrong",
            Self::MissingRights => "rights are missing",
            Self::Interrupted => "interrupted",
        }
    }

    /// The same in a word or two that follow a count of runs.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::Ok => "went well",
            Self::SampleFailed => "with a sample that failed",
            Self::SampleUnfinished => "with a sample that did not end",
            Self::SandboxFailed => "with a sandbox that failed",
            Self::HookFailed => "with a hook that failed",
            Self::BadConfiguration => "wrongly configured",
            Self::MissingRights => "without the rights",
            Self::Interrupted => "interrupted",
        }
    }

    /// The exit code; `interrupted` is the one of the signal that was heard.
    pub(crate) fn exit_code(self, interrupted: Option<u8>) -> u8 {
        match self {
            Self::Ok => exit_code::OK,
            Self::SampleFailed => exit_code::SAMPLE_FAILED,
            Self::SampleUnfinished => exit_code::SAMPLE_UNFINISHED,
            Self::SandboxFailed | Self::HookFailed => exit_code::SANDBOX_FAILED,
            Self::BadConfiguration => exit_code::CONFIGURATION,
            Self::MissingRights => exit_code::MISSING_RIGHTS,
            Self::Interrupted => interrupted.unwrap_or(exit_code::INTERRUPTED),
        }
    }

    /// The gravest of several, in the order that the help of the exit codes gives.
    pub(crate) fn gravest(verdicts: impl IntoIterator<Item = Self>) -> Self {
        let gravest = verdicts.into_iter().max_by_key(|it| it.gravity());
        gravest.unwrap_or(Self::Ok)
    }

    fn gravity(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::SampleFailed => 1,
            Self::SampleUnfinished => 2,
            Self::BadConfiguration => 3,
            Self::MissingRights => 4,
            Self::HookFailed => 5,
            Self::SandboxFailed => 6,
            Self::Interrupted => 7,
        }
    }

    /// The same of a run in which a hook failed. What a sample that took the guest with it left undone is none
    /// of the hooks' fault.
    pub(crate) fn with_failed_hook(self) -> Self {
        match self {
            Self::Ok | Self::SampleFailed => Self::HookFailed,
            graver => graver,
        }
    }

    /// Of an error that ended a run before its protocol began.
    pub(crate) fn of_error(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Configuration => Self::BadConfiguration,
            ErrorKind::PermissionDenied => Self::MissingRights,
            _ => Self::SandboxFailed,
        }
    }

    /// Of a protocol that ran to its end.
    pub(crate) fn of_report(report: &RunReport, sample: Option<&SampleResult>) -> Self {
        // Whatever the sample seemed to do, it may not have been alone.
        if matches!(report.isolation, IsolationVerdict::Broken { .. }) {
            return Self::SandboxFailed;
        }
        // A guest that proved nothing ran no sample.
        let may_be_judged = !matches!(report.isolation, IsolationVerdict::Unproven { .. });
        if let Some((step, error)) = &report.failure {
            let waited_for_sample = step.as_str() == format!("wait for {SAMPLE_FINISHED}");
            let unfinished = matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Guest);
            // A sample that took the guest with it: the next step finds the machine off.
            let took_the_guest = sample.is_some_and(|sample| sample.agent_lost)
                && matches!(
                    error.kind(),
                    ErrorKind::Guest | ErrorKind::IllegalTransition
                );
            let unfinished = (waited_for_sample && unfinished) || took_the_guest;
            return match unfinished && may_be_judged {
                true => Self::SampleUnfinished,
                false if error.kind() == ErrorKind::PermissionDenied => Self::MissingRights,
                false => Self::SandboxFailed,
            };
        }
        match may_be_judged {
            true => sample.map_or(Self::Ok, SampleResult::verdict),
            false => Self::SandboxFailed,
        }
    }
}

/// How the sample ended, as the event `sample_finished` says.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct SampleResult {
    /// Its exit code, where it ended by itself.
    pub(crate) exit_code: Option<i64>,
    /// The number of the signal that ended it.
    pub(crate) signal: Option<i64>,
    /// Its time ran out.
    pub(crate) timed_out: bool,
    /// It printed more than was kept.
    pub(crate) truncated: bool,
    /// The agent in the guest was lost while it ran.
    pub(crate) agent_lost: bool,
    /// What it was called in the guest, where that is not its own name.
    pub(crate) guest_name: Option<String>,
    /// What else went wrong with it.
    pub(crate) error: Option<String>,
    /// How long it ran, in seconds.
    pub(crate) seconds: Option<f64>,
    /// The file with what it printed.
    pub(crate) stdout: Option<PathBuf>,
    /// The file with what it printed to stderr.
    pub(crate) stderr: Option<PathBuf>,
}

impl SampleResult {
    /// Reads the attributes of `sample_finished`; ones of another type count as missing.
    pub(crate) fn of(event: &Event) -> Self {
        let number = |name| match event.get(name) {
            Some(Value::Integer(number)) => Some(*number),
            _ => None,
        };
        let truth = |name| matches!(event.get(name), Some(Value::Bool(true)));
        let text = |name| event.get(name).and_then(Value::as_str).map(str::to_owned);
        Self {
            exit_code: number("exit_code"),
            signal: number("signal"),
            timed_out: truth("timed_out"),
            truncated: truth("truncated"),
            agent_lost: truth("agent_lost"),
            guest_name: text("guest_name"),
            error: text("error"),
            seconds: match event.get("seconds") {
                Some(Value::Float(seconds)) => Some(*seconds),
                _ => None,
            },
            stdout: text("stdout").map(PathBuf::from),
            stderr: text("stderr").map(PathBuf::from),
        }
    }

    /// Of several samples in one run the one that counts as its result: the first of those that ended worst.
    pub(crate) fn of_run(ends: &[Event]) -> Option<Self> {
        // Of equal ones `max_by_key` gives the last.
        let samples = ends.iter().rev().map(Self::of);
        samples.max_by_key(|sample| sample.verdict().gravity())
    }

    fn verdict(&self) -> Verdict {
        if self.timed_out || self.agent_lost {
            return Verdict::SampleUnfinished;
        }
        match (self.exit_code, self.signal, &self.error) {
            (Some(0), None, None) => Verdict::Ok,
            (None, None, Some(_)) => Verdict::SandboxFailed,
            (None, None, None) => Verdict::SampleUnfinished,
            _ => Verdict::SampleFailed,
        }
    }

    /// How it ended, in words that follow its name.
    pub(crate) fn words(&self) -> String {
        let mut words = match (self.exit_code, self.signal) {
            (_, Some(signal)) => format!("was ended by signal {signal}"),
            (Some(code), None) => format!("ended with exit code {code}"),
            (None, None) => String::from("ended without an exit code"),
        };
        if let Some(took) = self.seconds {
            words.push_str(&format!(" after {}", seconds(took)));
        }
        if self.timed_out {
            words.push_str(", its time ran out");
        }
        if self.agent_lost {
            words.push_str(", the agent in the guest was lost");
        }
        if self.truncated {
            words.push_str(", it printed more than was kept");
        }
        words
    }
}

/// One step of the run, with the steps around the protocol: `check`, `allocate`, `teardown`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct StepResult {
    /// What was done.
    pub(crate) step: String,
    /// When it began, in seconds since the run did.
    pub(crate) start: f64,
    /// How long it took.
    pub(crate) seconds: f64,
    /// What failed.
    pub(crate) error: Option<String>,
}

/// A file that the run left in its results folder.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Artifact {
    /// Beneath the results folder.
    #[serde(serialize_with = "as_text")]
    pub(crate) path: PathBuf,
    /// In bytes.
    pub(crate) size: u64,
}

/// What is known when a run begins.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Header {
    /// The environment.
    pub(crate) identifier: Identifier,
    /// The run file, absolute.
    #[serde(serialize_with = "as_text")]
    pub(crate) run_file: PathBuf,
    /// The sample, absolute.
    #[serde(serialize_with = "as_text_or_null")]
    pub(crate) sample: Option<PathBuf>,
    /// The command.
    pub(crate) command: Option<String>,
    /// The folder of the run's results, absolute. Nothing is in it if the run did not get so far.
    #[serde(serialize_with = "as_text")]
    pub(crate) results: PathBuf,
    /// When it began, in seconds since 1970.
    pub(crate) started: f64,
}

/// A path without loss: JSON has no bytes that are not UTF-8.
fn as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path_to_text(path))
}

fn as_text_or_null<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    path.as_deref().map(path_to_text).serialize(serializer)
}

/// How a run went.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RunResult {
    /// What was known when it began.
    #[serde(flatten)]
    pub(crate) header: Header,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
    /// The sum.
    pub(crate) verdict: Verdict,
    /// The exit code that this run alone gives.
    pub(crate) exit_code: u8,
    /// What ended the run early: the whole chain in one line.
    pub(crate) failure: Option<String>,
    /// The guest never became ready.
    pub(crate) never_answered: bool,
    /// The screen of a guest that did not answer, beneath the results folder.
    pub(crate) last_screen: Option<PathBuf>,
    /// How the sample ended, where it did.
    pub(crate) sample_result: Option<SampleResult>,
    /// What is known of the walls around the guest: whether the results can be trusted.
    pub(crate) isolation: IsolationVerdict,
    /// The steps.
    pub(crate) steps: Vec<StepResult>,
    /// The files in the results folder, sorted, without `result.json`.
    pub(crate) artifacts: Vec<Artifact>,
    /// How many more files there are than are listed.
    pub(crate) more_artifacts: u64,
    /// What failed at the end of the sandbox.
    pub(crate) teardown_errors: Vec<String>,
    /// What of this run was found on the host in the end, or is still named by the ledger.
    pub(crate) left_behind: Vec<String>,
    /// Everything that was looked for on the host in the end; empty for a machine that is kept.
    pub(crate) looked_for: Vec<Looked>,
    /// Until when the machine stays on the host, as `--keep` asked for, in seconds since 1970.
    pub(crate) kept_until: Option<f64>,
    /// What went wrong in handlers of events.
    pub(crate) mishaps: Vec<String>,
    /// What was said of the run file: hooks that were left out, defaults that python-see had otherwise.
    pub(crate) notes: Vec<String>,
    /// Events that came faster than they could be shown.
    pub(crate) events_not_shown: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(attributes: &[(&'static str, Value)]) -> SampleResult {
        let event = attributes
            .iter()
            .fold(Event::new(SAMPLE_FINISHED), |event, (name, value)| {
                event.with(*name, value.clone())
            });
        SampleResult::of(&event)
    }

    fn report(failure: Option<(&str, ErrorKind)>) -> RunReport {
        RunReport {
            steps: Vec::new(),
            failure: failure.map(|(step, kind)| (step.to_owned(), Error::new(kind, "it failed"))),
            samples: Vec::new(),
            isolation: IsolationVerdict::NoWalls,
        }
    }

    #[test]
    fn of_several_samples_the_first_that_ended_worst_is_the_runs() {
        let ended = |code: i64| Event::new(SAMPLE_FINISHED).with("exit_code", code);
        for (codes, counts) in [
            (&[0, 3, 4, 0][..], Some(3)),
            (&[0, 0], Some(0)),
            (&[3, 0], Some(3)),
            (&[], None),
        ] {
            let ends: Vec<Event> = codes.iter().map(|code| ended(*code)).collect();
            let sample = SampleResult::of_run(&ends);
            assert_eq!(
                sample.and_then(|sample| sample.exit_code),
                counts,
                "{codes:?}"
            );
        }
        let lost = Event::new(SAMPLE_FINISHED).with("agent_lost", true);
        let sample = SampleResult::of_run(&[ended(3), lost, ended(0)]).expect("there are three");
        assert_eq!(sample.verdict(), Verdict::SampleUnfinished);
    }

    #[test]
    fn each_end_of_a_sample_has_its_verdict() {
        let cases: [(&[(&'static str, Value)], Verdict); 6] = [
            (&[("exit_code", Value::Integer(0))], Verdict::Ok),
            (&[("exit_code", Value::Integer(3))], Verdict::SampleFailed),
            (&[("signal", Value::Integer(9))], Verdict::SampleFailed),
            (
                &[
                    ("signal", Value::Integer(9)),
                    ("timed_out", Value::Bool(true)),
                ],
                Verdict::SampleUnfinished,
            ),
            (
                &[("agent_lost", Value::Bool(true))],
                Verdict::SampleUnfinished,
            ),
            (
                &[("error", "no such command".into())],
                Verdict::SandboxFailed,
            ),
        ];
        for (attributes, verdict) in cases {
            let sample = sample(attributes);
            let judged = Verdict::of_report(&report(None), Some(&sample));
            assert_eq!(judged, verdict, "{attributes:?}");
        }
        assert_eq!(Verdict::of_report(&report(None), None), Verdict::Ok);
    }

    #[test]
    fn a_failed_step_is_the_sandboxs_unless_it_waited_for_the_sample() {
        let cases = [
            (
                "wait for sample_finished",
                ErrorKind::Timeout,
                Verdict::SampleUnfinished,
            ),
            (
                "wait for sample_finished",
                ErrorKind::Guest,
                Verdict::SampleUnfinished,
            ),
            (
                "wait for sample_finished",
                ErrorKind::Hypervisor,
                Verdict::SandboxFailed,
            ),
            ("wait for ready", ErrorKind::Timeout, Verdict::SandboxFailed),
            (
                "poweron",
                ErrorKind::PermissionDenied,
                Verdict::MissingRights,
            ),
        ];
        for (step, kind, verdict) in cases {
            assert_eq!(
                Verdict::of_report(&report(Some((step, kind))), None),
                verdict,
                "{step}"
            );
        }
    }

    #[test]
    fn a_sample_behind_broken_walls_is_not_judged() {
        let mut report = report(Some(("wait for sample_finished", ErrorKind::Timeout)));
        let judge = |report: &RunReport| {
            Verdict::of_report(report, Some(&sample(&[("exit_code", Value::Integer(0))])))
        };
        assert_eq!(judge(&report), Verdict::SampleUnfinished);
        report.isolation = IsolationVerdict::Broken {
            why: "the rules are gone".to_owned(),
            holes: Vec::new(),
        };
        assert_eq!(judge(&report), Verdict::SandboxFailed);
    }

    #[test]
    fn a_run_whose_guest_did_not_prove_its_network_closed_is_the_sandboxs_failure() {
        let isolation = IsolationVerdict::Unproven {
            why: "nobody answers".to_owned(),
        };
        for (failure, verdict) in [
            (
                Some(("wait for sample_finished", ErrorKind::Timeout)),
                Verdict::SandboxFailed,
            ),
            (
                Some(("poweron", ErrorKind::Isolation)),
                Verdict::SandboxFailed,
            ),
            (
                Some(("poweron", ErrorKind::PermissionDenied)),
                Verdict::MissingRights,
            ),
            (None, Verdict::SandboxFailed),
        ] {
            let report = RunReport {
                isolation: isolation.clone(),
                ..report(failure)
            };
            assert_eq!(Verdict::of_report(&report, None), verdict, "{failure:?}");
        }
    }

    #[test]
    fn a_sample_that_took_the_guest_with_it_did_not_end_by_itself() {
        let lost = sample(&[("agent_lost", Value::Bool(true))]);
        let ended = sample(&[("exit_code", Value::Integer(0))]);
        let report = report(Some(("pause", ErrorKind::IllegalTransition)));
        let judge = |sample| Verdict::of_report(&report, Some(sample));
        assert_eq!(judge(&lost), Verdict::SampleUnfinished);
        assert_eq!(judge(&ended), Verdict::SandboxFailed);
    }

    #[test]
    fn the_gravest_of_several_runs_counts() {
        use Verdict::{Interrupted, Ok, SampleFailed, SampleUnfinished, SandboxFailed};
        assert_eq!(Verdict::gravest([]), Ok);
        assert_eq!(Verdict::gravest([Ok, SampleFailed, Ok]), SampleFailed);
        assert_eq!(
            Verdict::gravest([SampleUnfinished, SampleFailed]),
            SampleUnfinished
        );
        assert_eq!(
            Verdict::gravest([SandboxFailed, SampleUnfinished]),
            SandboxFailed
        );
        assert_eq!(Verdict::gravest([SandboxFailed, Interrupted]), Interrupted);
    }
}

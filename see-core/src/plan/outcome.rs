//! How a run went, as plain data: what `result.json` holds, and what a screen shows.

use std::path::{Path, PathBuf};

use crate::ledger::Looked;
use crate::{
    Error, ErrorKind, ErrorReport, Event, Identifier, IsolationVerdict, RunReport, SAMPLE_FINISHED,
    Value, path_to_text,
};
use serde::{Serialize, Serializer};

/// The sum of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
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
    /// The exit code that `seectl` gives a run: its help lists them. Where a signal interrupted it, the program's own
    /// is that signal's.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::SampleFailed => 1,
            Self::BadConfiguration => 2,
            Self::SampleUnfinished => 3,
            Self::SandboxFailed | Self::HookFailed => 4,
            Self::MissingRights => 5,
            Self::Interrupted => 130,
        }
    }

    /// The gravest of several, in the order that the help of the exit codes gives.
    pub fn gravest(verdicts: impl IntoIterator<Item = Self>) -> Self {
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
    pub(super) fn with_failed_hook(self) -> Self {
        match self {
            Self::Ok | Self::SampleFailed => Self::HookFailed,
            graver => graver,
        }
    }

    /// Of an error that ended a run before its protocol began.
    pub(super) fn of_error(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Configuration => Self::BadConfiguration,
            ErrorKind::PermissionDenied => Self::MissingRights,
            _ => Self::SandboxFailed,
        }
    }

    /// Of a protocol that ran to its end.
    pub(super) fn of_report(report: &RunReport, sample: Option<&SampleResult>) -> Self {
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
pub struct SampleResult {
    /// Its exit code, where it ended by itself.
    pub exit_code: Option<i64>,
    /// The number of the signal that ended it.
    pub signal: Option<i64>,
    /// Its time ran out.
    pub timed_out: bool,
    /// It printed more than was kept.
    pub truncated: bool,
    /// The agent in the guest was lost while it ran.
    pub agent_lost: bool,
    /// What it was called in the guest, where that is not its own name.
    pub guest_name: Option<String>,
    /// What else went wrong with it.
    pub error: Option<String>,
    /// How long it ran, in seconds.
    pub seconds: Option<f64>,
    /// The file with what it printed.
    pub stdout: Option<PathBuf>,
    /// The file with what it printed to stderr.
    pub stderr: Option<PathBuf>,
}

impl SampleResult {
    /// Reads the attributes of `sample_finished`; ones of another type count as missing.
    pub fn of(event: &Event) -> Self {
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
    pub(super) fn of_run(ends: &[Event]) -> Option<Self> {
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
}

/// One step of the run, with the steps around the protocol: `check`, `allocate`, `teardown`.
#[derive(Debug, Clone, Serialize)]
pub struct StepResult {
    /// What was done.
    pub step: String,
    /// When it began, in seconds since the run did.
    pub start: f64,
    /// How long it took.
    pub seconds: f64,
    /// What failed.
    pub error: Option<String>,
}

/// A file that the run left in its results folder.
#[derive(Debug, Clone, Serialize)]
pub struct Artifact {
    /// Beneath the results folder.
    #[serde(serialize_with = "as_text")]
    pub path: PathBuf,
    /// In bytes.
    pub size: u64,
}

/// What is known when a run begins.
#[derive(Debug, Clone, Serialize)]
pub struct RunHeader {
    /// The version of this record: [`RunHeader::VERSION`].
    pub version: u32,
    /// The environment.
    pub identifier: Identifier,
    /// The run file, absolute.
    #[serde(serialize_with = "as_text_or_null")]
    pub run_file: Option<PathBuf>,
    /// The sample, absolute.
    #[serde(serialize_with = "as_text_or_null")]
    pub sample: Option<PathBuf>,
    /// The command.
    pub command: Option<String>,
    /// The folder of the run's results, absolute. Nothing is in it if the run did not get so far.
    #[serde(serialize_with = "as_text")]
    pub results: PathBuf,
    /// When it began, in seconds since 1970.
    pub started: f64,
}

impl RunHeader {
    /// The version of `result.json` and of what `seectl run --output json` prints: it grows when a reader of an older
    /// one could go wrong.
    pub const VERSION: u32 = 1;
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
pub struct RunResult {
    /// What was known when it began.
    #[serde(flatten)]
    pub header: RunHeader,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The sum.
    pub verdict: Verdict,
    /// The exit code that this run alone gives.
    pub exit_code: u8,
    /// What ended the run early: the whole chain in one line.
    pub failure: Option<String>,
    /// The same in parts: empty where nothing ended it.
    pub errors: Vec<ErrorReport>,
    /// The guest never became ready.
    pub never_answered: bool,
    /// The screen of a guest that did not answer, beneath the results folder.
    pub last_screen: Option<PathBuf>,
    /// How the sample ended, where it did.
    pub sample_result: Option<SampleResult>,
    /// What is known of the walls around the guest: whether the results can be trusted.
    pub isolation: IsolationVerdict,
    /// The steps.
    pub steps: Vec<StepResult>,
    /// The files in the results folder, sorted, without `result.json`.
    pub artifacts: Vec<Artifact>,
    /// How many more files there are than are listed.
    pub more_artifacts: u64,
    /// What failed at the end of the sandbox.
    pub teardown_errors: Vec<String>,
    /// What of this run was found on the host in the end, or is still named by the ledger.
    pub left_behind: Vec<String>,
    /// Everything that was looked for on the host in the end; empty for a machine that is kept.
    pub looked_for: Vec<Looked>,
    /// Until when the machine stays on the host, as `--keep` asked for, in seconds since 1970.
    pub kept_until: Option<f64>,
    /// What went wrong in handlers of events.
    pub mishaps: Vec<String>,
    /// What was said of the run file: hooks that were left out, defaults that python-see had otherwise.
    pub notes: Vec<String>,
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

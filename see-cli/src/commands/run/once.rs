//! One run, from its results folder to its result.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use see_core::ledger::{Looked, Trail};
use see_core::{
    AllocateOptions, Context, Environment, Error, ErrorKind, Event, Host, ImageProgress,
    IsolationVerdict, Prepared, Result, RunLimits, RunReport, SAMPLE_FINISHED, Stop,
};
use tokio::task::JoinHandle;

use super::plan::{Plan, Settled};
use super::{artifacts, folder, samples};
use crate::commands::progress::Forwarder;
use crate::outcome::{Header, RunResult, SampleResult, StepResult, Verdict};
use crate::render::{Feed, Update, without_twice};
use crate::signals::Signals;

/// The file in the results folder with the end of what the hypervisor wrote about a machine that failed.
const HYPERVISOR_LOG: &str = "hypervisor.log";
/// How long the picture of a guest that does not answer may take.
const SCREEN: Duration = Duration::from_secs(5);
/// How much of it is kept, in bytes.
const MOST_OF_A_LOG: u64 = 256 << 10;

/// What runs have in common.
pub(super) struct Once<'a> {
    pub(super) host: &'a Host,
    pub(super) feed: &'a Feed,
    pub(super) signals: &'a Signals,
    /// How long machines stay after their run.
    pub(super) keep: Option<Duration>,
    /// What was said of the run file.
    pub(super) notes: Vec<String>,
}

/// What is gathered while a run goes on.
struct Gathered {
    began: Instant,
    steps: Vec<StepResult>,
    verdict: Verdict,
    failure: Option<String>,
    never_answered: bool,
    last_screen: Option<PathBuf>,
    sample: Option<SampleResult>,
    isolation: IsolationVerdict,
    teardown_errors: Vec<String>,
    kept_until: Option<SystemTime>,
    mishaps: Vec<String>,
    trail: Trail,
}

impl Once<'_> {
    /// Runs what is settled and checked already, or settles and checks it first.
    ///
    /// # Errors
    /// What is wrong with it, and as [`Once::run`].
    pub(super) async fn next(
        &self,
        plan: &Plan,
        sample: Option<&Path>,
        ready: Option<(Settled, Prepared)>,
    ) -> Result<RunResult> {
        let (settled, checked) = match ready {
            Some(ready) => ready,
            None => {
                let registries = self.host.registries();
                let settled = plan.settle(sample, registries)?;
                let checking = settled.check(registries);
                let checked = self.signals.stop().token().or("check", checking).await??;
                (settled, checked)
            }
        };
        self.run(settled, checked).await
    }

    /// Runs, and tears everything down again.
    ///
    /// # Errors
    /// Where the results folder cannot be made; everything later is part of the result.
    async fn run(&self, settled: Settled, checked: Prepared) -> Result<RunResult> {
        let results = settled.results();
        let not_shown_before = self.feed.not_shown();
        folder::make(results.clone()).await?;
        let header = Header {
            identifier: settled.identifier,
            run_file: settled.run_file.clone(),
            sample: settled.sample.clone(),
            command: settled.command.clone(),
            results: results.clone(),
            started: since_1970(SystemTime::now()),
        };
        self.feed
            .send(Update::Begin(Box::new(header.clone())))
            .await;
        let mut gathered = Gathered {
            began: Instant::now(),
            steps: Vec::new(),
            verdict: Verdict::Ok,
            failure: None,
            never_answered: false,
            last_screen: None,
            sample: None,
            isolation: IsolationVerdict::NoWalls,
            teardown_errors: Vec::new(),
            kept_until: None,
            mishaps: Vec::new(),
            trail: Trail::new(),
        };
        self.allocate_and_run(&settled, checked, &mut gathered)
            .await;
        let looked_for = match gathered.kept_until {
            None => self.host.look(&gathered.trail).await,
            Some(_) => Vec::new(),
        };
        let left_behind = match gathered.kept_until {
            None => self.left_behind(&settled, &looked_for).await,
            Some(_) => Vec::new(),
        };
        gathered.teardown_errors.extend(not_known(&looked_for));
        let clean = gathered.teardown_errors.is_empty() && left_behind.is_empty();
        if !clean && gathered.verdict != Verdict::Interrupted {
            gathered.verdict = Verdict::SandboxFailed;
        }
        let listing = folder::blocking(move || Ok(artifacts::list(&results))).await;
        let (artifacts, more_artifacts) = listing.unwrap_or_default();
        let mut result = RunResult {
            header,
            seconds: gathered.began.elapsed().as_secs_f64(),
            verdict: gathered.verdict,
            exit_code: gathered.verdict.exit_code(self.signals.exit_code()),
            failure: gathered.failure,
            never_answered: gathered.never_answered,
            last_screen: gathered.last_screen,
            sample_result: gathered.sample,
            isolation: gathered.isolation,
            steps: gathered.steps,
            artifacts,
            more_artifacts,
            teardown_errors: gathered.teardown_errors,
            left_behind,
            looked_for,
            kept_until: gathered.kept_until.map(since_1970),
            mishaps: gathered.mishaps,
            notes: self.notes.clone(),
            events_not_shown: self.feed.not_shown() - not_shown_before,
        };
        if let Err(error) = folder::write(&result).await {
            if result.verdict != Verdict::Interrupted {
                result.verdict = Verdict::SandboxFailed;
                result.exit_code = result.verdict.exit_code(self.signals.exit_code());
            }
            let failure = error.chain();
            result.failure.get_or_insert_with(|| failure.clone());
            result.mishaps.push(failure);
        }
        self.feed
            .send(Update::Finished(Box::new(result.clone())))
            .await;
        Ok(result)
    }

    async fn allocate_and_run(
        &self,
        settled: &Settled,
        checked: Prepared,
        gathered: &mut Gathered,
    ) {
        // Whatever became of it since the others began: it is this run's failure alone.
        if let Some(sample) = settled.sample.clone()
            && let Err(error) = folder::blocking(move || samples::check(&sample)).await
        {
            return self.fail(gathered, &error);
        }
        let limits = RunLimits::new(&checked.limits, Some(settled.results()));
        let options = AllocateOptions {
            identifier: Some(settled.identifier),
            note: note(settled),
            progress: ImageProgress::new(),
            trail: gathered.trail.clone(),
            ..AllocateOptions::default()
        };
        let progress = Forwarder::start(&options.progress, self.feed.clone());
        // One of its own: an environment's end stops what it was given, and other runs may follow.
        let (stop, asked) = (Stop::new(), self.signals.stop().token());
        let stopping = stop.clone();
        let forwarder = AbortOnDrop(tokio::spawn(async move {
            asked.stopped().await;
            stopping.stop();
        }));
        let allocating = self.host.allocate(checked, options, stop);
        let allocating = async {
            let allocated = allocating.await;
            progress.finish().await;
            allocated
        };
        let allocated = self.step("allocate", gathered, allocating).await;
        let mut environment = match allocated {
            Ok(environment) => environment,
            Err(error) => return self.fail(gathered, &error),
        };
        let watching = self.watch(&mut environment);
        let protocol_began = gathered.began.elapsed();
        let report = environment.run(&settled.protocol, &limits).await;
        if let Ok(report) = &report
            && report.failure.as_ref().is_some_and(is_silence)
        {
            gathered.never_answered = true;
            gathered.last_screen = keep_screen(&environment, &settled.results()).await;
        }
        match report {
            Ok(report) => self.take_in(gathered, report, protocol_began),
            Err(error) => self.fail(gathered, &error),
        }
        if matches!(
            gathered.verdict,
            Verdict::SandboxFailed | Verdict::MissingRights
        ) {
            keep_log(&environment, &settled.results(), gathered).await;
        }
        gathered.kept_until = self.keep_until();
        let kept_until = gathered.kept_until;
        let tearing_down = async {
            let teardown = match kept_until {
                None => environment.deallocate().await,
                Some(until) => environment.keep(until).await,
            };
            let errors: Vec<String> = teardown.errors.iter().map(Error::chain).collect();
            match teardown.errors.into_iter().next() {
                Some(first) => Err((first, errors)),
                None => Ok(()),
            }
        };
        let began = gathered.began.elapsed();
        self.feed.send(Update::Started("teardown")).await;
        let torn_down = tearing_down.await;
        let error = torn_down.as_ref().err().map(|(first, _)| first.chain());
        self.ended("teardown", began, error, gathered).await;
        if let Err((_, errors)) = torn_down {
            gathered.teardown_errors = errors;
        }
        drop(forwarder);
        if let Some(failure) = watching.bus().hook_failure() {
            gathered.verdict = gathered.verdict.with_failed_hook();
            let failure = format!("hook {failure}");
            gathered.failure.get_or_insert(failure);
        }
        let (mishaps, forgotten) = watching.bus().mishaps();
        gathered.mishaps = mishaps.iter().map(ToString::to_string).collect();
        if forgotten > 0 {
            let more = format!("{forgotten} more things went wrong in handlers");
            gathered.mishaps.push(more);
        }
    }

    /// Until when the machine stays; whoever interrupts a run wants nothing of it.
    fn keep_until(&self) -> Option<SystemTime> {
        let keep = self.keep.filter(|_| self.signals.exit_code().is_none())?;
        SystemTime::now().checked_add(keep)
    }

    /// Hands every event of the environment to the screen.
    fn watch(&self, environment: &mut Environment) -> Context {
        let context = environment.context("seectl");
        let feed = self.feed.clone();
        context.observe(move |event: &Event| feed.offer(Update::Event(event.clone())));
        context
    }

    /// Does something as a step that is shown and timed.
    async fn step<T>(
        &self,
        name: &'static str,
        gathered: &mut Gathered,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let began = gathered.began.elapsed();
        self.feed.send(Update::Started(name)).await;
        let done = work.await;
        let error = done.as_ref().err().map(Error::chain);
        self.ended(name, began, error, gathered).await;
        done
    }

    async fn ended(
        &self,
        name: &'static str,
        began: Duration,
        error: Option<String>,
        gathered: &mut Gathered,
    ) {
        let step = StepResult {
            step: name.to_owned(),
            start: began.as_secs_f64(),
            seconds: (gathered.began.elapsed() - began).as_secs_f64(),
            error,
        };
        self.feed.send(Update::Ended(step.clone())).await;
        gathered.steps.push(step);
    }

    fn take_in(&self, gathered: &mut Gathered, report: RunReport, began: Duration) {
        let mut start = began.as_secs_f64();
        for step in &report.steps {
            gathered.steps.push(StepResult {
                step: step.step.clone(),
                start,
                seconds: step.seconds,
                error: step.error.clone(),
            });
            start += step.seconds;
        }
        gathered.isolation = report.isolation.clone();
        gathered.sample = SampleResult::of_run(&report.samples);
        gathered.verdict = Verdict::of_report(&report, gathered.sample.as_ref());
        gathered.failure = report.failure.as_ref().map(|(step, error)| {
            let error = error.chain();
            format!("{step}: {}", without_twice(step, &error))
        });
        if self.signals.exit_code().is_some() {
            gathered.verdict = Verdict::Interrupted;
        } else if gathered.sample.is_none() && gathered.verdict == Verdict::SampleUnfinished {
            // It ran and was waited for in vain; that is all there is to know.
            tracing::info!("there was no {SAMPLE_FINISHED}");
        }
    }

    fn fail(&self, gathered: &mut Gathered, error: &Error) {
        gathered.verdict = match self.signals.exit_code() {
            Some(_) => Verdict::Interrupted,
            None => Verdict::of_error(error),
        };
        gathered.failure = Some(error.chain());
    }

    /// What of this run was found on the host, or else what the ledger still names.
    async fn left_behind(&self, settled: &Settled, looked_for: &[Looked]) -> Vec<String> {
        let found = looked_for.iter().flat_map(|looked| looked.left().to_vec());
        let found: Vec<String> = found.collect();
        if !found.is_empty() {
            return found;
        }
        let listed = match self.host.ledger().list().await {
            Ok(listed) => listed,
            Err(error) => return vec![format!("unknown: {}", error.chain())],
        };
        let ours = listed
            .into_iter()
            .filter(|listed| listed.identifier == settled.identifier);
        ours.flat_map(|listed| {
            let named = listed.holdings.iter();
            let named: Vec<String> = named
                .map(|resource| format!("{} {}", resource.kind, resource.name))
                .collect();
            match named.is_empty() {
                true => vec![format!("the ledger's record {}", listed.identifier)],
                false => named,
            }
        })
        .collect()
    }
}

/// Of what it is not known whether it is gone, though this user may look there.
fn not_known(looked_for: &[Looked]) -> Vec<String> {
    let failed = looked_for.iter().filter_map(|looked| {
        let why = looked.failed.as_ref()?;
        let what = &looked.what;
        Some(format!("it is not known whether {what} is gone: {why}"))
    });
    failed.collect()
}

/// Keeps the end of what the hypervisor wrote about a machine, which goes with the sandbox, beside the results, and
/// says where it is.
async fn keep_log(environment: &Environment, results: &Path, gathered: &mut Gathered) {
    let Some(log) = environment.sandbox().hypervisor_log() else {
        return;
    };
    let kept = results.join(HYPERVISOR_LOG);
    let file = kept.clone();
    let said = match log.tail(MOST_OF_A_LOG).await {
        Ok(None) => return,
        Ok(Some(bytes)) => {
            let written = folder::blocking(move || {
                std::fs::write(&file, bytes).map_err(|error| {
                    Error::io("the hypervisor's log cannot be kept", error).subject(file.display())
                })
            });
            match written.await {
                Ok(()) => format!("the hypervisor's log is kept in {}", kept.display()),
                Err(error) => error.chain(),
            }
        }
        Err(error) => error.chain(),
    };
    if let Some(failure) = &mut gathered.failure {
        failure.push_str("; ");
        failure.push_str(&said);
    }
}

/// Whether a step failed since the guest never answered.
fn is_silence((step, error): &(String, Error)) -> bool {
    step == "wait for ready" && error.kind() == ErrorKind::Timeout
}

/// Keeps the screen of a guest that does not answer beside the results, and gives the file's name. It is as the
/// hypervisor gives it.
async fn keep_screen(environment: &Environment, results: &Path) -> Option<PathBuf> {
    let screen = environment.sandbox().screenshot()?;
    let kept = async {
        let picture = tokio::time::timeout(SCREEN, screen.take())
            .await
            .unwrap_or_else(|_| Err(Error::timeout("the last screen", SCREEN)))?;
        let ending = match picture.mime_type.as_str() {
            "image/png" => "png",
            _ => "ppm",
        };
        let name = PathBuf::from(format!("last-screen.{ending}"));
        let file = results.join(&name);
        folder::blocking(move || {
            std::fs::write(&file, picture.bytes).map_err(|error| {
                Error::io("the last screen cannot be kept", error).subject(file.display())
            })
        })
        .await
        .map(|()| name)
    };
    kept.await
        .inspect_err(|error: &Error| tracing::info!("there is no last screen: {}", error.chain()))
        .ok()
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) fn since_1970(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// What `seectl ls` says of the run.
fn note(settled: &Settled) -> String {
    let file = settled.run_file.display();
    match &settled.sample {
        Some(sample) => format!("{file}, sample {}", sample.display()),
        None => file.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_at_the_host_that_failed_is_named_and_one_without_the_right_to_it_is_not() {
        let looked = [
            Looked::clear("its processes"),
            Looked::clear("its logs").denied("it is root's"),
            Looked::clear("the domain").failed("no answer"),
        ];
        let known = "it is not known whether the domain is gone: no answer";
        assert_eq!(not_known(&looked), [known]);
    }
}

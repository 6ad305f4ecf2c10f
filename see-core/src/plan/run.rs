//! One run, from its results folder to its result.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::task::JoinHandle;

use super::kept::{keep_log, keep_screen};
use super::outcome::{RunHeader, RunResult, SampleResult, StepResult, Verdict};
use super::{CheckedRun, RunPlan, artifacts, folder, sample};
use crate::ledger::{Looked, Trail};
use crate::{
    AllocateOptions, Context, Environment, Error, ErrorKind, ErrorReport, Event, Host, Identifier,
    ImageProgress, IsolationVerdict, Prepared, Protocol, Result, RunLimits, RunReport, Stop,
};

/// How a run is done.
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Ends the run in order when it is asked for: its verdict is [`Verdict::Interrupted`] then.
    pub stop: Stop,
    /// How long the machine stays on the host after the run, as it is then; a run that was stopped keeps nothing.
    pub keep: Option<Duration>,
    /// Where it is told how far the fetch of images is.
    pub progress: ImageProgress,
}

/// What happens while a run goes on.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum RunUpdate {
    /// It begins.
    Begin(Box<RunHeader>),
    /// A step around the protocol begins: `allocate`, `teardown`.
    Started(&'static str),
    /// It ended.
    Ended(StepResult),
    /// An event of the environment; the protocol's steps among them, as `step_started` and `step_finished`.
    Event(Event),
}

impl Host {
    /// Does a run that was checked, tears everything down again, and writes `result.json` into its results folder.
    ///
    /// `watch` is called with everything that happens, by the thread on which it happens: it must not wait.
    ///
    /// # Errors
    /// Where the results folder cannot be made; everything later is part of the result.
    pub async fn run(
        &self,
        run: CheckedRun,
        options: RunOptions,
        watch: impl Fn(RunUpdate) + Send + Sync + 'static,
    ) -> Result<RunResult> {
        let results = run.results();
        folder::make(results.clone()).await?;
        let once = Once {
            host: self,
            watch: Arc::new(watch),
            header: header(&run.plan, run.identifier, results),
            protocol: run.protocol,
            options,
            notes: run.notes,
        };
        Ok(once.run(run.prepared).await)
    }
}

impl RunPlan {
    /// The result of this plan where it could not be run: with a folder and a `result.json` of its own, as if its run
    /// had failed. For one of several runs that does not stop the others.
    pub async fn refused(&self, host: &Host, error: &Error) -> RunResult {
        let identifier = Identifier::random();
        let settled = self.settle(host.registries()).ok();
        let root = settled.map(|settled| settled.results_root);
        let root = root.unwrap_or_else(|| self.results_beside());
        let header = header(self, identifier, root.join(identifier.to_string()));
        let mut gathered = Gathered::new();
        gathered.verdict = Verdict::of_error(error);
        gathered.fail_with(None, error);
        let mut result = gathered.result(header, self.notes(host.registries()));
        let written = match folder::make(result.header.results.clone()).await {
            Ok(()) => folder::write(&result).await,
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            result.mishaps.push(error.chain());
        }
        result
    }
}

fn header(plan: &RunPlan, identifier: Identifier, results: PathBuf) -> RunHeader {
    RunHeader {
        version: RunHeader::VERSION,
        identifier,
        run_file: plan.file.clone(),
        sample: plan.sample.clone(),
        command: plan.command.clone(),
        results,
        started: since_1970(SystemTime::now()),
    }
}

/// One run.
struct Once<'a> {
    host: &'a Host,
    watch: Arc<dyn Fn(RunUpdate) + Send + Sync>,
    header: RunHeader,
    protocol: Protocol,
    options: RunOptions,
    notes: Vec<String>,
}

/// What is gathered while a run goes on.
struct Gathered {
    began: Instant,
    steps: Vec<StepResult>,
    verdict: Verdict,
    failure: Option<String>,
    errors: Vec<ErrorReport>,
    never_answered: bool,
    last_screen: Option<PathBuf>,
    sample: Option<SampleResult>,
    isolation: IsolationVerdict,
    teardown_errors: Vec<String>,
    kept_until: Option<SystemTime>,
    mishaps: Vec<String>,
    trail: Trail,
}

impl Gathered {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            steps: Vec::new(),
            verdict: Verdict::Ok,
            failure: None,
            errors: Vec::new(),
            never_answered: false,
            last_screen: None,
            sample: None,
            isolation: IsolationVerdict::NoWalls,
            teardown_errors: Vec::new(),
            kept_until: None,
            mishaps: Vec::new(),
            trail: Trail::new(),
        }
    }

    /// Notes what ended the run early: in a step, or around them.
    fn fail_with(&mut self, step: Option<&str>, error: &Error) {
        let chain = error.chain();
        self.errors = ErrorReport::of(error);
        self.failure = Some(match step {
            Some(step) if !chain.starts_with(&format!("{step}: ")) => format!("{step}: {chain}"),
            _ => chain,
        });
    }

    fn result(self, header: RunHeader, notes: Vec<String>) -> RunResult {
        RunResult {
            header,
            seconds: self.began.elapsed().as_secs_f64(),
            verdict: self.verdict,
            exit_code: self.verdict.exit_code(),
            failure: self.failure,
            errors: self.errors,
            never_answered: self.never_answered,
            last_screen: self.last_screen,
            sample_result: self.sample,
            isolation: self.isolation,
            steps: self.steps,
            artifacts: Vec::new(),
            more_artifacts: 0,
            teardown_errors: self.teardown_errors,
            left_behind: Vec::new(),
            looked_for: Vec::new(),
            kept_until: self.kept_until.map(since_1970),
            mishaps: self.mishaps,
            notes,
        }
    }
}

impl Once<'_> {
    async fn run(&self, prepared: Prepared) -> RunResult {
        (self.watch)(RunUpdate::Begin(Box::new(self.header.clone())));
        let mut gathered = Gathered::new();
        self.allocate_and_run(prepared, &mut gathered).await;
        let (mut looked_for, mut left_behind) = (Vec::new(), Vec::new());
        if gathered.kept_until.is_none() {
            looked_for = self.host.look(&gathered.trail).await;
            left_behind = self.left_behind(&looked_for).await;
        }
        gathered.teardown_errors.extend(not_known(&looked_for));
        let clean = gathered.teardown_errors.is_empty() && left_behind.is_empty();
        if !clean && gathered.verdict != Verdict::Interrupted {
            gathered.verdict = Verdict::SandboxFailed;
        }
        let results = self.header.results.clone();
        let listing = folder::blocking(move || Ok(artifacts::list(&results))).await;
        let mut result = gathered.result(self.header.clone(), self.notes.clone());
        (result.artifacts, result.more_artifacts) = listing.unwrap_or_default();
        result.left_behind = left_behind;
        result.looked_for = looked_for;
        if let Err(error) = folder::write(&result).await {
            if result.verdict != Verdict::Interrupted {
                result.verdict = Verdict::SandboxFailed;
                result.exit_code = result.verdict.exit_code();
            }
            let failure = error.chain();
            result.errors.extend(ErrorReport::of(&error));
            result.failure.get_or_insert_with(|| failure.clone());
            result.mishaps.push(failure);
        }
        result
    }

    fn is_interrupted(&self) -> bool {
        self.options.stop.is_stopped()
    }

    async fn allocate_and_run(&self, prepared: Prepared, gathered: &mut Gathered) {
        // Whatever became of it since the others began: it is this run's failure alone.
        if let Some(sample) = self.header.sample.clone()
            && let Err(error) = folder::blocking(move || sample::check(&sample)).await
        {
            return self.fail(gathered, &error);
        }
        let limits = RunLimits::new(&prepared.limits, Some(self.header.results.clone()));
        let options = AllocateOptions {
            identifier: Some(self.header.identifier),
            note: note(&self.header),
            progress: self.options.progress.clone(),
            trail: gathered.trail.clone(),
            ..AllocateOptions::default()
        };
        // One of its own: an environment's end stops what it was given, and other runs may follow.
        let (stop, asked) = (Stop::new(), self.options.stop.token());
        let stopping = stop.clone();
        let forwarder = AbortOnDrop(tokio::spawn(async move {
            asked.stopped().await;
            stopping.stop();
        }));
        let allocating = self.host.allocate(prepared, options, stop);
        let allocated = self.step("allocate", gathered, allocating).await;
        let mut environment = match allocated {
            Ok(environment) => environment,
            Err(error) => return self.fail(gathered, &error),
        };
        let watching = self.watch(&mut environment);
        let protocol_began = gathered.began.elapsed();
        let report = environment.run(&self.protocol, &limits).await;
        if let Ok(report) = &report
            && report.failure.as_ref().is_some_and(is_silence)
        {
            gathered.never_answered = true;
            gathered.last_screen = keep_screen(&environment, &self.header.results).await;
        }
        match report {
            Ok(report) => self.take_in(gathered, report, protocol_began),
            Err(error) => self.fail(gathered, &error),
        }
        if matches!(
            gathered.verdict,
            Verdict::SandboxFailed | Verdict::MissingRights
        ) {
            let kept = keep_log(&environment, &self.header.results).await;
            if let (Some(failure), Some(kept)) = (&mut gathered.failure, kept) {
                failure.push_str("; ");
                failure.push_str(&kept);
            }
        }
        let kept_until = self.keep_until();
        let began = gathered.began.elapsed();
        (self.watch)(RunUpdate::Started("teardown"));
        let teardown = match kept_until {
            None => environment.deallocate().await,
            Some(until) => environment.keep(until).await,
        };
        gathered.kept_until = kept_until.filter(|_| teardown.kept);
        gathered.teardown_errors = teardown.errors.iter().map(Error::chain).collect();
        let error = gathered.teardown_errors.first().cloned();
        self.ended("teardown", began, error, gathered);
        drop(forwarder);
        if let Some(failure) = watching.bus().hook_failure() {
            gathered.verdict = gathered.verdict.with_failed_hook();
            let error = Error::new(ErrorKind::Hook, format!("hook {failure}"));
            gathered.errors.extend(ErrorReport::of(&error));
            gathered.failure.get_or_insert_with(|| error.chain());
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
        let keep = self.options.keep.filter(|_| !self.is_interrupted())?;
        SystemTime::now().checked_add(keep)
    }

    /// Tells every event of the environment.
    fn watch(&self, environment: &mut Environment) -> Context {
        let context = environment.context("seectl");
        let watch = Arc::clone(&self.watch);
        context.observe(move |event: &Event| watch(RunUpdate::Event(event.clone())));
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
        (self.watch)(RunUpdate::Started(name));
        let done = work.await;
        let error = done.as_ref().err().map(Error::chain);
        self.ended(name, began, error, gathered);
        done
    }

    fn ended(
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
        (self.watch)(RunUpdate::Ended(step.clone()));
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
        if let Some((step, error)) = &report.failure {
            gathered.fail_with(Some(step), error);
        }
        if self.is_interrupted() {
            gathered.verdict = Verdict::Interrupted;
        }
    }

    fn fail(&self, gathered: &mut Gathered, error: &Error) {
        gathered.verdict = match self.is_interrupted() {
            true => Verdict::Interrupted,
            false => Verdict::of_error(error),
        };
        gathered.fail_with(None, error);
    }

    /// What of this run was found on the host, or else what the ledger still names.
    async fn left_behind(&self, looked_for: &[Looked]) -> Vec<String> {
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
            .filter(|listed| listed.identifier == self.header.identifier);
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

/// Whether a step failed since the guest never answered.
fn is_silence((step, error): &(String, Error)) -> bool {
    step == "wait for ready" && error.kind() == ErrorKind::Timeout
}

/// A task that ends with its owner.
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn since_1970(time: SystemTime) -> f64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// What the ledger says of the run.
fn note(header: &RunHeader) -> String {
    let file = header.run_file.as_deref().map(Path::display);
    let file = file.map_or_else(|| String::from("a program's run"), |file| file.to_string());
    match &header.sample {
        Some(sample) => format!("{file}, sample {}", sample.display()),
        None => file,
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

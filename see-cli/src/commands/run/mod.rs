//! `seectl run`: one run, or one for each sample of a folder.

mod samples;

use std::collections::BTreeMap;
use std::path::PathBuf;

use indicatif::MultiProgress;
use see_core::config::Configuration;
use see_core::ledger::{Collectors, Ledger, RecordOutcome};
use see_core::{
    CheckedRun, Error, ErrorKind, ErrorReport, Host, ImageProgress, Registries, Result, RunOptions,
    RunPlan, RunResult, RunUpdate, Verdict,
};

use crate::args::RunArguments;
use crate::commands::progress::Forwarder;
use crate::log;
use crate::render::{Feed, Screen, Update};
use crate::signals::Signals;

/// How long what is left may take at the end of the process.
const FINISH: std::time::Duration = std::time::Duration::from_secs(30);

/// How long a run may take to remove what dead ones left, before it begins.
const TIDY: std::time::Duration = std::time::Duration::from_secs(5);

/// Runs, shows what happens, and returns the exit code.
///
/// # Errors
/// Where something failed before a run began: nothing was made.
pub(crate) async fn run(
    arguments: &RunArguments,
    is_verbose: bool,
    registries: Registries,
    progress: MultiProgress,
) -> Result<u8> {
    let (screen, feed) = Screen::start(arguments.output, is_verbose, progress)?;
    let notes = feed.clone();
    let signals = Signals::listen(move |name| {
        notes.offer(Update::Interrupted(format!(
            "{name}: the run is ended in order; once more to leave at once"
        )));
    })?;
    let outcome = all(arguments, registries, &feed, &signals).await;
    let outcome = match (outcome, signals.exit_code()) {
        // Whoever interrupts knows why nothing came of it.
        (Err(error), Some(code)) if error.kind() == ErrorKind::Stopped => Ok(code),
        (outcome, _) => outcome,
    };
    if let Err(error) = &outcome {
        feed.send(Update::Failed(ErrorReport::of(error))).await;
    }
    signals.silence();
    drop(feed);
    screen.finish().await;
    outcome
}

async fn all(
    arguments: &RunArguments,
    registries: Registries,
    feed: &Feed,
    signals: &Signals,
) -> Result<u8> {
    let samples = samples::of(arguments.sample.as_deref())?;
    let several = samples.len() > 1;
    let plan = plan(arguments)?;
    // Every run is checked before the first one begins, and before there is a ledger.
    let Checked { mut ready, refused } = check(&plan, &samples, &registries, signals).await?;
    for note in plan.notes(&registries) {
        feed.send(Update::Note(note)).await;
    }
    let ledger = Ledger::open(Ledger::default_root()?).await?;
    if !arguments.no_gc {
        let tidying = tidy(&ledger, &registries.collectors, feed);
        signals.stop().token().or("tidy", tidying).await?;
    }
    let host = Host::new(registries, ledger)?;
    let machine = Update::Machine {
        words: machine(plan.configuration()),
        runs: samples.len(),
    };
    feed.send(machine).await;
    let once = Once {
        host: &host,
        feed,
        signals,
        keep: arguments.keep,
    };
    let mut results: Vec<RunResult> = Vec::new();
    let (mut failed, mut tried) = (None, 0);
    for (index, sample) in samples.iter().enumerate() {
        tried = index + 1;
        let plan = of_sample(&plan, sample);
        let first = ready.take_if(|(first, _)| *first == index);
        let ran = match refused.get(&index) {
            Some(error) => Ok(once.refused(&plan, error).await),
            None => match once.next(&plan, first.map(|(_, checked)| checked)).await {
                Err(error) if several && error.kind() != ErrorKind::Stopped => {
                    Ok(once.refused(&plan, &error).await)
                }
                ran => ran,
            },
        };
        match ran {
            Ok(result) => results.push(result),
            Err(error) => {
                // It did not begin.
                tried = index;
                failed = Some(error);
            }
        }
        if failed.is_some() || signals.exit_code().is_some() {
            break;
        }
    }
    if let Err(error) = host.finish(FINISH).await {
        tracing::error!("{}", error.chain());
    }
    let verdict = Verdict::gravest(results.iter().map(|result| result.verdict));
    if several {
        let not_run = samples.into_iter().skip(tried).flatten().collect();
        feed.send(Update::Summary { results, not_run }).await;
    }
    if let Some(error) = failed {
        return Err(error);
    }
    Ok(signals.exit_code().unwrap_or(verdict.exit_code()))
}

/// What the command line asks for.
fn plan(arguments: &RunArguments) -> Result<RunPlan> {
    let mut plan = RunPlan::from_file(&arguments.run_file)?;
    for assignment in &arguments.set {
        plan = plan.with_assignment(assignment)?;
    }
    if let Some(backend) = &arguments.backend {
        plan = plan.with_backend(backend)?;
    }
    if let Some(command) = &arguments.command {
        plan = plan.with_command(command);
    }
    if let Some(runtime) = &arguments.runtime {
        plan = plan.with_runtime(runtime);
    }
    if let Some(results) = &arguments.results {
        plan = plan.with_results(results);
    }
    Ok(plan)
}

fn of_sample(plan: &RunPlan, sample: &Option<PathBuf>) -> RunPlan {
    match sample {
        Some(sample) => plan.clone().with_sample(sample),
        None => plan.clone(),
    }
}

/// The machine in a few words that follow what runs in it: its image, and what is unusual.
fn machine(configuration: &Configuration) -> String {
    let find = |keys: &[&str]| {
        keys.iter()
            .try_fold(configuration, |node, key| node.get(key))
    };
    let text = |key| find(&["context", "disk", "image", key]).and_then(Configuration::as_str);
    let image = text("name").or_else(|| text("uri").map(without_secrets));
    let image = image.or_else(|| find(&["context", "disk", "image"])?.as_str());
    let image = image.map(|image| image.rsplit('/').next().unwrap_or(image));
    let mut words = match image {
        Some(image) => format!(" in {image}"),
        None => String::new(),
    };
    if log::guests_are_emulated() {
        words.push_str(", emulated (no KVM)");
    }
    let mode = find(&["context", "network", "mode"]).and_then(Configuration::as_str);
    if let Some(mode) = mode {
        words.push_str(&format!(", network {mode}"));
    }
    words
}

/// A URL without what may be a secret: its query, its fragment, its user and password.
fn without_secrets(url: &str) -> &str {
    let url = url.split(['?', '#']).next().unwrap_or(url);
    url.rsplit('@').next().unwrap_or(url)
}

/// What runs have in common.
struct Once<'a> {
    host: &'a Host,
    feed: &'a Feed,
    signals: &'a Signals,
    /// How long machines stay after their run.
    keep: Option<std::time::Duration>,
}

impl Once<'_> {
    /// Runs what is checked already, or checks it first, and shows it.
    ///
    /// # Errors
    /// What is wrong with it, and where its results folder cannot be made.
    async fn next(&self, plan: &RunPlan, ready: Option<CheckedRun>) -> Result<RunResult> {
        let checked = match ready {
            Some(ready) => ready,
            None => {
                let checking = plan.check(self.host.registries());
                self.signals.stop().token().or("check", checking).await??
            }
        };
        let before = self.feed.not_shown();
        let options = RunOptions {
            stop: self.signals.stop().clone(),
            keep: self.keep,
            progress: ImageProgress::new(),
        };
        let progress = Forwarder::start(&options.progress, self.feed.clone());
        let feed = self.feed.clone();
        let watch = move |update: RunUpdate| feed.offer(Update::Run(update));
        let ran = self.host.run(checked, options, watch).await;
        progress.finish().await;
        let result = ran?;
        self.feed
            .send(Update::Finished(Box::new(result.clone())))
            .await;
        match self.feed.not_shown() - before {
            0 => {}
            count => {
                let told = format!("{count} events came faster than they could be shown");
                self.feed.send(Update::Note(told)).await;
            }
        }
        Ok(result)
    }

    /// Tells of a sample that cannot be run, and why, as of one whose run failed: the others go on.
    async fn refused(&self, plan: &RunPlan, error: &Error) -> RunResult {
        let result = plan.refused(self.host, error).await;
        let begin = RunUpdate::Begin(Box::new(result.header.clone()));
        self.feed.send(Update::Run(begin)).await;
        self.feed
            .send(Update::Finished(Box::new(result.clone())))
            .await;
        result
    }
}

/// What came of checking each sample.
struct Checked {
    /// The first one that may run, by its place among the samples; the others are prepared anew when their turn comes:
    /// a large folder holds nothing meanwhile.
    ready: Option<(usize, CheckedRun)>,
    /// Those that cannot be run.
    refused: BTreeMap<usize, Error>,
}

/// Checks the runs of all samples; nothing is made.
///
/// # Errors
/// Where no sample can be run, or no second one for the same reason before one can: then it is the run file's.
async fn check(
    plan: &RunPlan,
    samples: &[Option<PathBuf>],
    registries: &Registries,
    signals: &Signals,
) -> Result<Checked> {
    let mut checked = Checked {
        ready: None,
        refused: BTreeMap::new(),
    };
    for (index, sample) in samples.iter().enumerate() {
        let plan = of_sample(plan, sample);
        let checking = plan.check(registries);
        match signals.stop().token().or("check", checking).await? {
            Ok(run) => {
                checked.ready.get_or_insert((index, run));
            }
            Err(error) => {
                let mut refused = checked.refused.values();
                let is_known = refused.any(|known| known.chain() == error.chain());
                let is_last = checked.refused.len() + 1 == samples.len();
                if checked.ready.is_none() && (is_known || is_last) {
                    return Err(error);
                }
                checked.refused.insert(index, error);
            }
        }
    }
    Ok(checked)
}

/// Removes what dead owners left, before something new is made. It neither fails the run nor holds it for
/// long: what is not done by then is found by the next one.
async fn tidy(ledger: &Ledger, collectors: &Collectors, feed: &Feed) {
    let report = match ledger.tidy(collectors, TIDY).await {
        Ok(Some(report)) => report,
        // Somebody else is at it.
        Ok(None) => return,
        Err(error) => return tracing::warn!("what dead runs left stays: {}", error.chain()),
    };
    let count = |wanted: fn(&RecordOutcome) -> bool| {
        let outcomes = report.records.iter().map(|record| &record.outcome);
        outcomes.filter(|outcome| wanted(outcome)).count()
    };
    let removed = count(|outcome| matches!(outcome, RecordOutcome::Collected));
    let left = count(|outcome| matches!(outcome, RecordOutcome::Left | RecordOutcome::Broken(_)));
    if removed > 0 {
        let words = format!("removed first what dead runs left: {removed} environments");
        feed.offer(Update::Note(words));
    }
    if left > 0 {
        let words = format!("{left} dead environments could not be removed: `seectl gc` says why");
        feed.offer(Update::Note(words));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_an_image_and_no_secret_of_its_address() {
        let named = |image: &str| {
            let text = format!(r#"{{ "context": {{ "disk": {{ "image": {image} }} }} }}"#);
            machine(&Configuration::from_str("run.json", &text).expect("it is JSON"))
        };
        for image in [
            r#""/srv/guest.qcow2""#,
            r#"{ "provider": "http", "uri": "https://a:b@host/x/guest.qcow2?X-Amz-Signature=c/d#e" }"#,
            r#"{ "provider": "glance", "name": "guest.qcow2" }"#,
        ] {
            assert_eq!(named(image), " in guest.qcow2", "{image}");
        }
        assert_eq!(named(r#"{ "uri": "https://a:b@host" }"#), " in host");
    }
}

//! `seectl run`: one run, or one for each sample of a folder.

mod artifacts;
mod folder;
mod guest_commands;
mod notes;
mod once;
mod plan;
mod samples;

use indicatif::MultiProgress;
use see_core::ledger::{Collectors, Ledger, RecordOutcome};
use see_core::{ErrorKind, Host, Registries, Result};

use crate::args::RunArguments;
use crate::outcome::{RunResult, Verdict};
use crate::render::{Feed, Screen, Update, failure};
use crate::signals::Signals;

use once::Once;
use plan::Plan;

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
    registries: Registries,
    progress: MultiProgress,
) -> Result<u8> {
    let (screen, feed) = Screen::start(arguments.output, progress)?;
    let notes = feed.clone();
    let signals = Signals::listen(move |name| {
        notes.offer(Update::Note(format!(
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
        feed.send(Update::Failed(failure(error))).await;
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
    let plan = Plan::read(arguments)?;
    // Every run is checked before the first one begins, and before there is a ledger.
    let mut prepared = Vec::with_capacity(1);
    for sample in &samples {
        let settled = plan.settle(sample.as_deref(), &registries)?;
        let checking = settled.check(&registries);
        let checked = signals.stop().token().or("check", checking).await??;
        // The others are prepared anew when their turn comes: a large folder holds nothing meanwhile.
        if prepared.is_empty() {
            prepared.push((settled, checked));
        }
    }
    let notes = plan.notes(&registries);
    for note in &notes {
        feed.send(Update::Note(note.clone())).await;
    }
    let ledger = Ledger::open(Ledger::default_root()?).await?;
    if !arguments.no_gc {
        let tidying = tidy(&ledger, &registries.collectors, feed);
        signals.stop().token().or("tidy", tidying).await?;
    }
    let host = Host::new(registries, ledger)?;
    let once = Once {
        host: &host,
        feed,
        signals,
        keep: arguments.keep,
        notes,
    };
    let mut results: Vec<RunResult> = Vec::new();
    let mut failed = None;
    for sample in &samples {
        let first = prepared.pop();
        match once.next(&plan, sample.as_deref(), first).await {
            Ok(result) => results.push(result),
            Err(error) => failed = Some(error),
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
        feed.send(Update::Summary(results)).await;
    }
    if let Some(error) = failed {
        return Err(error);
    }
    Ok(verdict.exit_code(signals.exit_code()))
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

//! `seectl run`: one run, or one for each sample of a folder.

mod artifacts;
mod folder;
mod guest_commands;
mod notes;
mod once;
mod plan;
mod refused;
mod samples;

use std::collections::BTreeMap;
use std::path::PathBuf;

use indicatif::MultiProgress;
use see_core::ledger::{Collectors, Ledger, RecordOutcome};
use see_core::{Error, ErrorKind, Host, Prepared, Registries, Result};

use crate::args::RunArguments;
use crate::outcome::{RunResult, Verdict};
use crate::render::{Feed, Screen, Update, failure};
use crate::signals::Signals;

use once::Once;
use plan::{Plan, Settled};

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
    let Checked { mut ready, refused } = check(&plan, &samples, &registries, signals).await?;
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
    let machine = Update::Machine {
        words: plan.machine(),
        runs: samples.len(),
    };
    feed.send(machine).await;
    let mut results: Vec<RunResult> = Vec::new();
    let (mut failed, mut tried) = (None, 0);
    for (index, sample) in samples.iter().enumerate() {
        tried = index + 1;
        let sample = sample.as_deref();
        let first = ready.take_if(|(first, ..)| *first == index);
        let first = first.map(|(_, settled, checked)| (settled, checked));
        let ran = match refused.get(&index) {
            Some(error) => Err(error),
            None => Ok(once.next(&plan, sample, first).await),
        };
        match ran {
            Ok(Ok(result)) => results.push(result),
            Ok(Err(error)) if !several || error.kind() == ErrorKind::Stopped => {
                failed = Some(error)
            }
            Ok(Err(error)) => results.push(once.refused(&plan, sample, &error).await),
            Err(error) => results.push(once.refused(&plan, sample, error).await),
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
    Ok(verdict.exit_code(signals.exit_code()))
}

/// What came of checking each sample.
struct Checked {
    /// The first one that may run, by its place among the samples; the others are prepared anew when their turn comes:
    /// a large folder holds nothing meanwhile.
    ready: Option<(usize, Settled, Prepared)>,
    /// Those that cannot be run.
    refused: BTreeMap<usize, Error>,
}

/// Checks the runs of all samples; nothing is made.
///
/// # Errors
/// Where no sample can be run, or no second one for the same reason before one can: then it is the run file's.
async fn check(
    plan: &Plan,
    samples: &[Option<PathBuf>],
    registries: &Registries,
    signals: &Signals,
) -> Result<Checked> {
    let mut checked = Checked {
        ready: None,
        refused: BTreeMap::new(),
    };
    for (index, sample) in samples.iter().enumerate() {
        let checking = async {
            let settled = plan.settle(sample.as_deref(), registries)?;
            let prepared = settled.check(registries).await?;
            Ok::<_, Error>((settled, prepared))
        };
        match signals.stop().token().or("check", checking).await? {
            Ok((settled, prepared)) => {
                checked.ready.get_or_insert((index, settled, prepared));
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

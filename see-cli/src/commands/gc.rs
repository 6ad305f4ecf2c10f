//! `seectl gc`: removes what dead owners left.

use std::time::SystemTime;

use see_core::ledger::{
    CollectOptions, Ledger, Outcome, RecordOutcome, RecordReport, Report, Resource,
};
use see_core::{Registries, Result};
use serde_json::json;

use super::ls::{find, print};
use crate::args::{GcArguments, Output};
use crate::exit_code;
use crate::render::{age, escape_line};

/// Collects, says what was done, and returns the exit code.
///
/// # Errors
/// Where the ledger cannot be read, or has no such environment.
pub(crate) async fn gc(arguments: &GcArguments, registries: &Registries) -> Result<u8> {
    let ledger = Ledger::open(Ledger::default_root()?).await?;
    let only = match &arguments.identifier {
        Some(beginning) => Some(find(&ledger.list().await?, beginning)?),
        None => None,
    };
    let options = CollectOptions {
        dry_run: arguments.dry_run,
        older_than: arguments.older_than.unwrap_or_default(),
        only,
        include_kept: arguments.include_kept,
        ..CollectOptions::default()
    };
    let report = ledger.collect(&registries.collectors, options).await?;
    let text = match arguments.output {
        Output::Text => in_words(&report),
        Output::Json => as_json(&report),
    };
    print(&text)?;
    Ok(match report.is_clean() {
        true => exit_code::OK,
        false => exit_code::LEFT_BEHIND,
    })
}

fn in_words(report: &Report) -> String {
    let mut text = String::new();
    let mut line = |indent: &str, words: &str| {
        text.push_str(indent);
        text.push_str(&escape_line(words));
        text.push('\n');
    };
    for record in &report.records {
        line("", &record_words(record, report.dry_run));
        for (resource, outcome) in &record.resources {
            line("    ", &resource_words(resource, outcome, report.dry_run));
        }
    }
    for problem in &report.problems {
        line("", &problem.chain());
    }
    for path in &report.foreign {
        line("", &format!("{}: no record, left alone", path.display()));
    }
    let touched = report
        .records
        .iter()
        .any(|record| !matches!(record.outcome, RecordOutcome::Alive));
    if !touched && report.problems.is_empty() {
        line("", "nothing to remove");
    }
    text
}

fn record_words(record: &RecordReport, dry_run: bool) -> String {
    let outcome = match &record.outcome {
        RecordOutcome::Collected if dry_run => String::from("would be removed"),
        RecordOutcome::Collected => String::from("removed"),
        RecordOutcome::Left => String::from("not everything could be removed"),
        RecordOutcome::Alive => String::from("alive: left alone"),
        RecordOutcome::Kept(until) => {
            let left = until.duration_since(SystemTime::now()).unwrap_or_default();
            format!("to be kept for {}: left alone", age(left))
        }
        RecordOutcome::Young(young) => format!("only {} old: left alone", age(*young)),
        RecordOutcome::Postponed => String::from("out of time: left for later"),
        RecordOutcome::Broken(error) => format!("broken: {}", error.chain()),
        _ => String::from("unknown"),
    };
    format!("{}  {outcome}", record.identifier)
}

fn resource_words(resource: &Resource, outcome: &Outcome, dry_run: bool) -> String {
    let name = match resource.path() {
        Some(path) => format!("{} {}", resource.kind, path.display()),
        None => format!("{} {}", resource.kind, resource.name),
    };
    let outcome = match outcome {
        Outcome::Removed if dry_run => String::from("would be removed"),
        Outcome::Removed => String::from("removed"),
        Outcome::AlreadyGone => String::from("was gone already"),
        Outcome::Refused(reason) => format!("refused: {reason}"),
        Outcome::Failed(error) => format!("failed: {}", error.chain()),
        Outcome::Waiting => String::from("waits for what could not be removed"),
        _ => String::from("unknown"),
    };
    format!("{name}: {outcome}")
}

fn as_json(report: &Report) -> String {
    let mut text: String = report.records.iter().map(record_json).collect();
    for problem in &report.problems {
        text.push_str(&format!("{}\n", json!({ "problem": problem.chain() })));
    }
    for path in &report.foreign {
        text.push_str(&format!(
            "{}\n",
            json!({ "foreign": path.display().to_string() })
        ));
    }
    text
}

fn record_json(record: &RecordReport) -> String {
    let (outcome, error) = match &record.outcome {
        RecordOutcome::Collected => ("collected", None),
        RecordOutcome::Left => ("left", None),
        RecordOutcome::Alive => ("alive", None),
        RecordOutcome::Kept(_) => ("kept", None),
        RecordOutcome::Young(_) => ("young", None),
        RecordOutcome::Postponed => ("postponed", None),
        RecordOutcome::Broken(error) => ("broken", Some(error.chain())),
        _ => ("unknown", None),
    };
    let resources: Vec<_> = record
        .resources
        .iter()
        .map(|(resource, outcome)| {
            let (outcome, reason) = match outcome {
                Outcome::Removed => ("removed", None),
                Outcome::AlreadyGone => ("already_gone", None),
                Outcome::Refused(reason) => ("refused", Some(reason.clone())),
                Outcome::Failed(error) => ("failed", Some(error.chain())),
                Outcome::Waiting => ("waiting", None),
                _ => ("unknown", None),
            };
            json!({ "resource": resource, "outcome": outcome, "reason": reason })
        })
        .collect();
    let object = json!({
        "identifier": record.identifier,
        "outcome": outcome,
        "error": error,
        "resources": resources,
    });
    format!("{object}\n")
}

//! What the suites have in common: checks that run one after the other, each on a bench of its own.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinError;

use super::report::{Outcome, Report, Stumble, Verdict};
use crate::fault::Injected;
use crate::sync::died;
use crate::{Error, Result};

/// One check under way.
pub(super) type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One check of a suite, and the bench that it takes place on.
pub(super) struct Check<B> {
    pub(super) name: &'static str,
    pub(super) fact: &'static str,
    pub(super) start: fn(Arc<B>) -> Running,
}

/// Every check of a suite, in the order in which they run: its name, the fact that it shows, and what shows it.
macro_rules! checks {
    ($($name:literal, $fact:literal, $show:path;)*) => {
        &[$(crate::testing::suite::Check {
            name: $name,
            fact: $fact,
            start: |bench| Box::pin($show(bench)),
        }),*]
    };
}

pub(super) use checks;

/// Where a candidate is tried.
pub(super) trait Bench: Sized + Send + Sync + 'static {
    /// What is tried.
    type Candidate: ?Sized + Send + Sync;

    /// A bench that no check was on yet.
    fn new(candidate: Arc<Self::Candidate>) -> Outcome<Self>;

    /// Clears up after a check, whatever it came to; fails where something is left of it.
    fn finish(self: Arc<Self>) -> impl Future<Output = Outcome<()>> + Send;
}

/// Runs those checks whose names `wanted` takes; one that fails stops none of the others.
pub(super) async fn run<B: Bench>(
    candidate: Arc<B::Candidate>,
    checks: &[Check<B>],
    wanted: impl Fn(&str) -> bool,
) -> Report {
    let mut report = Report::default();
    for check in checks.iter().filter(|check| wanted(check.name)) {
        let verdict = match one(&candidate, check).await {
            Ok(notes) => Verdict::Passed(notes),
            Err(Stumble::Failed(why)) => Verdict::Failed(why),
            Err(Stumble::NotApplicable(why)) => Verdict::NotApplicable(why),
        };
        report.add(check.name, check.fact, verdict);
    }
    report
}

async fn one<B: Bench>(candidate: &Arc<B::Candidate>, check: &Check<B>) -> Outcome {
    let bench = Arc::new(B::new(Arc::clone(candidate))?);
    // In a task of its own: a candidate that panics fails this check and no other.
    let outcome = match tokio::spawn((check.start)(Arc::clone(&bench))).await {
        Ok(outcome) => outcome,
        Err(failed) => Err(Stumble::from(died(failed))),
    };
    let finished = bench.finish().await;
    let notes = outcome?;
    finished.map(|()| notes)
}

/// Waits for a step, up to the candidate's patience.
pub(super) async fn within<T>(
    patience: Duration,
    what: impl std::fmt::Display,
    step: impl Future<Output = T>,
) -> Outcome<T> {
    tokio::time::timeout(patience, step)
        .await
        .map_err(|_| Stumble::Failed(format!("{what} did not end within {patience:.0?}")))
}

/// What came of a task of the candidate's; a panic that the suite did not inject fails the check.
pub(super) fn survived<T>(
    who: &str,
    ended: std::result::Result<Result<T>, JoinError>,
) -> Outcome<Result<T>> {
    let failed = match ended {
        Ok(outcome) => return Ok(outcome),
        Err(failed) => failed,
    };
    match failed.try_into_panic() {
        Ok(panic) if panic.is::<Injected>() => Ok(Err(Error::stopped("the injected panic"))),
        Ok(panic) => {
            let message = crate::sync::panic_message(&*panic);
            Err(Stumble::Failed(format!("{who} panicked: {message}")))
        }
        Err(failed) => Ok(Err(died(failed))),
    }
}

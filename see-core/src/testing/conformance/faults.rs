//! Allocations that core cuts short at every point that they pass.

use std::sync::Arc;

use tokio::sync::Notify;

use super::bench::Bench;
use crate::fault::Point;
use crate::fault::{Act, Faults};
use crate::testing::report::{Outcome, Stumble, ensure};

use crate::{AllocateOptions, Error, Host, Identifier, Stop};

/// More points than any allocation has.
const ENDLESS: u32 = 10_000;

pub(super) async fn failing(bench: Arc<Bench>) -> Outcome {
    let went_on = || "the ledger refused to write, and the allocation went on".to_owned();
    let act = |_: &Stop| Act::Fail;
    let passed = each(&bench, act, |faults, failed| {
        // What is gone is gone, also when that cannot be written down.
        let matters = matches!(faults.struck(), Some(Point::Intend | Point::Created));
        ensure(failed || !matters, went_on)
    })
    .await?;
    ensure(passed > 0, || {
        "an allocation writes nothing into the ledger".to_owned()
    })?;
    Ok(format!("{passed} writes"))
}

pub(super) async fn panicking(bench: Arc<Bench>) -> Outcome {
    let passed = each(&bench, |_| Act::Panic, |_, _| Ok(())).await?;
    Ok(format!("{passed} points"))
}

pub(super) async fn stopped(bench: Arc<Bench>) -> Outcome {
    let mut looks = 0;
    let passed = each(
        &bench,
        |stop| Act::Stop(stop.asked()),
        |faults, failed| {
            let (looked, told) = faults.looks();
            looks = looks.max(looked);
            ensure(failed || told == 0, || {
                "the allocation looked at its stop, which was asked for, and went on".to_owned()
            })
        },
    )
    .await?;
    ensure(looks > 0, || {
        "the allocation never looks at its stop".to_owned()
    })?;
    Ok(format!("{passed} points, {looks} looks"))
}

/// Allocates with a fault at the first point, at the second, and so on, until one is not reached any more.
/// Returns how many there were.
async fn each(
    bench: &Bench,
    act: impl Fn(&Stop) -> Act,
    mut right: impl FnMut(&Faults, bool) -> Outcome<()>,
) -> Outcome<u32> {
    for at in 1..ENDLESS {
        let during = |stumble: Stumble| stumble.during(format!("at point {at}"));
        let stop = Stop::new();
        let faults = Faults::new(act(&stop), at);
        faults.arm(true);
        let attempt = bench.attempt(Identifier::random(), stop, &faults).await;
        faults.arm(false);
        let attempt = attempt.map_err(during)?;
        let failed = attempt.outcome.is_err();
        let struck = faults.struck().is_some();
        if failed && !struck {
            let error = attempt
                .outcome
                .err()
                .unwrap_or_else(|| Error::stopped("allocate"));
            return Err(Stumble::from(error).during("an allocation without a fault"));
        }
        let judged = right(&faults, failed);
        attempt.end(bench).await.map_err(during)?;
        judged.map_err(during)?;
        if !struck {
            return Ok(at - 1);
        }
    }
    Err(Stumble::Failed(format!(
        "an allocation has {ENDLESS} points"
    )))
}

pub(super) async fn dropped(bench: Arc<Bench>) -> Outcome {
    for at in 1..ENDLESS {
        let reached = Arc::new(Notify::new());
        let faults = Faults::new(Act::Tell(Arc::clone(&reached)), at);
        let prepared = bench.prepared().await?;
        let ledger = bench.ledger.with_faults(faults.clone());
        let host = Host::new(bench.candidate.registries()?, ledger)?;
        let stop = Stop::new().with_faults(faults.clone());
        let identifier = Identifier::random();
        let options = AllocateOptions {
            identifier: Some(identifier),
            ..AllocateOptions::default()
        };
        faults.arm(true);
        let allocation = host.allocate(prepared, options, stop);
        let whole = bench
            .within("allocate", async {
                tokio::select! {
                    biased;
                    () = reached.notified() => None,
                    done = allocation => Some(done),
                }
            })
            .await?;
        faults.arm(false);
        if let Some(whole) = whole {
            // It was as good as done when the point was reached.
            let teardown = whole?.deallocate().await;
            ensure(teardown.is_clean(), || format!("{:?}", teardown.errors))?;
        }
        let during = |stumble: Stumble| stumble.during(format!("dropped at point {at}"));
        let finished = host.finish(bench.candidate.patience()).await;
        finished.map_err(Stumble::from).map_err(during)?;
        bench.nothing_left(identifier).await.map_err(during)?;
        let records = bench.ledger.list().await?;
        ensure(records.is_empty(), || "its record is left".to_owned()).map_err(during)?;
        if faults.struck().is_none() {
            return Ok(format!("{} points", at - 1));
        }
    }
    Err(Stumble::Failed(format!(
        "an allocation has {ENDLESS} points"
    )))
}

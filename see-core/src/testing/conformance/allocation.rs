//! Several environments at once, and those whose owner died.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::bench::{Bench, stands};
use super::lifecycle::change;
use crate::ledger::CollectOptions;
use crate::testing::report::{Outcome, ensure};
use crate::{SandboxState, Transition};

pub(super) async fn in_parallel(bench: Arc<Bench>) -> Outcome {
    let count = bench.candidate.parallel().max(2);
    let allocating = (0..count).map(|_| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move {
            let mut environment = bench.environment().await?;
            let on = change(&bench, &mut environment, Transition::Poweron);
            bench.within("poweron", on).await??;
            Outcome::Ok(environment)
        })
    });
    let mut environments = Vec::new();
    for allocated in allocating.collect::<Vec<_>>() {
        environments.push(allocated.await.map_err(crate::sync::died)??);
    }
    let names: BTreeSet<_> = environments
        .iter()
        .map(|environment| environment.machine().identifier().to_string())
        .collect();
    ensure(names.len() == count, || {
        format!("{count} sandboxes have {} identifiers", names.len())
    })?;
    // One goes, and the others stay as they are.
    if let Some(first) = environments.pop() {
        bench.end(first).await?;
    }
    for environment in &environments {
        stands(environment.machine(), SandboxState::Running)
            .await
            .map_err(|stumble| stumble.during("after a neighbour's end"))?;
    }
    let ending = environments.into_iter().map(|environment| {
        let bench = Arc::clone(&bench);
        tokio::spawn(async move { bench.end(environment).await })
    });
    for ended in ending.collect::<Vec<_>>() {
        ended.await.map_err(crate::sync::died)??;
    }
    Ok(format!("{count} at once"))
}

pub(super) async fn of_a_dead_owner(bench: Arc<Bench>) -> Outcome {
    let (machine, attempt) = bench.whole().await?;
    bench
        .within("start", machine.act(Transition::Poweron))
        .await??;
    // The owner forgets it, as if it had been killed: its record stays, and nobody holds it any more.
    let held = attempt.record.close().await?;
    drop(machine);
    let identifier = attempt.identifier;
    drop(attempt);
    ensure(!held.is_empty(), || {
        "a machine runs of which the ledger holds nothing".to_owned()
    })?;
    let options = CollectOptions {
        only: Some(identifier),
        deadline: bench.candidate.patience(),
        ..CollectOptions::default()
    };
    let report = bench.ledger.collect(&bench.collectors, options).await?;
    ensure(report.is_clean(), || format!("{:?}", report.records))?;
    bench.nothing_left(identifier).await?;
    Ok(format!("{} resources", held.len()))
}

//! The end of a machine.

use std::sync::Arc;

use super::bench::Bench;
use crate::fault::{Act, Faults};
use crate::testing::report::{Outcome, Stumble, ensure};

use crate::{Identifier, Stop, Transition};

pub(super) async fn of_a_running_machine(bench: Arc<Bench>) -> Outcome {
    let (machine, attempt) = bench.whole().await?;
    let on = machine.act(Transition::Poweron);
    bench.within("start", on).await??;
    bench.end_of(&machine, &attempt.record).await?;
    Ok(String::new())
}

pub(super) async fn interrupted(bench: Arc<Bench>) -> Outcome {
    let mut at = 1;
    loop {
        let during = |stumble: Stumble| stumble.during(format!("interrupted at point {at}"));
        let faults = Faults::new(Act::Fail, at);
        let attempt = bench
            .attempt(Identifier::random(), Stop::new(), &faults)
            .await?;
        let Ok(machine) = &attempt.outcome else {
            return attempt
                .outcome
                .map(|_| String::new())
                .map_err(Stumble::from);
        };
        faults.arm(true);
        // Whether the fault is an error of the release is the backend's choice: what is gone is gone.
        let _ = bench.within("release", machine.release()).await?;
        let removal = (attempt.record).collect(&bench.collectors, bench.candidate.patience());
        bench.within("the removal", removal).await??;
        faults.arm(false);
        // This does all of it again.
        attempt.end(&bench).await.map_err(during)?;
        if faults.struck().is_none() {
            return Ok(format!("{} points", at - 1));
        }
        at += 1;
    }
}

pub(super) async fn of_a_dead_machine(bench: Arc<Bench>) -> Outcome {
    let (machine, attempt) = bench.whole().await?;
    bench
        .within("start", machine.act(Transition::Poweron))
        .await??;
    let killed = bench
        .within("the kill", bench.candidate.kill(&machine))
        .await?;
    let Some(killed) = killed else {
        bench.end_of(&machine, &attempt.record).await?;
        let why = "the candidate kills nothing";
        return Err(Stumble::NotApplicable(why.to_owned()));
    };
    killed.map_err(|error| Stumble::from(error).during("kill the machine"))?;
    let noticed = bench
        .until(|| async { machine.state().await.is_ok_and(|state| state.is_off()) })
        .await;
    bench.end_of(&machine, &attempt.record).await?;
    ensure(noticed, || {
        "the machine was killed, and its state never became shut off or crashed".to_owned()
    })?;
    Ok(String::new())
}

//! What a backend tells of its machines without being asked.

use std::sync::Arc;

use super::bench::Bench;
use super::candidate::GuestAct;
use super::lifecycle::{change, heard};
use crate::sync::lock;
use crate::testing::report::{Outcome, Stumble, ensure};
use crate::{Changes, ErrorKind, Machine, SandboxChange, SandboxState, Transition};

pub(super) async fn the_hosts_changes(bench: Arc<Bench>) -> Outcome {
    let (machine, attempt) = bench.whole().await?;
    let followed = follow(&bench, &machine).await;
    bench.end_of(&machine, &attempt.record).await?;
    followed
}

async fn follow(bench: &Bench, machine: &Machine) -> Outcome {
    let mut watchers = [machine.watch(), machine.watch()];
    // Somebody who asked and never reads stops nobody.
    let _idle = machine.watch();
    let way = [
        Transition::Poweron,
        Transition::Pause,
        Transition::Resume,
        Transition::Poweroff,
    ];
    let mut told = Vec::new();
    for transition in way {
        if transition.check(machine.state().await?).is_err() {
            continue;
        }
        let step = machine.act(transition);
        match bench.within(transition.name(), step).await? {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Unsupported => continue,
            Err(error) => return Err(Stumble::from(error).during(transition)),
        }
        let wanted = transition.leads_to();
        for watcher in &mut watchers {
            let news = bench.within(
                format!("the news that it is {wanted}"),
                hear(watcher, wanted),
            );
            news.await??;
        }
        told.push(wanted.to_string());
    }
    Ok(format!("told: {}", told.join(", ")))
}

async fn hear(watcher: &mut Changes, wanted: SandboxState) -> Outcome<()> {
    while let Some(change) = watcher.recv().await {
        if change == SandboxChange::State(wanted) || change == SandboxChange::Missed {
            return Ok(());
        }
    }
    Err(Stumble::Failed(format!(
        "the news ended before it was told that the machine is {wanted}"
    )))
}

pub(super) async fn the_guests_changes(bench: Arc<Bench>) -> Outcome {
    let mut environment = bench.environment().await?;
    let events = heard(&mut environment);
    let mut provoked = Vec::new();
    for act in GuestAct::ALL {
        if environment.machine().state().await?.is_off() {
            let on = change(&bench, &mut environment, Transition::Poweron);
            bench.within("poweron", on).await??;
        }
        lock(&events).clear();
        let machine = environment.machine().clone();
        let Some(done) = bench
            .within("the guest's act", bench.candidate.provoke(&machine, act))
            .await?
        else {
            continue;
        };
        done.map_err(|error| Stumble::from(error).during(format!("provoke {act:?}")))?;
        let came = bench
            .until(|| async { lock(&events).iter().any(|name| name == act.event()) })
            .await;
        ensure(came, || {
            let told = lock(&events).join(", ");
            format!(
                "the guest did {act:?}, and {} was not posted, but: {told}",
                act.event()
            )
        })?;
        // A machine that crashed may be on its way from shutting down to off.
        let is_as_told = bench
            .until(|| async {
                let state = machine.state().await;
                state.is_ok_and(|state| state.is_off() == (act != GuestAct::Reboot))
            })
            .await;
        let state = machine.state().await?;
        ensure(is_as_told, || {
            format!("the guest did {act:?}, and the machine is {state}")
        })?;
        provoked.push(act.event());
    }
    bench.end(environment).await?;
    if provoked.is_empty() {
        let why = "the candidate provokes nothing in its guest";
        return Err(Stumble::NotApplicable(why.to_owned()));
    }
    Ok(provoked.join(", "))
}

//! Power that is cut soon: what is told of it, and what a start leaves that does not come to its end.

use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::bench::{Bench, stands};
use crate::testing::report::{Outcome, Stumble, ensure};
use crate::{Changes, Machine, SandboxChange, SandboxState, Transition};

/// How often the power is cut of a machine that runs: what a hypervisor tells wrongly of one in twenty is told
/// wrongly here more often than not.
const CUTS: usize = 20;

/// After how long a start is cut off: from before its first step to after its last.
const CUT_AFTER: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(20),
    Duration::from_millis(80),
    Duration::from_millis(320),
];

pub(super) async fn cut_and_told(bench: Arc<Bench>) -> Outcome {
    let (machine, attempt) = bench.whole().await?;
    let told = cut_again_and_again(&bench, &machine).await;
    bench.end_of(&machine, &attempt.record).await?;
    told.map(|()| format!("{CUTS} times"))
}

async fn cut_again_and_again(bench: &Bench, machine: &Machine) -> Outcome<()> {
    let mut news = machine.watch();
    for cut in 1..=CUTS {
        let during = |stumble: Stumble| stumble.during(format!("cut {cut}"));
        bench
            .within("start", machine.act(Transition::Poweron))
            .await??;
        bench
            .within("destroy", machine.act(Transition::Poweroff))
            .await??;
        stands(machine, SandboxState::Shutoff)
            .await
            .map_err(during)?;
        told_off(bench, &mut news, true).await.map_err(during)?;
    }
    Ok(())
}

/// Waits for the news that a machine is off which was destroyed, where it was on or is told so; a crash is none.
async fn told_off(bench: &Bench, news: &mut Changes, mut on: bool) -> Outcome<()> {
    loop {
        while let Some(change) = news.try_recv() {
            no_crash(change)?;
            on = change == SandboxChange::State(SandboxState::Running);
        }
        if !on {
            return Ok(());
        }
        let change = bench.within("the news that it is off", news.recv()).await?;
        let Some(change) = change else {
            let why = "the news ended before it was told that the machine is off";
            return Err(Stumble::Failed(why.to_owned()));
        };
        no_crash(change)?;
        on = !matches!(
            change,
            SandboxChange::State(SandboxState::Shutoff) | SandboxChange::Missed
        );
    }
}

fn no_crash(change: SandboxChange) -> Outcome<()> {
    ensure(
        change != SandboxChange::State(SandboxState::Crashed),
        || "its power was cut, and it is told as crashed".to_owned(),
    )
}

pub(super) async fn start_interrupted(bench: Arc<Bench>) -> Outcome {
    let mut left = Vec::new();
    for after in CUT_AFTER {
        let during = |stumble: Stumble| stumble.during(format!("cut off after {after:?}"));
        let stood = dropped(&bench, after).await.map_err(during)?;
        left.push(stood.to_string());
        overtaken(&bench, after, |machine| async move {
            machine.act(Transition::Poweroff).await
        })
        .await
        .map_err(|stumble| during(stumble.during("destroyed meanwhile")))?;
        overtaken(
            &bench,
            after,
            |machine| async move { machine.release().await },
        )
        .await
        .map_err(|stumble| during(stumble.during("released meanwhile")))?;
    }
    left.dedup();
    Ok(format!("left {}", left.join(", ")))
}

/// Drops a start under way: the machine is on or off, is told so, and obeys.
async fn dropped(bench: &Bench, after: Duration) -> Outcome<SandboxState> {
    let (machine, attempt) = bench.whole().await?;
    let mut news = machine.watch();
    begun(&mut Box::pin(machine.act(Transition::Poweron)), after).await;
    // Behind what goes on of the start, whatever that is: a machine that is on goes on to be so.
    let stood = settled(bench, &machine).await?;
    bench
        .within("destroy", machine.act(Transition::Poweroff))
        .await??;
    stands(&machine, SandboxState::Shutoff).await?;
    told_off(bench, &mut news, stood == SandboxState::Running).await?;
    bench.end_of(&machine, &attempt.record).await?;
    Ok(stood)
}

/// Does something else to the machine while it starts: both come to an end, and the machine can be released.
async fn overtaken<F, Fut>(bench: &Bench, after: Duration, act: F) -> Outcome<()>
where
    F: FnOnce(Machine) -> Fut,
    Fut: Future<Output = crate::Result<()>>,
{
    let (machine, attempt) = bench.whole().await?;
    let mut news = machine.watch();
    let mut start = Box::pin(machine.act(Transition::Poweron));
    let started = begun(&mut start, after).await;
    let both = async {
        let rest = async {
            match started {
                Some(outcome) => outcome,
                None => start.await,
            }
        };
        tokio::join!(rest, act(machine.clone()))
    };
    // Whether a start that was cut off fails is the backend's choice.
    let (_, acted) = bench.within("a start and what cuts it off", both).await?;
    acted?;
    bench.within("release", machine.release()).await??;
    while let Some(change) = news.try_recv() {
        no_crash(change)?;
    }
    bench.settle(&attempt.record).await
}

/// Lets a start go on for this long; what came of it, where it is done by then.
async fn begun<F: Future + Unpin>(start: &mut F, after: Duration) -> Option<F::Output> {
    let first = std::future::poll_fn(|context| {
        Poll::Ready(match std::pin::Pin::new(&mut *start).poll(context) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        })
    });
    match first.await {
        None if after > Duration::ZERO => tokio::time::timeout(after, start).await.ok(),
        done => done,
    }
}

/// The state of a machine that is on its way to be on or off, once it is either. A start that has not begun yet
/// leaves it off, and may go on behind this look.
async fn settled(bench: &Bench, machine: &Machine) -> Outcome<SandboxState> {
    let is_settled =
        |state: &SandboxState| matches!(state, SandboxState::Running | SandboxState::Shutoff);
    let look = || async { machine.state().await.ok().filter(is_settled) };
    if let Some(state) = bench.first(look).await {
        return Ok(state);
    }
    let state = machine.state().await?;
    Err(Stumble::Failed(format!(
        "the machine is {state}, and neither on nor off"
    )))
}

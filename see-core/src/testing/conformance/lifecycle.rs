//! The machine's states, and the one table of transitions.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::bench::{Bench, stands};
use crate::sync::lock;
use crate::testing::report::{Outcome, Stumble, ensure};
use crate::{Environment, ErrorKind, Machine, SandboxState, Transition};

/// How long a guest without an operating system is waited for before its power is cut.
const DEAF: Duration = Duration::from_millis(500);

/// Every transition, from every state that the host can bring about; the power is cut of running machines by
/// other checks, too.
const WAY: [Transition; 8] = [
    Transition::Poweron,
    Transition::Pause,
    Transition::Resume,
    Transition::Restart,
    Transition::Shutdown,
    Transition::Poweron,
    Transition::Pause,
    Transition::Poweroff,
];

pub(super) async fn every_legal_transition(bench: Arc<Bench>) -> Outcome {
    let mut environment = bench.environment().await?;
    stands(environment.machine(), SandboxState::Shutoff)
        .await
        .map_err(|stumble| stumble.during("after the allocation"))?;
    let events = heard(&mut environment);
    let mut unsupported: Vec<&str> = Vec::new();
    for transition in WAY {
        let before = environment.machine().state().await?;
        if transition.check(before).is_err() {
            // What would have led there is not supported.
            continue;
        }
        lock(&events).clear();
        let changed = bench.within(
            transition.name(),
            change(&bench, &mut environment, transition),
        );
        let wanted = match changed.await? {
            Ok(()) => transition.leads_to(),
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                unsupported.push(transition.name());
                before
            }
            Err(error) => return Err(Stumble::from(error).during(transition)),
        };
        let supported =
            wanted == transition.leads_to() && !unsupported.contains(&transition.name());
        stands(environment.machine(), wanted)
            .await
            .map_err(|stumble| stumble.during(format!("after {transition}")))?;
        let (pre, post) = transition.events();
        let told = lock(&events).clone();
        let right = told.contains(&pre.to_owned()) && told.contains(&post.to_owned()) == supported;
        ensure(right, || format!("{transition} triggered {told:?}"))?;
    }
    let must: Vec<&str> = [Transition::Poweron, Transition::Poweroff]
        .into_iter()
        .map(Transition::name)
        .filter(|name| unsupported.contains(name))
        .collect();
    ensure(must.is_empty(), || {
        format!("{} must be supported", must.join(" and "))
    })?;
    // A machine that is off already is no error, by the trait's word.
    let machine = environment.machine().clone();
    bench
        .within("destroy", machine.act(Transition::Poweroff))
        .await?
        .map_err(|error| Stumble::from(error).during("destroy a machine that is off"))?;
    bench.end(environment).await?;
    unsupported.sort_unstable();
    unsupported.dedup();
    Ok(match unsupported.as_slice() {
        [] => String::new(),
        names => format!("refused as unsupported: {}", names.join(", ")),
    })
}

pub(super) async fn every_illegal_transition(bench: Arc<Bench>) -> Outcome {
    let mut environment = bench.environment().await?;
    let events = heard(&mut environment);
    let mut states = Vec::new();
    for way in [None, Some(Transition::Poweron), Some(Transition::Pause)] {
        if let Some(transition) = way {
            let changed = change(&bench, &mut environment, transition);
            match bench.within(transition.name(), changed).await? {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Unsupported => continue,
                Err(error) => return Err(Stumble::from(error).during(transition)),
            }
        }
        let state = environment.machine().state().await?;
        for transition in Transition::ALL {
            if transition.check(state).is_ok() {
                continue;
            }
            lock(&events).clear();
            let changed = change(&bench, &mut environment, transition);
            let refused = bench.within(transition.name(), changed).await?;
            let kind = refused.as_ref().err().map(crate::Error::kind);
            ensure(kind == Some(ErrorKind::IllegalTransition), || {
                format!("{transition} of a machine that is {state}: {refused:?}")
            })?;
            stands(environment.machine(), state)
                .await
                .map_err(|stumble| stumble.during(format!("after the refused {transition}")))?;
            let told = lock(&events).clone();
            ensure(told.is_empty(), || {
                format!("the refused {transition} triggered {told:?}")
            })?;
        }
        if state == SandboxState::Running {
            asked_again(&bench, environment.machine()).await?;
        }
        states.push(state.to_string());
    }
    bench.end(environment).await?;
    Ok(format!("tried while {}", states.join(", ")))
}

/// Asks a running machine itself to start and to go on, past core's table: it may refuse that, and runs on as before.
async fn asked_again(bench: &Bench, machine: &Machine) -> Outcome<()> {
    // Whether that is an error is the backend's choice.
    let _ = bench
        .within("start", machine.act(Transition::Poweron))
        .await?;
    stands(machine, SandboxState::Running)
        .await
        .map_err(|stumble| stumble.during("after a start of a machine that runs"))?;
    let _ = bench
        .within("resume", machine.act(Transition::Resume))
        .await?;
    stands(machine, SandboxState::Running)
        .await
        .map_err(|stumble| stumble.during("after a resume of a machine that runs"))
}

/// The names of the events from now on.
pub(super) fn heard(environment: &mut Environment) -> Arc<Mutex<Vec<String>>> {
    let events: Arc<Mutex<Vec<String>>> = Arc::default();
    let told = Arc::clone(&events);
    environment
        .context("conformance")
        .observe(move |event| lock(&told).push(event.name().to_owned()));
    events
}

pub(super) async fn change(
    bench: &Bench,
    environment: &mut Environment,
    transition: Transition,
) -> crate::Result<()> {
    let obeys = bench.candidate.obeys_shutdown();
    let machine = environment.machine().clone();
    if transition == Transition::Shutdown
        && obeys
        && machine.state().await? == SandboxState::Running
    {
        // A guest that is not up yet cannot obey.
        bench.candidate.settle(&machine).await?;
    }
    let mut turn = environment.turn().await?;
    if transition != Transition::Shutdown {
        return turn.change(transition, []).await;
    }
    let patience = if obeys {
        bench.candidate.patience() / 2
    } else {
        DEAF
    };
    let shutdown = turn.shutdown(patience).await?;
    if shutdown.forced && obeys {
        return Err(crate::Error::timeout("the guest to shut down", patience));
    }
    Ok(())
}

use tokio::time::{Instant, timeout};

use super::*;
use crate::config::DurationValue;
use crate::ledger::Ledger;
use crate::testing::{FakeBackend, FakeConfiguration, FakeControl, Fault, FaultAt};
use crate::{Allocation, Backend, Stop};

/// Longer than any of these tests takes.
const LONG: Duration = Duration::from_secs(300);
/// Shorter than what stalls.
const MOMENT: Duration = Duration::from_millis(100);

/// A machine whose start stalls this long, and whose driver has this much time.
async fn stalling(stall: Duration, limit: Duration) -> (tempfile::TempDir, Machine, FakeControl) {
    let folder = tempfile::TempDir::new().unwrap();
    let ledger = Ledger::open(folder.path().join("ledger")).await.unwrap();
    let record = ledger.begin(Identifier::random(), "test").await.unwrap();
    let stop = Stop::new();
    let allocation = Allocation::new(record, stop.token());
    let fake = FakeConfiguration {
        stall: Some(DurationValue(stall)),
        ..FakeConfiguration::new(folder.path()).fault(FaultAt::Start, Fault::Stall)
    };
    let driver = FakeBackend::new(fake).allocate(&allocation).await.unwrap();
    let machine = Machine::new(
        allocation.identifier,
        driver,
        allocation.changes.clone(),
        Handle::current(),
        limit,
    );
    let control = FakeControl::of(&machine).unwrap();
    (folder, machine, control)
}

async fn state(machine: &Machine) -> SandboxState {
    machine.state().await.unwrap()
}

#[tokio::test]
async fn an_action_goes_on_when_nobody_waits_for_it_and_the_next_one_waits_for_its_end() {
    let (_folder, machine, _control) = stalling(Duration::from_secs(1), LONG).await;
    let mut changes = machine.watch();
    let start = timeout(MOMENT, machine.act(Transition::Poweron)).await;
    start.expect_err("it stalls");
    machine.act(Transition::Pause).await.unwrap();
    for state in [SandboxState::Running, SandboxState::Paused] {
        assert_eq!(changes.try_recv(), Some(SandboxChange::State(state)));
    }
}

#[tokio::test]
async fn a_driver_that_does_not_answer_is_waited_for_as_long_as_the_limit() {
    let (_folder, machine, control) = stalling(LONG, MOMENT).await;
    control.set_fault(FaultAt::State, Some(Fault::Stall));
    let begin = Instant::now();
    for error in [
        machine.act(Transition::Poweron).await.unwrap_err(),
        machine.act(Transition::Pause).await.unwrap_err(),
        machine.state().await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    }
    assert!(begin.elapsed() < LONG / 2, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_cut_of_the_power_overtakes_what_hangs() {
    let (_folder, machine, control) = stalling(LONG, LONG).await;
    control.guest_becomes(SandboxState::Running);
    let start = timeout(MOMENT, machine.act(Transition::Poweron)).await;
    start.expect_err("it stalls");
    let begin = Instant::now();
    machine.act(Transition::Poweroff).await.unwrap();
    assert!(begin.elapsed() < LONG / 2, "{:?}", begin.elapsed());
    assert_eq!(state(&machine).await, SandboxState::Shutoff);
}

#[tokio::test]
async fn a_start_that_was_overtaken_before_it_reached_the_hypervisor_leaves_the_machine_off() {
    let (_folder, machine, _control) = stalling(OVERTAKES + OVERTAKES / 2, LONG).await;
    let mut changes = machine.watch();
    let start = timeout(MOMENT, machine.act(Transition::Poweron)).await;
    start.expect_err("it stalls");
    machine.act(Transition::Poweroff).await.unwrap();
    assert_eq!(state(&machine).await, SandboxState::Shutoff);
    let told = std::iter::from_fn(|| changes.try_recv());
    let states = [
        SandboxState::Shutoff,
        SandboxState::Running,
        SandboxState::Shutoff,
    ];
    assert_eq!(Vec::from_iter(told), states.map(SandboxChange::State));
}

#[tokio::test]
async fn a_start_that_was_overtaken_leaves_the_machine_off_also_where_its_state_is_not_known() {
    let (_folder, machine, control) = stalling(OVERTAKES + OVERTAKES / 2, LONG).await;
    let start = timeout(MOMENT, machine.act(Transition::Poweron)).await;
    start.expect_err("it stalls");
    control.set_fault(FaultAt::State, Some(Fault::Fail));
    machine.act(Transition::Poweroff).await.unwrap();
    control.set_fault(FaultAt::State, None);
    assert_eq!(state(&machine).await, SandboxState::Shutoff);
}

#[tokio::test]
async fn a_driver_that_panics_is_an_error_and_delays_nobody() {
    let (_folder, machine, control) = stalling(LONG, LONG).await;
    control.set_fault(FaultAt::Start, Some(Fault::Panic));
    let error = machine.act(Transition::Poweron).await.unwrap_err();
    assert_eq!(error.operation(), Some("poweron"), "{error}");
    control.set_fault(FaultAt::Start, None);
    machine.act(Transition::Poweron).await.unwrap();
    assert_eq!(state(&machine).await, SandboxState::Running);
}

#[tokio::test]
async fn a_release_comes_once_and_nothing_is_done_or_told_after_it() {
    let (_folder, machine, control) = stalling(LONG, LONG).await;
    let mut changes = machine.watch();
    let (one, other) = tokio::join!(machine.release(), machine.release());
    one.and(other).unwrap();
    machine.release().await.unwrap();
    let calls = control.calls();
    let releases = calls.iter().filter(|at| **at == FaultAt::Release).count();
    assert_eq!(releases, 1);
    for transition in Transition::ALL {
        let error = machine.act(transition).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{transition}");
    }
    control.guest_reboots();
    assert_eq!(changes.recv().await, None);
}

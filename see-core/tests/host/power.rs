//! Changes of power: the events they fire, what is refused, and what the guest does itself.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{TestHost, environment, until};
use crate::environment::allocate;
use see_core::config::DurationValue;
use see_core::testing::{FakeConfiguration, FakeControl, Fault, FaultAt};
use see_core::{ErrorKind, SandboxState, Transition};
use tokio::sync::Notify;

#[tokio::test]
async fn power_changes_fire_events_before_and_after_and_carry_attributes() {
    let (_host, mut environment) = environment().await;
    let context = environment.context("test");
    let log: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&log);
    context.observe(move |event| {
        let why = event.get("why").and_then(|why| why.as_str()).unwrap_or("-");
        heard
            .lock()
            .unwrap()
            .push(format!("{} {why}", event.name()));
    });
    let mut turn = environment.turn().await.unwrap();
    turn.change(Transition::Poweron, [("why".into(), "test".into())])
        .await
        .unwrap();
    turn.pause().await.unwrap();
    turn.resume().await.unwrap();
    assert!(!turn.shutdown(Duration::from_secs(5)).await.unwrap().forced);
    drop(turn);
    let expected = [
        "pre_poweron test",
        "post_poweron test",
        "pre_pause -",
        "post_pause -",
        "pre_resume -",
        "post_resume -",
        "pre_shutdown -",
        "post_shutdown -",
    ];
    assert_eq!(*log.lock().unwrap(), expected);
    environment.deallocate().await;
}

#[tokio::test]
async fn transitions_that_the_table_does_not_allow_are_refused_and_fire_nothing() {
    let (_host, mut environment) = environment().await;
    let control = FakeControl::of(environment.machine()).unwrap();
    let context = environment.context("test");
    let fired = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&fired);
    context.observe(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
    });
    for state in SandboxState::ALL {
        for transition in Transition::ALL {
            if transition.allowed_in().contains(&state) {
                continue;
            }
            control.guest_becomes(state);
            fired.store(0, Ordering::Relaxed);
            let mut turn = environment.turn().await.unwrap();
            let error = turn.change(transition, []).await.unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::IllegalTransition,
                "{transition} when {state}"
            );
            assert_eq!(
                fired.load(Ordering::Relaxed),
                0,
                "{transition} when {state}"
            );
        }
    }
    environment.deallocate().await;
}

#[tokio::test]
async fn a_shutdown_that_the_guest_ignores_ends_forced_at_its_deadline() {
    let host = TestHost::new();
    let fake = FakeConfiguration {
        deaf: true,
        ..host.fake()
    };
    let mut environment = allocate(&host, fake).await.unwrap();
    let context = environment.context("test");
    let forced: Arc<Mutex<Option<bool>>> = Arc::default();
    let heard = Arc::clone(&forced);
    context.subscribe("post_shutdown", move |event| {
        *heard.lock().unwrap() = event.get("forced").and_then(|forced| forced.as_bool());
    });
    let mut turn = environment.turn().await.unwrap();
    turn.poweron().await.unwrap();
    assert!(
        turn.shutdown(Duration::from_millis(100))
            .await
            .unwrap()
            .forced
    );
    drop(turn);
    assert_eq!(*forced.lock().unwrap(), Some(true));
    assert_eq!(
        environment.machine().state().await.unwrap(),
        SandboxState::Shutoff
    );
    environment.deallocate().await;
}

#[tokio::test]
async fn a_hypervisor_that_does_not_answer_a_shutdown_in_time_is_told_to_cut_the_power() {
    for hangs_at in [FaultAt::State, FaultAt::Shutdown] {
        let host = TestHost::new();
        let fake = FakeConfiguration {
            stall: Some(DurationValue(Duration::from_secs(2))),
            ..host.fake()
        };
        let mut environment = allocate(&host, fake).await.unwrap();
        let context = environment.context("test");
        let told: Arc<Mutex<Option<String>>> = Arc::default();
        let heard = Arc::clone(&told);
        context.subscribe("post_shutdown", move |event| {
            let message = event.get("message").and_then(|message| message.as_str());
            *heard.lock().unwrap() = message.map(str::to_owned);
        });
        let sandbox = environment.machine().clone();
        let control = FakeControl::of(&sandbox).unwrap();
        let mut turn = environment.turn().await.unwrap();
        turn.poweron().await.unwrap();
        // It answers after two seconds, and the guest would obey then.
        control.set_fault(hangs_at, Some(Fault::Stall));
        let shutdown = turn.shutdown(Duration::from_millis(200)).await.unwrap();
        assert!(shutdown.forced, "{hangs_at:?}");
        drop(turn);
        let told = told.lock().unwrap().take().unwrap();
        assert!(told.contains("200.0ms for the hypervisor"), "{told}");
        control.set_fault(hangs_at, None);
        assert_eq!(sandbox.state().await.unwrap(), SandboxState::Shutoff);
        environment.deallocate().await;
    }
}

#[tokio::test]
async fn a_guest_that_ends_or_suspends_itself_fires_an_event_and_ends_waits() {
    for (state, name) in [
        (SandboxState::Shutoff, "guest_poweroff"),
        (SandboxState::Crashed, "guest_crash"),
        (SandboxState::Suspended, "guest_suspend"),
    ] {
        let (_host, mut environment) = environment().await;
        let control = FakeControl::of(environment.machine()).unwrap();
        let context = environment.context("test");
        let heard = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&heard);
        context.subscribe(name, move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let mut turn = environment.turn().await.unwrap();
        turn.poweron().await.unwrap();
        let mut ear = turn.listen("never");
        control.guest_becomes(state);
        let error = turn
            .wait(&mut ear, Duration::from_secs(30))
            .await
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Guest, "{error}");
        drop((ear, turn));
        until("the event is handled", || {
            heard.load(Ordering::Relaxed) == 1
        })
        .await;
        environment.deallocate().await;
    }
}

#[tokio::test]
async fn a_guest_that_wakes_up_again_can_be_waited_for_again() {
    let (_host, mut environment) = environment().await;
    let control = FakeControl::of(environment.machine()).unwrap();
    let mut turn = environment.turn().await.unwrap();
    turn.poweron().await.unwrap();
    let (mut never, mut wakeup) = (turn.listen("never"), turn.listen("guest_wakeup"));
    control.guest_becomes(SandboxState::Suspended);
    let error = turn.wait(&mut never, Duration::from_secs(30)).await;
    let error = error.unwrap_err();
    assert!(error.message().contains("suspended itself"), "{error}");
    // What the guest's own clock wakes.
    control.guest_becomes(SandboxState::Running);
    let woken = async {
        while turn
            .wait(&mut wakeup, Duration::from_secs(30))
            .await
            .is_err()
        {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), woken)
        .await
        .unwrap();
    let error = turn.wait(&mut never, Duration::from_millis(10)).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Timeout);
    drop((never, wakeup, turn));
    environment.deallocate().await;
}

#[tokio::test]
async fn our_own_power_changes_are_not_taken_for_the_guests() {
    let (_host, mut environment) = environment().await;
    let context = environment.context("test");
    let heard = Arc::new(AtomicUsize::new(0));
    for name in ["guest_poweroff", "guest_crash", "guest_reboot"] {
        let counter = Arc::clone(&heard);
        context.subscribe(name, move |_| {
            counter.fetch_add(1, Ordering::Relaxed);
        });
    }
    let marked = Arc::new(AtomicUsize::new(0));
    let marker = Arc::clone(&marked);
    context.subscribe("mark", move |_| {
        marker.fetch_add(1, Ordering::Relaxed);
    });
    let mut turn = environment.turn().await.unwrap();
    turn.poweron().await.unwrap();
    turn.restart().await.unwrap();
    turn.poweroff().await.unwrap();
    turn.poweron().await.unwrap();
    turn.shutdown(Duration::from_secs(5)).await.unwrap();
    drop(turn);
    // What was posted before this mark is handled before it.
    context.post("mark").unwrap();
    until("the mark is handled", || {
        marked.load(Ordering::Relaxed) == 1
    })
    .await;
    assert_eq!(heard.load(Ordering::Relaxed), 0);
    environment.deallocate().await;
}

#[tokio::test]
async fn a_stop_ends_a_wait_and_cancels_the_handler_that_runs() {
    let (host, mut environment) = environment().await;
    let context = environment.context("test");
    let runs = Arc::new(Notify::new());
    let begun = Arc::clone(&runs);
    context.subscribe_serial(
        "stuck",
        crate::common::serial(move |_, _| {
            begun.notify_one();
            Box::pin(std::future::pending())
        }),
    );
    let stopper = environment.stopper();
    let stopping = tokio::spawn(async move {
        runs.notified().await;
        stopper.stop();
    });
    let mut turn = environment.turn().await.unwrap();
    turn.trigger("stuck").await.unwrap();
    let mut ear = turn.listen("never");
    let error = turn
        .wait(&mut ear, Duration::from_secs(60))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
    drop((ear, turn));
    stopping.await.unwrap();
    assert!(environment.deallocate().await.is_clean());
    assert_eq!(host.left(), 0);
}

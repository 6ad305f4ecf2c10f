//! The walls around a run's guest, as the run sees them.

use std::time::Duration;

use see_core::config::Configuration;
use see_core::testing::{FakeControl, Fault, FaultAt};
use see_core::{
    AllocateOptions, Closed, Context, Environment, Error, ErrorKind, Event, ISOLATION_BROKEN,
    ISOLATION_NOT_CHECKED, ISOLATION_PROVEN, IsolationVerdict, Protocol, RunLimits, RunReport,
    SandboxState, Stop, Target,
};

use serde_json::json;

use crate::common::{self, TestHost, prepared, serial};

/// Longer than any of these runs takes unless it hangs.
const LONG: Duration = Duration::from_secs(120);

async fn walled() -> (TestHost, Environment) {
    let host = TestHost::new();
    let mut fake = host.fake();
    fake.walls = true;
    let allocating = host.host.allocate(
        prepared(fake, Vec::new()),
        AllocateOptions::default(),
        Stop::new(),
    );
    let environment = allocating.await.unwrap();
    (host, environment)
}

/// The same where the guest has to prove that its network is closed.
async fn verified() -> (TestHost, Environment) {
    let (host, environment) = walled().await;
    let control = FakeControl::of(environment.machine()).unwrap();
    control.close(vec![Closed {
        what: "the host".to_owned(),
        target: Target::Ping([192, 0, 2, 254].into()),
    }]);
    (host, environment)
}

/// A hook that proves the network: once `on` fired, it posts this event.
fn prover(environment: &mut Environment, on: &str, event: Event) -> Context {
    let prover = environment.context("prover");
    prover.proves_isolation();
    let posting = prover.clone();
    prover.subscribe(on, move |_| posting.post(event.clone()).unwrap());
    prover
}

/// Fails unless the run failed for want of the proof, without power in the end.
async fn assert_unproven(environment: &Environment, report: RunReport) -> (String, Error, String) {
    let (step, error) = report.failure.unwrap();
    assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
    let IsolationVerdict::Unproven { why } = report.isolation else {
        panic!("{:?}", report.isolation);
    };
    let state = environment.machine().state().await;
    assert_eq!(state.unwrap(), SandboxState::Shutoff);
    (step, error, why)
}

async fn run(environment: &mut Environment, steps: &str) -> RunReport {
    let steps = Configuration::from_str("run.json", steps).unwrap();
    let steps = Protocol::from_configuration(&steps).unwrap();
    let report = environment.run(&steps, &RunLimits::time(LONG)).await;
    report.unwrap()
}

/// Powers on, waits for what never comes, and has a last word.
const HANGING: &str = r#"[{ "step": "poweron" }, { "step": "wait", "timeout": "1h" },
    { "step": "trigger", "event": "kept", "always": true }]"#;

#[tokio::test]
async fn walls_that_fall_in_mid_run_cut_the_guests_power_and_mark_the_results() {
    let (_host, mut environment) = walled().await;
    let control = FakeControl::of(environment.machine()).unwrap();
    environment
        .context("foe")
        .subscribe("post_poweron", move |_| {
            control.set_fault(FaultAt::Walls, Some(Fault::Fail));
        });
    let report = run(&mut environment, HANGING).await;
    let (_, error) = report.failure.unwrap();
    assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
    match report.isolation {
        IsolationVerdict::Broken { why: found, .. } => {
            assert!(found.contains("injected at Walls"), "{found}");
            // It was seen at once, and not given up after several looks.
            assert!(!found.contains("cannot be found out"), "{found}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(report.steps.len(), 3, "{:?}", report.steps);
    let state = environment.machine().state().await.unwrap();
    assert_eq!(state, SandboxState::Shutoff);
    environment.deallocate().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn walls_are_looked_at_whenever_they_may_have_changed_and_not_only_when_it_is_time() {
    /// Far more than there is time for, if each waited until it is time: a second.
    const CHANGES: usize = 300;
    let (_host, mut environment) = walled().await;
    let control = FakeControl::of(environment.machine()).unwrap();
    let changing = control.clone();
    let foe = tokio::spawn(async move {
        let looks = || {
            let calls = changing.calls().into_iter();
            calls.filter(|at| *at == FaultAt::Walls).count()
        };
        for _ in 0..CHANGES {
            let before = looks();
            changing.change_walls();
            while looks() == before {
                tokio::task::yield_now().await;
            }
        }
        changing.set_fault(FaultAt::Walls, Some(Fault::Fail));
        changing.change_walls();
    });
    let report = run(&mut environment, HANGING).await;
    foe.abort();
    let (_, error) = report.failure.unwrap();
    // Not the limit of the run's time.
    assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
    environment.deallocate().await;
}

#[tokio::test]
async fn walls_that_fall_in_the_last_step_are_found_after_it() {
    let (_host, mut environment) = walled().await;
    let control = FakeControl::of(environment.machine()).unwrap();
    environment.context("foe").subscribe("last", move |_| {
        control.set_fault(FaultAt::Walls, Some(Fault::Fail));
    });
    let report = run(
        &mut environment,
        r#"[{ "step": "poweron" }, { "step": "trigger", "event": "last" }]"#,
    )
    .await;
    let (_, error) = report.failure.unwrap();
    assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
    assert!(matches!(report.isolation, IsolationVerdict::Broken { .. }));
    let state = environment.machine().state().await.unwrap();
    assert_eq!(state, SandboxState::Shutoff);
    environment.deallocate().await;
}

#[tokio::test]
async fn a_hole_that_somebody_finds_ends_the_run_and_is_named() {
    let (_host, mut environment) = walled().await;
    let prober = environment.context("prober");
    let inside = prober.clone();
    prober.subscribe("post_poweron", move |_| {
        let hole = Event::new(ISOLATION_BROKEN)
            .with("message", "something answered")
            .with("holes", json!(["169.254.169.254", "the gateway"]));
        inside.post(hole).unwrap();
    });
    let report = run(&mut environment, HANGING).await;
    let found = IsolationVerdict::Broken {
        why: "something answered".to_owned(),
        holes: ["169.254.169.254", "the gateway"].map(str::to_owned).into(),
    };
    assert_eq!(report.isolation, found);
    let (_, error) = report.failure.unwrap();
    assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
    environment.deallocate().await;
}

#[tokio::test]
async fn a_guest_whose_walls_broke_or_could_not_be_tried_never_gets_its_power_back() {
    let ends = [
        ("a look", None),
        ("a hole", Some(ISOLATION_BROKEN)),
        ("no trial", Some(ISOLATION_NOT_CHECKED)),
    ];
    for (what, event) in ends {
        for owes in [false, true] {
            let (_host, mut environment) = match owes {
                true => verified().await,
                false => walled().await,
            };
            let control = FakeControl::of(environment.machine()).unwrap();
            let proven = Event::new(ISOLATION_PROVEN);
            let prover = prover(&mut environment, "post_poweron", proven);
            let (ending, failing) = (prover.clone(), control.clone());
            prover.subscribe("break", move |_| match event {
                Some(event) => ending.post(event).unwrap(),
                None => failing.set_fault(FaultAt::Walls, Some(Fault::Fail)),
            });
            // A hook that means well.
            let stubborn = environment.context("stubborn");
            stubborn.subscribe_serial(
                "post_poweroff",
                serial(|turn, _| {
                    Box::pin(async move {
                        let refused = turn.poweron().await.unwrap_err();
                        assert_eq!(refused.kind(), ErrorKind::Isolation, "{refused}");
                        Ok(())
                    })
                }),
            );
            let report = run(
                &mut environment,
                r#"[{ "step": "poweron" }, { "step": "trigger", "event": "break" },
                    { "step": "wait", "timeout": "1h" }, { "step": "poweron", "always": true },
                    { "step": "trigger", "event": "run_command", "always": true }]"#,
            )
            .await;
            let (_, error) = report.failure.unwrap();
            assert_eq!(error.kind(), ErrorKind::Isolation, "{what}: {error}");
            let failed: Vec<bool> = report
                .steps
                .iter()
                .map(|step| step.error.is_some())
                .collect();
            assert_eq!(&failed[failed.len() - 2..], [true; 2], "{what}: {failed:?}");
            let calls = control.calls();
            let starts = calls.iter().filter(|at| **at == FaultAt::Start).count();
            assert_eq!(starts, 1, "{what}, owes the proof: {owes}");
            let state = environment.machine().state().await.unwrap();
            assert_eq!(state, SandboxState::Shutoff, "{what}");
            assert_ne!(report.isolation, IsolationVerdict::Proven, "{what}");
            let (mishaps, _) = stubborn.bus().mishaps();
            assert!(mishaps.is_empty(), "{mishaps:?}");
            environment.deallocate().await;
        }
    }
}

#[tokio::test]
async fn walls_that_cannot_be_tried_end_the_run() {
    let (_host, mut environment) = walled().await;
    let prober = environment.context("prober");
    let inside = prober.clone();
    prober.subscribe("post_poweron", move |_| {
        let untried = Event::new(ISOLATION_NOT_CHECKED).with("message", "nobody answers");
        inside.post(untried).unwrap();
        inside.post(Event::new(ISOLATION_PROVEN)).unwrap();
    });
    let report = run(&mut environment, HANGING).await;
    let (_, error) = report.failure.unwrap();
    assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
    let why = "nobody answers".to_owned();
    assert_eq!(report.isolation, IsolationVerdict::Unproven { why });
    let state = environment.machine().state().await;
    assert_eq!(state.unwrap(), SandboxState::Shutoff);
    environment.deallocate().await;
}

#[tokio::test]
async fn a_guest_that_nobody_has_prove_its_closed_network_is_not_started() {
    let (_host, mut environment) = verified().await;
    let control = FakeControl::of(environment.machine()).unwrap();
    let report = run(&mut environment, HANGING).await;
    let (step, error, why) = assert_unproven(&environment, report).await;
    assert_eq!(step, "poweron");
    for part in ["run.json:1:2", "`commands`", "`\"verify\": false`"] {
        assert!(error.to_string().contains(part), "no {part} in {error}");
    }
    assert!(why.contains("`commands`"), "{why}");
    assert!(!control.calls().contains(&FaultAt::Start));
    let refused = environment.turn().await.unwrap().poweron().await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Isolation);
    environment.deallocate().await;
}

#[tokio::test]
async fn a_guest_that_runs_already_is_ended_where_nobody_has_it_prove_its_closed_network() {
    let (_host, mut environment) = verified().await;
    let control = FakeControl::of(environment.machine()).unwrap();
    control.guest_becomes(SandboxState::Running);
    let steps = r#"[{ "step": "wait", "timeout": "1h" }]"#;
    let report = run(&mut environment, steps).await;
    assert_eq!(report.steps.len(), 0);
    assert_unproven(&environment, report).await;
    environment.deallocate().await;
}

#[tokio::test]
async fn a_protocol_that_ends_before_the_proof_fails() {
    let (_host, mut environment) = verified().await;
    prover(&mut environment, "never", Event::new(ISOLATION_PROVEN));
    let report = run(&mut environment, r#"[{ "step": "poweron" }]"#).await;
    let (_, error, _) = assert_unproven(&environment, report).await;
    assert!(error.to_string().contains("`ready`"), "{error}");
    environment.deallocate().await;
}

#[tokio::test]
async fn nothing_is_run_in_a_guest_before_its_network_is_proven_closed() {
    for event in ["run_sample", "run_command"] {
        let steps =
            format!(r#"[{{ "step": "poweron" }}, {{ "step": "trigger", "event": "{event}" }}]"#);
        let (_host, mut environment) = verified().await;
        let log = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let heard = std::sync::Arc::clone(&log);
        environment.context("log").observe(move |event| {
            heard.lock().unwrap().push(event.name().to_owned());
        });
        // The proof takes its time.
        let prover = prover(&mut environment, "never", Event::new(ISOLATION_PROVEN));
        let posting = prover.clone();
        prover.subscribe("step_started", move |event| {
            let index = event.get("index").and_then(|index| index.as_i64());
            let inside = posting.clone();
            if index == Some(1) {
                posting.spawn(async move {
                    tokio::task::yield_now().await;
                    inside.post(ISOLATION_PROVEN).unwrap();
                });
            }
        });
        let report = run(&mut environment, &steps).await;
        assert!(report.failure.is_none(), "{:?}", report.failure);
        assert_eq!(report.isolation, IsolationVerdict::Proven);
        let log = log.lock().unwrap().clone();
        let at = |name: &str| log.iter().position(|found| found == name).unwrap();
        assert!(at(ISOLATION_PROVEN) < at(event), "{log:?}");
        environment.deallocate().await;
    }
}

#[tokio::test]
async fn a_hook_that_gives_the_proof_up_ends_the_wait_for_it_and_says_why() {
    let (_host, mut environment) = verified().await;
    let gives_up = Event::new("not_isolation_proven").with("message", "no agent answers");
    prover(&mut environment, "post_poweron", gives_up);
    let steps = r#"[{ "step": "poweron" }, { "step": "trigger", "event": "run_sample" }]"#;
    let report = run(&mut environment, steps).await;
    let (step, error) = report.failure.unwrap();
    assert_eq!(step, "trigger run_sample");
    assert_eq!(error.kind(), ErrorKind::Isolation, "{error}");
    assert!(error.message().contains("no agent answers"), "{error}");
    let why = "no agent answers".to_owned();
    assert_eq!(report.isolation, IsolationVerdict::Unproven { why });
    environment.deallocate().await;
}

#[tokio::test]
async fn a_proof_counts_only_from_a_hook_that_announced_it() {
    let steps = format!(
        r#"[{{ "step": "poweron" }}, {{ "step": "trigger", "event": "{ISOLATION_PROVEN}" }}]"#
    );
    let (_host, mut environment) = verified().await;
    prover(&mut environment, "never", Event::new(ISOLATION_PROVEN));
    let report = run(&mut environment, &steps).await;
    assert_unproven(&environment, report).await;
    environment.deallocate().await;
}

#[tokio::test]
async fn a_proof_holds_for_every_later_run_of_its_environment() {
    let (_host, mut environment) = verified().await;
    prover(
        &mut environment,
        "post_poweron",
        Event::new(ISOLATION_PROVEN),
    );
    for steps in [r#"[{ "step": "poweron" }]"#, r#"[{ "step": "restart" }]"#] {
        let report = run(&mut environment, steps).await;
        assert!(report.failure.is_none(), "{:?}", report.failure);
        assert_eq!(report.isolation, IsolationVerdict::Proven);
    }
    environment.deallocate().await;
}

#[tokio::test]
async fn without_a_wish_for_the_proof_or_a_guest_that_ran_the_verdict_says_so_and_nothing_fails() {
    let poweron = r#"[{ "step": "poweron" }]"#;
    let (_host, mut environment) = walled().await;
    let report = run(&mut environment, poweron).await;
    assert!(report.failure.is_none(), "{:?}", report.failure);
    let IsolationVerdict::NotChecked { why } = report.isolation else {
        panic!("{:?}", report.isolation);
    };
    assert!(why.contains("`verify`"), "{why}");
    environment.deallocate().await;

    let (_host, mut environment) = verified().await;
    let report = run(&mut environment, r#"[{ "step": "wait", "timeout": "0s" }]"#).await;
    assert!(report.failure.is_none(), "{:?}", report.failure);
    let why = "the guest was not started".to_owned();
    assert_eq!(report.isolation, IsolationVerdict::NotChecked { why });
    environment.deallocate().await;

    let (_host, mut environment) = common::environment().await;
    let report = run(&mut environment, poweron).await;
    assert_eq!(report.isolation, IsolationVerdict::NoWalls);
    environment.deallocate().await;
}

#[test]
fn a_verdict_is_an_object_that_says_what_was_found() {
    let shown = |verdict: IsolationVerdict| serde_json::to_string(&verdict).unwrap();
    assert_eq!(
        shown(IsolationVerdict::NotChecked {
            why: "no agent".to_owned()
        }),
        r#"{"verdict":"not_checked","why":"no agent"}"#
    );
    let broken = |holes: &[&str]| IsolationVerdict::Broken {
        why: "a hole".to_owned(),
        holes: holes.iter().map(|&hole| hole.to_owned()).collect(),
    };
    assert_eq!(shown(broken(&[])), r#"{"verdict":"broken","why":"a hole"}"#);
    assert_eq!(
        shown(broken(&["DNS"])),
        r#"{"verdict":"broken","why":"a hole","holes":["DNS"]}"#
    );
}

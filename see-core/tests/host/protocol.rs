//! Runs by a protocol: their steps, their limits and their reports.

use std::time::Duration;

use crate::common::{TestHost, environment, serial};
use crate::environment::allocate;
use see_core::config::{Configuration, DurationValue};
use see_core::testing::{FakeConfiguration, FakeControl, Fault, FaultAt};
use see_core::{
    Action, ErrorKind, Event, Protocol, RunLimits, RunReport, SandboxChange, SandboxState, Value,
};

fn protocol(text: &str) -> Protocol {
    Protocol::from_configuration(&Configuration::from_str("protocol.json", text).unwrap()).unwrap()
}

#[tokio::test]
async fn a_failed_step_is_the_verdict_and_only_the_steps_marked_always_follow() {
    let (_host, mut environment) = environment().await;
    let steps = protocol(
        r#"[
            { "step": "poweron" },
            { "step": "wait", "for": "never", "timeout": "50ms" },
            { "step": "trigger", "event": "skipped" },
            { "step": "trigger", "event": "kept", "always": true },
        ]"#,
    );
    let report = environment
        .run(&steps, &RunLimits::time(Duration::from_secs(60)))
        .await
        .unwrap();
    let done: Vec<&str> = report.steps.iter().map(|step| step.step.as_str()).collect();
    assert_eq!(done, ["poweron", "wait for never", "trigger kept"]);
    let (step, error) = report.failure.unwrap();
    assert_eq!(
        (step.as_str(), error.kind()),
        ("wait for never", ErrorKind::Timeout)
    );
    assert!(
        error.to_string().starts_with("protocol.json:3:13"),
        "{error}"
    );
    environment.deallocate().await;
}

#[tokio::test]
async fn a_wait_for_the_guest_that_is_in_vain_says_what_it_lacks() {
    let (_host, mut environment) = environment().await;
    let hook = environment.context("hook");
    let posting = hook.clone();
    hook.subscribe("post_poweron", move |_| {
        let why = "the guest has not written to its console yet";
        let waiting = Event::new("waiting_for_guest").with("message", why);
        posting.post(waiting).unwrap();
    });
    let steps = protocol(
        r#"[{ "step": "poweron" }, { "step": "wait", "for": "ready", "timeout": "50ms" }]"#,
    );
    let limits = RunLimits::time(Duration::from_secs(60));
    let report = environment.run(&steps, &limits).await.unwrap();
    let (_, error) = report.failure.unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(
        error.to_string().contains("written to its console"),
        "{error}"
    );
    environment.deallocate().await;
}

#[test]
fn a_shutdown_that_says_no_timeout_has_a_deadline() {
    let steps = protocol(r#"[{ "step": "shutdown" }]"#);
    let Some(Action::Shutdown(timeout)) = steps.steps.first().map(|step| &step.action) else {
        panic!("no shutdown: {steps:?}");
    };
    assert_eq!(*timeout, Duration::from_secs(60));
}

/// Runs these steps in at most 200 ms, and says how they went; the machine is off in the end.
async fn run_out_of_time(steps: &str) -> RunReport {
    let (_host, mut environment) = environment().await;
    let limits = RunLimits::time(Duration::from_millis(200));
    let report = environment.run(&protocol(steps), &limits).await.unwrap();
    let state = environment.machine().state().await.unwrap();
    assert_eq!(state, SandboxState::Shutoff);
    environment.deallocate().await;
    report
}

fn assert_out_of_time(error: &str) {
    assert!(error.contains("`context.limits.run`"), "{error}");
}

#[tokio::test]
async fn a_run_ends_at_its_limit_without_power_and_names_it() {
    let steps = r#"[{ "step": "poweron" }, { "step": "wait", "timeout": "1h" }]"#;
    let (_, error) = run_out_of_time(steps).await.failure.unwrap();
    assert_out_of_time(&error.to_string());
}

#[tokio::test]
async fn the_power_of_a_guest_that_must_not_go_on_is_cut_though_its_state_is_not_told() {
    let (_host, mut environment) = environment().await;
    let control = FakeControl::of(environment.machine()).unwrap();
    let hiding = control.clone();
    environment.context("foe").subscribe("hide", move |_| {
        hiding.set_fault(FaultAt::State, Some(Fault::Fail));
    });
    let steps = protocol(
        r#"[{ "step": "poweron" }, { "step": "trigger", "event": "hide" },
            { "step": "wait", "timeout": "1h" }]"#,
    );
    let limits = RunLimits::time(Duration::from_millis(200));
    let report = environment.run(&steps, &limits).await.unwrap();
    assert_out_of_time(&report.failure.unwrap().1.to_string());
    control.set_fault(FaultAt::State, None);
    let state = environment.machine().state().await.unwrap();
    assert_eq!(state, SandboxState::Shutoff);
    environment.deallocate().await;
}

#[tokio::test]
async fn a_handler_that_hangs_does_not_keep_the_power_on_at_the_runs_limit() {
    // Of the two steps the first one's end is told while the machine is on, and the second one's begin.
    for (event, step) in [
        ("pre_poweroff", None),
        ("step_finished", Some(0)),
        ("step_started", Some(1)),
    ] {
        let (_host, mut environment) = environment().await;
        let hangs =
            serial(
                move |_, event| match event.get("index").and_then(Value::as_i64) == step {
                    true => Box::pin(std::future::pending()),
                    false => Box::pin(std::future::ready(Ok(()))),
                },
            );
        let context = environment.context("hook");
        context.subscribe_serial(event, hangs);
        let steps = protocol(r#"[{ "step": "poweron" }, { "step": "wait", "timeout": "1h" }]"#);
        let limits = RunLimits::time(Duration::from_millis(200));
        let running = environment.run(&steps, &limits);
        let report = tokio::time::timeout(Duration::from_secs(60), running).await;
        let (_, error) = report.expect("it ends").unwrap().failure.unwrap();
        assert_out_of_time(&error.to_string());
        let state = environment.machine().state().await.unwrap();
        assert_eq!(state, SandboxState::Shutoff, "{event}");
        environment.deallocate().await;
    }
}

#[tokio::test]
async fn a_start_that_outlasts_the_runs_limit_does_not_leave_the_power_on() {
    let host = TestHost::new();
    let fake = FakeConfiguration {
        stall: Some(DurationValue(Duration::from_secs(1))),
        ..host.fake()
    };
    let mut environment = allocate(&host, fake).await.unwrap();
    let control = FakeControl::of(environment.machine()).unwrap();
    // Until it is done the machine is told as off.
    control.set_fault(FaultAt::Start, Some(Fault::Stall));
    let mut changes = environment.machine().watch();
    let steps = protocol(r#"[{ "step": "poweron" }]"#);
    let limits = RunLimits::time(Duration::from_millis(100));
    let report = environment.run(&steps, &limits).await.unwrap();
    assert_out_of_time(&report.failure.unwrap().1.to_string());
    for state in [SandboxState::Running, SandboxState::Shutoff] {
        let told = tokio::time::timeout(Duration::from_secs(60), changes.recv()).await;
        let told = told.unwrap_or_else(|_| panic!("it never became {state}"));
        assert_eq!(told, Some(SandboxChange::State(state)));
    }
    environment.deallocate().await;
}

#[tokio::test]
async fn the_power_is_cut_at_the_runs_limit_under_a_step_after_a_failed_one_which_keeps_its_minute()
{
    let report = run_out_of_time(
        r#"[
            { "step": "poweron" },
            { "step": "wait", "for": "never", "timeout": "10ms" },
            { "step": "wait", "for": "post_poweroff", "timeout": "50s", "always": true },
        ]"#,
    )
    .await;
    let (step, _) = report.failure.unwrap();
    assert_eq!(step, "wait for never");
    assert_eq!(report.steps[2].error, None);
}

#[tokio::test]
async fn an_analysis_goes_on_for_a_while_after_the_runs_time_was_used_up() {
    let report = run_out_of_time(
        r#"[
            { "step": "poweron" },
            { "step": "wait", "timeout": "1h" },
            { "step": "wait", "timeout": "300ms", "always": true },
            { "step": "trigger", "event": "skipped" },
            { "step": "trigger", "event": "wait_analysis", "always": true },
        ]"#,
    )
    .await;
    assert_eq!(report.steps.len(), 4, "{:?}", report.steps);
    assert_eq!(report.steps[2].error, None);
}

#[tokio::test]
async fn an_analysis_of_a_machine_that_is_off_is_not_ended_at_the_runs_limit() {
    let report = run_out_of_time(
        r#"[
            { "step": "wait", "for": "never", "timeout": "10ms" },
            { "step": "wait", "timeout": "400ms", "always": true },
        ]"#,
    )
    .await;
    assert_eq!(report.steps[1].error, None);
}

#[tokio::test]
async fn the_report_carries_every_sample_that_finished_in_order() {
    let (_host, mut environment) = environment().await;
    let steps = protocol(
        r#"[{ "step": "trigger", "event": "sample_finished", "attributes": { "exit_code": 3 } },
            { "step": "wait", "for": "sample_finished" },
            { "step": "trigger", "event": "sample_finished", "attributes": { "exit_code": 0 } }]"#,
    );
    let report = environment
        .run(&steps, &RunLimits::time(Duration::from_secs(60)))
        .await
        .unwrap();
    assert!(report.failure.is_none(), "{:?}", report.failure);
    let codes = report.samples.iter().map(|sample| {
        let code = sample.get("exit_code");
        code.and_then(|code| code.as_i64())
    });
    assert_eq!(codes.collect::<Vec<_>>(), [Some(3), Some(0)]);
    environment.deallocate().await;
}

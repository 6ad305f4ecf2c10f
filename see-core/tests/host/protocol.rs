//! Runs by a protocol: their steps, their limits and their reports.

use std::time::Duration;

use crate::common::environment;
use see_core::config::Configuration;
use see_core::{Action, ErrorKind, Protocol, RunLimits};

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

#[test]
fn a_shutdown_that_says_no_timeout_has_a_deadline() {
    let steps = protocol(r#"[{ "step": "shutdown" }]"#);
    let Some(Action::Shutdown(timeout)) = steps.steps.first().map(|step| &step.action) else {
        panic!("no shutdown: {steps:?}");
    };
    assert_eq!(*timeout, Duration::from_secs(60));
}

#[tokio::test]
async fn a_run_ends_at_its_limit_and_names_it() {
    let (_host, mut environment) = environment().await;
    let steps = protocol(r#"[{ "step": "poweron" }, { "step": "wait", "timeout": "1h" }]"#);
    let report = environment
        .run(&steps, &RunLimits::time(Duration::from_millis(100)))
        .await
        .unwrap();
    let (_, error) = report.failure.unwrap();
    assert!(error.to_string().contains("context.limits.run"), "{error}");
    environment.deallocate().await;
}

#[tokio::test]
async fn the_report_carries_the_sample_that_finished() {
    let (_host, mut environment) = environment().await;
    let steps = protocol(
        r#"[{ "step": "trigger", "event": "sample_finished", "attributes": { "exit_code": 3 } },
            { "step": "wait", "for": "sample_finished" }]"#,
    );
    let report = environment
        .run(&steps, &RunLimits::time(Duration::from_secs(60)))
        .await
        .unwrap();
    assert!(report.failure.is_none(), "{:?}", report.failure);
    let code = report
        .sample
        .unwrap()
        .get("exit_code")
        .and_then(|code| code.as_i64());
    assert_eq!(code, Some(3));
    environment.deallocate().await;
}

//! What a run may use of the host: each limit ends the run, and the failure names its key.

use std::path::PathBuf;
use std::time::Duration;

use crate::common::{TestHost, environment};
use see_core::config::{Configuration, DurationValue, Size};
use see_core::testing::FakeControl;
use see_core::{
    Context, Environment, Error, ErrorKind, Limits, Protocol, RunLimits, RunReport, SandboxState,
    Usage,
};

const STEPS: &str = r#"[{ "step": "poweron" }, { "step": "wait", "timeout": "30s" },
    { "step": "trigger", "event": "kept", "always": true }]"#;

/// A run that waits for half a minute once `begin` was called with the power on.
async fn run(
    environment: &mut Environment,
    limits: &RunLimits,
    begin: impl Fn(&Context) + Send + Sync + 'static,
) -> RunReport {
    run_steps(STEPS, environment, limits, begin).await
}

async fn run_steps(
    steps: &str,
    environment: &mut Environment,
    limits: &RunLimits,
    begin: impl Fn(&Context) + Send + Sync + 'static,
) -> RunReport {
    let steps = Configuration::from_str("protocol.json", steps).unwrap();
    let steps = Protocol::from_configuration(&steps).unwrap();
    let context = environment.context("hook");
    let inner = context.clone();
    context.subscribe("post_poweron", move |_| begin(&inner));
    environment.run(&steps, limits).await.unwrap()
}

/// Fails unless the run ended at this key, without power and with the steps that always follow.
async fn assert_ended_by(key: &str, environment: &Environment, report: RunReport) -> Error {
    let (step, error) = report.failure.unwrap();
    assert_eq!(step, "wait 30s", "{error}");
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    let named = format!("context.limits.{key}");
    assert!(error.to_string().contains(&named), "{error}");
    assert_eq!(report.steps.len(), 3, "{:?}", report.steps);
    let state = environment.machine().state().await.unwrap();
    assert_eq!(state, SandboxState::Shutoff);
    error
}

fn results_of(host: &TestHost) -> PathBuf {
    let results = host.folder.path().join("results");
    std::fs::create_dir(&results).unwrap();
    // What lay there before does not count.
    std::fs::write(results.join("old"), vec![1; 200_000]).unwrap();
    results
}

#[tokio::test]
async fn results_that_reach_their_limit_end_the_run_and_what_lay_there_before_does_not_count() {
    let (host, mut environment) = environment().await;
    let results = results_of(&host);
    let limits = Limits {
        results: Size(100_000),
        ..Limits::default()
    };
    let limits = RunLimits::new(&limits, Some(results.clone()));
    let report = run(&mut environment, &limits, move |_| {
        std::fs::write(results.join("new"), vec![1; 200_000]).unwrap();
    })
    .await;
    assert_ended_by("results", &environment, report).await;
    environment.deallocate().await;
}

#[tokio::test]
async fn limits_are_watched_after_a_failed_step_and_what_ended_one_step_does_not_end_the_next() {
    let (host, mut environment) = environment().await;
    let results = results_of(&host);
    let limits = Limits {
        results: Size(100_000),
        ..Limits::default()
    };
    let limits = RunLimits::new(&limits, Some(results.clone()));
    let steps = r#"[
        { "step": "poweron" },
        { "step": "wait", "for": "never", "timeout": "10ms" },
        { "step": "trigger", "event": "grow", "always": true },
        { "step": "wait", "timeout": "1h", "always": true },
        { "step": "wait", "timeout": "600ms", "always": true },
    ]"#;
    let report = run_steps(steps, &mut environment, &limits, move |context| {
        let results = results.clone();
        context.subscribe("grow", move |_| {
            std::fs::write(results.join("new"), vec![1; 200_000]).unwrap();
        });
    })
    .await;
    let (step, _) = report.failure.unwrap();
    assert_eq!(step, "wait for never");
    let error = report.steps[3].error.as_deref().unwrap();
    assert!(error.contains("context.limits.results"), "{error}");
    let state = environment.machine().state().await.unwrap();
    assert_eq!(state, SandboxState::Shutoff);
    assert_eq!(report.steps[4].error, None);
    environment.deallocate().await;
}

#[tokio::test]
async fn captures_that_reach_their_limit_end_the_run_wherever_they_lie() {
    let (host, mut environment) = environment().await;
    let results = results_of(&host);
    let elsewhere = host.folder.path().join("dumps");
    let limits = Limits {
        captures: Size(100_000),
        ..Limits::default()
    };
    let limits = RunLimits::new(&limits, Some(results.clone()));
    let report = run(&mut environment, &limits, move |context| {
        // Other results are none of the captures.
        std::fs::write(results.join("log"), vec![1; 200_000]).unwrap();
        context.capture(results.join("picture"));
        std::fs::write(results.join("picture"), vec![1; 60_000]).unwrap();
        context.capture(&elsewhere);
        std::fs::create_dir(&elsewhere).unwrap();
        std::fs::write(elsewhere.join("memory"), vec![1; 60_000]).unwrap();
    })
    .await;
    assert_ended_by("captures", &environment, report).await;
    environment.deallocate().await;
}

/// A sandbox that has taken some processor time and room already takes `usage` once its power is on.
async fn run_taking(usage: Usage, limits: Limits) -> (Environment, TestHost, RunReport) {
    let (host, mut environment) = environment().await;
    let control = FakeControl::of(environment.machine()).unwrap();
    control.takes(Usage {
        cpu: Some(Duration::from_secs(100)),
        disk: Some(1 << 30),
        ..Usage::default()
    });
    let limits = RunLimits::new(&limits, None);
    let report = run(&mut environment, &limits, move |_| {
        control.takes(usage.clone());
    })
    .await;
    (environment, host, report)
}

#[tokio::test]
async fn processor_time_memory_processes_and_a_remote_disk_that_reach_their_limit_end_the_run() {
    let all = Usage {
        cpu: Some(Duration::from_secs(131)),
        memory: Some(65 << 20),
        pids: Some(101),
        disk: Some((1 << 30) + (33 << 20)),
        halted: None,
        starved: None,
    };
    let cpu = Limits {
        cpu: Some(DurationValue(Duration::from_secs(30))),
        ..Limits::default()
    };
    let memory = Limits {
        memory: Some(Size(64 << 20)),
        ..Limits::default()
    };
    let pids = Limits {
        pids: Some(100),
        ..Limits::default()
    };
    let disk = Limits {
        disk: Size(32 << 20),
        ..Limits::default()
    };
    for (key, limits, limit) in [
        ("disk", disk, "32MiB"),
        ("cpu", cpu, "30s"),
        ("memory", memory, "64MiB"),
        ("pids", pids, "100"),
    ] {
        let (environment, _host, report) = run_taking(all.clone(), limits).await;
        let error = assert_ended_by(key, &environment, report).await;
        assert!(error.message().contains(limit), "{error}");
        environment.deallocate().await;
    }
}

#[tokio::test]
async fn a_guest_that_the_hypervisor_stopped_by_itself_ends_its_run_with_the_reason() {
    let usage = Usage {
        halted: Some("no space is left for its disk".to_owned()),
        ..Usage::default()
    };
    let (environment, _host, report) = run_taking(usage, Limits::default()).await;
    let (_, error) = report.failure.unwrap();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(error.message().contains("no space is left"), "{error}");
    environment.deallocate().await;
}

#[tokio::test]
async fn a_sandbox_whose_own_memory_was_full_ends_its_run_and_which_one_is_named() {
    let (_host, mut environment) = environment().await;
    let control = FakeControl::of(environment.machine()).unwrap();
    control.takes(Usage {
        starved: Some("the box used up its 1MiB".to_owned()),
        ..Usage::default()
    });
    let limits = RunLimits::new(&Limits::default(), None);
    let report = run(&mut environment, &limits, |_| {}).await;
    let (_, error) = report.failure.unwrap();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert!(error.to_string().contains("used up its 1MiB"), "{error}");
    environment.deallocate().await;
}

#[tokio::test]
async fn what_stays_below_every_limit_ends_nothing() {
    let (host, mut environment) = environment().await;
    let control = FakeControl::of(environment.machine()).unwrap();
    control.takes(Usage {
        cpu: Some(Duration::from_secs(2_399)),
        memory: Some(2 << 30),
        pids: Some(4_096),
        disk: Some(4 << 30),
        halted: None,
        starved: None,
    });
    let limits = RunLimits::new(&Limits::default(), Some(results_of(&host)));
    let steps = r#"[{ "step": "poweron" }, { "step": "wait", "timeout": "600ms" }]"#;
    let steps = Configuration::from_str("protocol.json", steps).unwrap();
    let steps = Protocol::from_configuration(&steps).unwrap();
    let report = environment.run(&steps, &limits).await.unwrap();
    assert!(report.failure.is_none(), "{:?}", report.failure);
    environment.deallocate().await;
}

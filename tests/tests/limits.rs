//! A sandbox that takes more than it may of anything ends its run, named, and leaves nothing.

use std::time::Duration;

use see_tests::{Home, Neighbour, Outcome, assert_nothing_remains};
use serde_json::{Value, json};

/// The longest run, emulated on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);
/// The exit code for a sandbox that failed, as `seectl --help` documents it.
const SANDBOX_FAILED: i32 = 4;

/// Runs a sample that would go on for minutes, with one limit set low.
fn run_to_the_limit(key: &str, limit: &str, sample: &str) {
    let mut context = Home::embedded();
    context["limits"] = json!({ key: limit });
    run_to_the_end(key, limit, context, sample);
}

/// The same with a whole context; the failure names the key and the limit.
fn run_to_the_end(key: &str, limit: &str, context: Value, sample: &str) {
    let home = Home::new();
    let run = json!({
        "version": 1,
        "context": context,
        "hooks": {
            "configuration": { "results_folder": "results" },
            "hooks": [{ "name": "commands", "configuration": { "ready_timeout": "160s" } }],
        },
        // A busy host lets a guest take its time to boot.
        "protocol": [
            { "step": "poweron" },
            { "step": "wait", "for": "ready", "timeout": "170s" },
            { "step": "trigger", "event": "run_sample",
              "attributes": { "sample": "${sample}", "command": "${command}" } },
            { "step": "wait", "for": "sample_finished", "timeout": "150s" },
        ],
    });
    let file = home.write("run.json", run.to_string());
    let sample = home.write("sample.sh", format!("#!/bin/sh\n{sample}\n"));
    let outcome = home.run(
        [
            "run".as_ref(),
            file.as_os_str(),
            "--sample".as_ref(),
            sample.as_os_str(),
            "--output".as_ref(),
            "json".as_ref(),
        ],
        LIMIT,
    );
    assert_ended(&home, &outcome, key, limit);
}

/// Fails unless the run ended at this limit, named, and left nothing.
fn assert_ended(home: &Home, outcome: &Outcome, key: &str, limit: &str) {
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    let result = outcome.result();
    let result = result.get("result").unwrap_or(&result);
    let failure = result["failure"].to_string();
    assert!(
        failure.contains(&format!("context.limits.{key}")),
        "{failure}"
    );
    assert!(failure.contains(limit), "{failure}");
    let identifier = result["identifier"]
        .as_str()
        .expect("the run has one")
        .to_owned();
    assert_nothing_remains(&identifier);
    assert_eq!(home.listed(), Vec::<Value>::new());
}

/// How long a neighbour's sample lasts: about as long as a guest takes to boot and to fill what it may.
const BESIDE: Duration = Duration::from_secs(10);

#[test]
fn a_guest_that_fills_its_disk_ends_its_run_named_and_its_neighbour_finishes() {
    let neighbour = Neighbour::begin(BESIDE);
    run_to_the_limit(
        "disk",
        "32MiB",
        "dd if=/dev/zero of=/root/full bs=1M; sync; sleep 600",
    );
    neighbour.assert_finishes();
}

#[test]
fn a_guest_that_floods_its_console_ends_its_run_named_and_its_neighbour_finishes() {
    let neighbour = Neighbour::begin(BESIDE);
    run_to_the_limit("console", "256KiB", "exec yes flood > /dev/ttyS0");
    neighbour.assert_finishes();
}

#[test]
fn a_guest_that_takes_too_much_processor_time_ends_its_run_named_and_its_neighbour_finishes() {
    let neighbour = Neighbour::begin(BESIDE);
    // Booting alone takes more.
    run_to_the_limit("cpu", "1s", "while :; do :; done");
    neighbour.assert_finishes();
}

#[test]
fn an_emulator_that_takes_too_much_memory_ends_its_run_named_and_its_neighbour_finishes() {
    let neighbour = Neighbour::begin(BESIDE);
    let mut context = Home::embedded();
    // What the guest touches of its own is little, what emulates it more.
    context["memory"] = json!("32MiB");
    context["limits"] = json!({ "memory": "4KiB" });
    run_to_the_end("memory", "4KiB", context, "sleep 600");
    neighbour.assert_finishes();
}

#[test]
fn a_sandbox_of_too_many_threads_ends_its_run_named_and_its_neighbour_finishes() {
    let neighbour = Neighbour::begin(BESIDE);
    let mut context = Home::embedded();
    context["limits"] = json!({ "pids": 1 });
    run_to_the_end("pids", "1", context, "sleep 600");
    neighbour.assert_finishes();
}

/// Runs a machine whose screen is taken down as soon as it starts, with one limit set low.
fn run_to_the_limit_with_a_picture(key: &str) {
    let home = Home::new();
    let mut context = Home::embedded();
    context["limits"] = json!({ key: "1KiB" });
    let run = json!({
        "version": 1,
        "context": context,
        "hooks": {
            "configuration": { "results_folder": "results" },
            "hooks": [{ "name": "screen", "configuration": { "screenshot_on_event": "post_poweron" } }],
        },
        "protocol": [{ "step": "poweron" }, { "step": "wait", "timeout": "170s" }],
    });
    let file = home.write("run.json", run.to_string());
    let arguments = [
        "run".as_ref(),
        file.as_os_str(),
        "--output".as_ref(),
        "json".as_ref(),
    ];
    let outcome = home.run(arguments, LIMIT);
    assert_ended(&home, &outcome, key, "1KiB");
}

#[test]
fn pictures_that_take_more_than_captures_may_end_the_run_named_and_its_neighbour_finishes() {
    let neighbour = Neighbour::begin(BESIDE);
    run_to_the_limit_with_a_picture("captures");
    neighbour.assert_finishes();
}

#[test]
fn results_that_take_more_than_they_may_end_the_run_named_and_its_neighbour_finishes() {
    let neighbour = Neighbour::begin(BESIDE);
    run_to_the_limit_with_a_picture("results");
    neighbour.assert_finishes();
}

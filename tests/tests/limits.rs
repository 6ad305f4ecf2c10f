//! A sandbox that takes more than it may of anything ends its run, named, and leaves nothing; its neighbour finishes.

use std::time::Duration;

use see_tests::{Footprint, Home, Neighbour, Outcome, assert_nothing_remains};
use serde_json::{Value, json};

/// The longest run, emulated on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);
/// The exit code for a sandbox that failed, as `seectl --help` documents it.
const SANDBOX_FAILED: i32 = 4;

/// Whose emulators: our own process's, and those of a daemon, which are another account's.
const HYPERVISORS: [&str; 2] = ["embedded", "qemu:///system"];

/// Runs a sample that would go on for minutes in the built-in machine, with one limit set low.
fn run_to_the_limit(hypervisor: &str, key: &str, limit: &Value, sample: &str) {
    let home = Home::passable();
    run_machine_to_the_limit(&home, built_in(hypervisor), key, limit, sample);
}

/// The built-in machine.
fn built_in(hypervisor: &str) -> Value {
    json!({ "hypervisor": hypervisor, "memory": "128MiB" })
}

/// Runs a sample that would go on for minutes in this machine.
fn run_machine_to_the_limit(home: &Home, machine: Value, key: &str, limit: &Value, sample: &str) {
    // A busy host lets a guest take its time to boot.
    let steps = json!([
        { "step": "poweron" },
        { "step": "wait", "for": "ready", "timeout": "170s" },
        { "step": "trigger", "event": "run_sample",
          "attributes": { "sample": "${sample}", "command": "${command}" } },
        { "step": "wait", "for": "sample_finished", "timeout": "150s" },
    ]);
    let outcome = run_with_limit(home, machine, key, limit, sample, &steps);
    assert_ended(home, &outcome, key, limit);
}

/// Runs these steps with one limit set low.
fn run_with_limit(
    home: &Home,
    machine: Value,
    key: &str,
    limit: &Value,
    sample: &str,
    steps: &Value,
) -> Outcome {
    let mut context = machine;
    context["disk"] = json!({ "image": home.guest("guest.qcow2") });
    context["limits"] = json!({ key: limit });
    let run = json!({
        "version": 1,
        "context": context,
        "hooks": {
            "configuration": { "results_folder": "results" },
            "hooks": [{ "name": "commands", "configuration": { "ready_timeout": "160s" } }],
        },
        "protocol": steps,
    });
    let file = home.write("run.json", run.to_string());
    let sample = home.write("sample.sh", format!("#!/bin/sh\n{sample}\n"));
    home.run(
        [
            "run".as_ref(),
            file.as_os_str(),
            "--sample".as_ref(),
            sample.as_os_str(),
            "--output".as_ref(),
            "json".as_ref(),
        ],
        LIMIT,
    )
}

/// Fails unless the run ended at this limit, named, and left nothing.
fn assert_ended(home: &Home, outcome: &Outcome, key: &str, limit: &Value) {
    let failure = assert_failed(home, outcome)["failure"].to_string();
    assert_names(&failure, key, limit);
}

/// Fails unless this names the limit.
fn assert_names(failure: &str, key: &str, limit: &Value) {
    assert!(
        failure.contains(&format!("context.limits.{key}")),
        "{failure}"
    );
    let limit = limit
        .as_str()
        .map_or_else(|| limit.to_string(), str::to_owned);
    assert!(failure.contains(&limit), "{failure}");
}

/// The result of a run whose sandbox failed; fails where it did not, and unless it left nothing.
fn assert_failed(home: &Home, outcome: &Outcome) -> Value {
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    let result = outcome.result();
    let result = result.get("result").unwrap_or(&result);
    let identifier = result["identifier"].as_str().expect("the run has one");
    assert_nothing_remains(identifier);
    assert_eq!(home.listed(), Vec::<Value>::new());
    result.clone()
}

#[test]
fn a_guest_that_fills_its_disk_or_floods_its_console_ends_its_run_named_and_its_neighbour_finishes()
{
    let neighbour = Neighbour::begin(Duration::from_secs(40));
    for hypervisor in HYPERVISORS {
        let fill = "dd if=/dev/zero of=/root/full bs=1M; sync; sleep 600";
        run_to_the_limit(hypervisor, "disk", &json!("32MiB"), fill);
        let flood = "exec yes flood > /dev/ttyS0";
        run_to_the_limit(hypervisor, "console", &json!("256KiB"), flood);
    }
    neighbour.assert_finishes();
}

/// A machine as a user writes it, whose lines of text are kept in files of the user's.
const LINES_IN_FILES: &str = "<domain type='qemu'><memory unit='MiB'>128</memory>\
    <os><type machine='pc'>hvm</type></os><features><acpi/></features><devices>\
    <disk type='file' device='disk'><target dev='vda' bus='virtio'/></disk>\
    <serial type='file'><source path='FOLDER/serial'/><log file='FOLDER/log'/></serial>\
    <serial type='file'><source path='FOLDER/second'/></serial>\
    </devices></domain>";

#[test]
fn a_guest_that_floods_lines_which_its_xml_keeps_in_files_ends_its_run_named_and_writes_to_none_of_them()
 {
    for hypervisor in HYPERVISORS {
        let home = Home::passable();
        let folder = home.path("user");
        std::fs::create_dir(&folder).expect("the home is writable");
        for name in ["serial", "log"] {
            std::fs::write(folder.join(name), "mine").expect("the folder is writable");
        }
        let before = Footprint::of(&folder);
        let domain = LINES_IN_FILES.replace("FOLDER", &folder.to_string_lossy());
        let machine = json!({
            "hypervisor": hypervisor,
            "domain": { "configuration": home.write("domain.xml", domain) },
        });
        let flood = "for line in /dev/ttyS0 /dev/ttyS1; do yes flood >$line & done; wait";
        run_machine_to_the_limit(&home, machine, "console", &json!("256KiB"), flood);
        before.assert_unchanged(&folder);
    }
}

#[test]
fn a_guest_that_fills_its_disk_after_a_step_failed_loses_its_power_at_the_limit() {
    let limit = json!("32MiB");
    let steps = json!([
        { "step": "poweron" },
        { "step": "wait", "for": "ready", "timeout": "170s" },
        { "step": "wait", "for": "never", "timeout": "1ms" },
        { "step": "trigger", "event": "run_sample", "always": true,
          "attributes": { "sample": "${sample}", "command": "${command}" } },
        { "step": "wait", "for": "sample_finished", "timeout": "150s", "always": true },
    ]);
    let fill = "dd if=/dev/zero of=/root/full bs=1M; sync; sleep 600";
    let home = Home::passable();
    let outcome = run_with_limit(&home, built_in("embedded"), "disk", &limit, fill, &steps);
    let result = assert_failed(&home, &outcome);
    let failure = result["failure"].to_string();
    assert!(failure.contains("never"), "{failure}");
    let mut steps = result["steps"].as_array().expect("a list").iter();
    let ended = steps.find(|step| step["step"] == "wait for sample_finished");
    let ended = ended.expect("it follows always")["error"].to_string();
    assert_names(&ended, "disk", &limit);
}

#[test]
fn a_machine_of_too_much_processor_time_memory_or_threads_ends_its_run_named_and_its_neighbour_finishes()
 {
    let neighbour = Neighbour::begin(Duration::from_secs(15));
    for hypervisor in HYPERVISORS {
        // Booting alone takes more of each.
        for (key, limit) in [
            ("cpu", json!("1s")),
            ("memory", json!("4KiB")),
            ("pids", json!(1)),
        ] {
            run_to_the_limit(hypervisor, key, &limit, "sleep 600");
        }
    }
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
    assert_ended(&home, &outcome, key, &json!("1KiB"));
}

#[test]
fn pictures_or_results_that_take_more_than_they_may_end_the_run_named_and_its_neighbour_finishes() {
    let neighbour = Neighbour::begin(Duration::from_secs(3));
    for key in ["captures", "results"] {
        run_to_the_limit_with_a_picture(key);
    }
    neighbour.assert_finishes();
}

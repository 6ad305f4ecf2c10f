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
    let machine = json!({ "hypervisor": hypervisor, "memory": "128MiB" });
    run_machine_to_the_limit(&home, machine, key, limit, sample);
}

/// The same in this machine.
fn run_machine_to_the_limit(home: &Home, machine: Value, key: &str, limit: &Value, sample: &str) {
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
    assert_ended(home, &outcome, key, limit);
}

/// Fails unless the run ended at this limit, named, and left nothing.
fn assert_ended(home: &Home, outcome: &Outcome, key: &str, limit: &Value) {
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    let result = outcome.result();
    let result = result.get("result").unwrap_or(&result);
    let failure = result["failure"].to_string();
    assert!(
        failure.contains(&format!("context.limits.{key}")),
        "{failure}"
    );
    let limit = limit
        .as_str()
        .map_or_else(|| limit.to_string(), str::to_owned);
    assert!(failure.contains(&limit), "{failure}");
    let identifier = result["identifier"]
        .as_str()
        .expect("the run has one")
        .to_owned();
    assert_nothing_remains(&identifier);
    assert_eq!(home.listed(), Vec::<Value>::new());
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

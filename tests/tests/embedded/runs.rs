//! `seectl run` as a user types it.

use std::path::PathBuf;

use see_tests::{Footprint, Home, Outcome, Picture, finish, guest, spawn};
use serde_json::{Value, json};

use crate::support::*;

#[test]
fn a_sample_runs_and_all_is_told_pictures_show_something_and_nothing_is_left_but_the_results() {
    let home = Home::new();
    let images = home.path("images");
    std::fs::create_dir(&images).expect("the home is writable");
    std::fs::copy(guest("guest.qcow2"), images.join("guest.qcow2")).expect("the home is writable");
    let before = Footprint::of(&images);
    let run_file = home.run_file(json!({ "disk": { "image": "images/guest.qcow2" } }));
    let outcome = run_sample(&home, &run_file);
    // The base image is as it was.
    before.assert_unchanged(&images);
    assert_clean(&home, &text(&outcome, "/identifier"));
    assert_told(&outcome);
    assert_pictures(&outcome);
}

/// What the script did, and the events in their order.
fn assert_told(outcome: &Outcome) {
    assert_eq!(told(outcome, "/exit_code"), json!(SAMPLE_FAILED));
    assert_eq!(told(outcome, "/sample_result/exit_code"), json!(3));
    assert_eq!(told(outcome, "/sample_result/signal"), json!(null));
    assert_eq!(
        String::from_utf8_lossy(&content(outcome, "/sample_result/stdout")),
        "to stdout\nwritten\n"
    );
    assert_eq!(
        String::from_utf8_lossy(&content(outcome, "/sample_result/stderr")),
        "to stderr\n"
    );
    assert_eq!(told(outcome, "/teardown_errors"), json!([]));
    assert_eq!(told(outcome, "/left_behind"), json!([]));
    // On a busy host a handler may be slow, which is told, too.
    let mishaps = told(outcome, "/mishaps");
    let slow = |mishap: &Value| {
        mishap
            .as_str()
            .is_some_and(|it| it.contains("without yielding"))
    };
    let mishaps = mishaps.as_array().expect("a list");
    assert!(mishaps.iter().all(slow), "{mishaps:?}");
    // The protocol's events came, in their order.
    let wanted = [
        "pre_poweron",
        "post_poweron",
        "ready",
        "run_sample",
        "sample_finished",
        "pre_pause",
        "post_pause",
        "snapshots_capture",
        "post_resume",
        "pre_shutdown",
        "post_shutdown",
        "start_analysis",
        "wait_analysis",
    ];
    let times: Vec<f64> = wanted
        .iter()
        .map(|name| {
            let events = outcome.events(name);
            assert_eq!(events.len(), 1, "{name}: {events:#?}");
            events[0]["timestamp"].as_f64().expect("a number")
        })
        .collect();
    assert!(times.is_sorted(), "{wanted:?}: {times:?}");
    assert_eq!(
        outcome.events("post_shutdown")[0]["attributes"]["forced"],
        json!(false)
    );
}

fn assert_pictures(outcome: &Outcome) {
    let results = PathBuf::from(text(outcome, "/results"));
    let identifier = text(outcome, "/identifier");
    for event in ["ready", "snapshots_capture"] {
        let picture = Picture::read(&results.join(format!("{identifier}_{event}.png")));
        assert!(picture.width >= 320 && picture.height >= 200, "{picture:?}");
        assert!(picture.colours > 1, "{event}: {picture:?}");
    }
}

#[test]
fn a_sample_of_odd_bytes_arrives_in_the_guest_and_comes_back_as_it_was() {
    let home = Home::new();
    let run_file = home.run_file(Home::embedded());
    // Every byte beside every other, and a length that is no multiple of anything.
    let bytes: Vec<u8> = (0..=u8::MAX)
        .flat_map(|first| (0..=u8::MAX).flat_map(move |second| [first, second]))
        .chain([0, b'\r', b'\n', 0x1b, 0xff])
        .collect();
    let sample = home.write("odd $(sample) 'ü\".bin", &bytes);
    let outcome = run(
        &home,
        &run_file,
        [
            "--sample".as_ref(),
            sample.as_os_str(),
            "--command".as_ref(),
            "cat {sample}".as_ref(),
        ],
    );
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert!(
        content(&outcome, "/sample_result/stdout") == bytes,
        "the bytes differ"
    );
}

#[test]
fn two_runs_of_commands_without_samples_at_once_do_not_disturb_each_other() {
    let home = Home::new();
    let run_file = home.run_file(Home::embedded());
    // Each writes what the other must not see.
    let script = |mine: &str| {
        format!("echo {mine} >>/root/mark; sync; cat /root/mark; echo $((6 * 7)); uname")
    };
    let scripts = ["one", "two"].map(script);
    let children: Vec<_> = scripts
        .iter()
        .map(|script| {
            spawn(&mut command(
                &home,
                &run_file,
                ["--command", script.as_str()],
            ))
        })
        .collect();
    let outcomes: Vec<Outcome> = children
        .into_iter()
        .map(|child| finish(child, RUN))
        .collect();
    for (outcome, mine) in outcomes.iter().zip(["one", "two"]) {
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        let stdout = content(outcome, "/sample_result/stdout");
        let stdout = String::from_utf8_lossy(&stdout).into_owned();
        assert_eq!(stdout, format!("{mine}\n42\nLinux\n"));
    }
    // Both machines were there at once.
    let at = |outcome: &Outcome, event: &str| {
        let events = outcome.events(event);
        let time = events.first().and_then(|event| event["timestamp"].as_f64());
        time.unwrap_or_else(|| panic!("no {event}: {outcome:#?}"))
    };
    for (one, other) in [(0, 1), (1, 0)] {
        let began = at(&outcomes[one], "post_poweron");
        assert!(
            began < at(&outcomes[other], "sample_finished"),
            "{outcomes:#?}"
        );
    }
    let identifiers: Vec<String> = outcomes
        .iter()
        .map(|outcome| text(outcome, "/identifier"))
        .collect();
    assert_ne!(identifiers[0], identifiers[1]);
    for identifier in identifiers {
        assert_clean(&home, &identifier);
    }
}

#[test]
fn a_guest_that_is_not_ready_in_time_fails_the_run_and_the_cause_is_told() {
    let home = Home::new();
    // Sooner than any guest prints its first line.
    let hooks = json!([{ "name": "commands", "configuration": { "ready_timeout": "300ms" } }]);
    let run_file = home.write(
        "run.json",
        json!({ "version": 1, "context": Home::embedded(), "hooks": { "hooks": hooks } })
            .to_string(),
    );
    let outcome = run(&home, &run_file, ["--command", "true"]);
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    let failure = text(&outcome, "/failure");
    assert!(failure.contains("ready"), "{failure}");
    let events = outcome.events("not_ready");
    let causes: Vec<&serde_json::Value> = events
        .iter()
        .map(|event| &event["attributes"]["cause"])
        .collect();
    assert_eq!(causes, [&json!("no_boot_output")], "{outcome:#?}");
    assert_clean(&home, &text(&outcome, "/identifier"));
}

#[test]
fn a_guest_whose_disk_is_empty_fails_the_run_with_what_to_try() {
    let home = Home::new();
    let image = home.path("empty.img");
    let file = std::fs::File::create(&image).expect("the home is writable");
    file.set_len(64 << 20).expect("there is room");
    let hooks = json!([{ "name": "commands", "configuration": { "ready_timeout": "3s" } }]);
    let context = json!({ "disk": { "image": image } });
    let text_of = json!({ "version": 1, "context": context, "hooks": { "hooks": hooks } });
    let run_file = home.write("run.json", text_of.to_string());
    let outcome = run(&home, &run_file, ["--command", "true"]);
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    let failure = text(&outcome, "/failure");
    for part in ["an empty disk", "the hook `screen`"] {
        assert!(failure.contains(part), "no {part} in {failure}");
    }
    assert_clean(&home, &text(&outcome, "/identifier"));
}

/// A library that spoils the end of whoever it is loaded by: an exit handler of its own crashes.
const SPOILER: &str = "
#include <errno.h>
#include <stdlib.h>
#include <string.h>
__attribute__((destructor)) static void spoil(void) {
    if (strcmp(program_invocation_short_name, \"seectl\") == 0) abort();
}
";

#[test]
fn a_run_that_did_everything_ends_well_whatever_the_exit_handlers_of_its_libraries_do() {
    let home = Home::new();
    let source = home.write("spoiler.c", format!("#define _GNU_SOURCE\n{SPOILER}"));
    let library = home.path("spoiler.so");
    let mut compiler = std::process::Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library);
    let compiled = finish(spawn(compiler.arg(source)), RUN);
    assert_eq!(compiled.code, Some(0), "{compiled:#?}");
    let mut context = Home::embedded();
    context["memory"] = json!("64MiB");
    let steps = json!([{ "step": "poweron" }]);
    let run =
        json!({ "version": 1, "context": context, "hooks": { "hooks": [] }, "protocol": steps });
    let run_file = home.write("run.json", run.to_string());
    let spoiled = |words: &[&str]| {
        let mut seectl = home.seectl();
        seectl.args(words).env("LD_PRELOAD", &library);
        seectl
    };
    // It does spoil what ends in the usual way.
    let usual = finish(spawn(&mut spoiled(&["ls"])), RUN);
    assert_eq!(usual.code, None, "{usual:#?}");
    let mut seectl = spoiled(&["run", "--output", "json"]);
    let outcome = finish(spawn(seectl.arg(run_file)), RUN);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_clean(&home, &text(&outcome, "/identifier"));
}

//! Runs that somebody ends: interrupts, other signals, a reader that goes away.

use rustix::process::Signal;
use serde_json::json;

use crate::exit;
use crate::support::{Place, RUN};

pub(crate) fn an_interrupted_allocation() {
    let place = Place::new();
    place.run_file(
        json!({ "faults": { "domain": "stall" }, "stall": "60s" }),
        exit(0),
    );
    let running = place.running();
    running.wait_for("\"allocate\"");
    running.signal(Signal::INT);
    let ended = running.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert_eq!(
        ended.json().last().unwrap()["result"]["verdict"],
        "interrupted"
    );
    assert_eq!(place.made(), 0);
}

pub(crate) fn an_interrupted_run() {
    let place = Place::new();
    place.run_file(json!({}), json!({}));
    let running = place.running();
    running.wait_for("\"wait for sample_finished\"");
    running.signal(Signal::INT);
    let ended = running.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    let lines = ended.json();
    assert!(lines.iter().any(|line| {
        line["note"]
            .as_str()
            .is_some_and(|note| note.starts_with("SIGINT"))
    }));
    let result = &lines.last().unwrap()["result"];
    assert_eq!(result["verdict"], "interrupted");
    assert_eq!(result["left_behind"], json!([]));
    assert_eq!(place.made(), 0);
    let listed = place.output(["ls", "--output", "json"]);
    assert_eq!((listed.code, listed.stdout.as_str()), (Some(0), ""));
}

pub(crate) fn other_signals() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129)] {
        let place = Place::new();
        place.run_file(json!({}), json!({}));
        let running = place.running();
        running.wait_for("\"wait for sample_finished\"");
        running.signal(signal);
        let ended = running.end();
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert_eq!(place.made(), 0);
    }
}

pub(crate) fn a_second_interrupt() {
    let place = Place::new();
    place.run_file(
        json!({ "faults": { "release": "stall" }, "stall": "50s" }),
        json!({}),
    );
    let running = place.running();
    running.wait_for("\"wait for sample_finished\"");
    running.signal(Signal::INT);
    running.wait_for("\"teardown\"");
    running.signal(Signal::INT);
    let ended = running.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.stderr.contains("run `seectl gc`"), "{}", ended.stderr);
    assert_eq!(place.made(), 3);
    let ended = place.output(["gc", "--output", "json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(ended.json()[0]["outcome"], "collected");
    assert_eq!(place.made(), 0);
}

pub(crate) fn a_closed_pipe() {
    let place = Place::new();
    place.run_file(json!({}), exit(0));
    let mut child = place.seectl(RUN).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(place.made(), 0);
    assert!(place.results()[0].join("result.json").is_file());
}

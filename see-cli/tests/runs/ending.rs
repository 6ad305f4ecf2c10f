//! What is left after a run, and who removes it: kept machines, dead runs, a lost terminal.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::exit;
use crate::seen::on_terminal;
use crate::support::{Place, RUN, RUN_JSON, Running};

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn kept() {
    let place = Place::new();
    place.run_file(json!({}), exit(0));
    let ended = place.output(["run", "run.json", "--sample", "sample.sh", "--keep", "1h"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("--include-kept` removes it"),
        "{}",
        ended.stdout
    );
    let made = place.made();
    assert!(made > 0);
    let listed = place.output(["ls"]);
    assert!(listed.stdout.contains("  kept for "), "{}", listed.stdout);
    // Neither a collection nor the next run's takes it.
    let ended = place.output(["gc"]);
    assert!(ended.stdout.contains("to be kept for "), "{}", ended.stdout);
    assert_eq!(place.output(RUN_JSON).code, Some(0));
    assert_eq!(place.made(), made);

    let listed = place.output(["ls", "--output", "json"]).json();
    let identifier = listed[0]["identifier"].as_str().unwrap();
    let ended = place.output(["gc", identifier, "--include-kept"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(place.made(), 0);
}

pub(crate) fn an_interrupted_run_keeps_nothing() {
    let place = Place::new();
    place.run_file(json!({}), json!({}));
    let words = RUN_JSON.into_iter().chain(["--keep", "1h"]);
    let running = Running::start(place.seectl(words));
    running.wait_for("\"wait for sample_finished\"");
    running.signal(rustix::process::Signal::TERM);
    let ended = running.end();
    assert_eq!(ended.code, Some(143), "{ended:?}");
    assert_eq!(place.made(), 0);
}

/// Leaves a dead run, and says how much it made.
fn dead(place: &Place) -> usize {
    place.run_file(json!({}), json!({}));
    let mut running = place.running();
    running.wait_for("\"wait for sample_finished\"");
    let made = place.made();
    running.child.kill().unwrap();
    running.child.wait().unwrap();
    assert!(made > 0);
    assert_eq!(place.made(), made);
    made
}

pub(crate) fn a_run_tidies_first() {
    let place = Place::new();
    let made = dead(&place);
    place.run_file(json!({}), exit(0));
    let untouched = place.output(RUN_JSON.into_iter().chain(["--no-gc"]));
    assert_eq!(untouched.code, Some(0), "{untouched:?}");
    assert_eq!(place.made(), made);
    let ended = place.output(RUN_JSON);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("removed first what dead runs left"),
        "{}",
        ended.stdout
    );
    assert_eq!(place.made(), 0);
}

pub(crate) fn what_cannot_be_removed_fails_no_run() {
    let place = Place::new();
    dead(&place);
    let made = std::fs::read_dir(place.path().join("made")).unwrap();
    let disk = made
        .map(|entry| entry.unwrap().path())
        .find(|path| path.to_str().unwrap().contains("disk-"))
        .unwrap();
    std::fs::rename(&disk, place.path().join("aside")).unwrap();
    std::fs::create_dir(&disk).unwrap();
    std::fs::write(disk.join("precious"), "x").unwrap();
    place.run_file(json!({}), exit(0));
    let ended = place.output(RUN_JSON);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("`seectl gc` says why"),
        "{}",
        ended.stdout
    );
    assert!(disk.exists());
}

pub(crate) fn a_foreign_file() {
    let place = Place::new();
    place.run_file(json!({}), exit(0));
    assert_eq!(place.output(RUN_JSON).code, Some(0));
    let notes = place.path().join("home/.local/state/see/ledger/notes.txt");
    std::fs::write(&notes, "mine").unwrap();
    let ended = place.output(["gc"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("notes.txt: no record, left alone"),
        "{}",
        ended.stdout
    );
    assert!(notes.exists());
}

pub(crate) fn a_lost_terminal() {
    let place = Place::new();
    place.run_file(json!({}), json!({}));
    let (user, mut child) = on_terminal(&place.seectl(RUN), 80);
    // What a person would see of it must be taken, or the terminal is full one day.
    let mut shown = [0; 4096];
    let mut seen = String::new();
    while !seen.contains("running the sample") {
        let read = rustix::io::read(&user, &mut shown).unwrap();
        seen.push_str(&String::from_utf8_lossy(&shown[..read]));
    }
    assert!(place.made() > 0);
    drop(user);
    let end = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < end, "it does not notice");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(129), "{status} {seen}");
    assert_eq!(place.made(), 0);
}

//! Runs with a guest that has booted, whose hooks are at work.

use rustix::process::Signal;
use see_tests::{Home, Live, remains};
use serde_json::json;

use crate::arena::{Arena, Kind, PATIENCE};
use crate::volley::identifier_of;

/// A run whose sample is under way in a booted guest, and its identifier.
fn sampling(arena: &Arena) -> (Live, String) {
    let mut context = Home::embedded();
    context["memory"] = json!("128MiB");
    arena.home().run_file(context);
    arena.home().write("long.sh", "echo begun; sleep 600\n");
    let words = ["run", "run.json", "--sample", "long.sh", "--output", "json"];
    let command = ["--command", "sh {sample}", "--runtime", "90s", "--no-gc"];
    let mut live = Live::start(&mut arena.seectl(&[&words[..], &command[..]].concat()));
    let identifier = identifier_of(&mut live);
    let running = live.wait_for("sample that runs", PATIENCE, |line| {
        line["event"] == "step_started" && line["attributes"]["step"] == "wait for sample_finished"
    });
    assert!(running.is_some(), "the sample was not run: {live:#?}");
    (live, identifier)
}

#[test]
fn a_run_that_is_killed_in_mid_sample_is_collected_and_a_dry_run_changes_nothing() {
    let arena = Arena::new(Kind::Embedded);
    let (live, identifier) = sampling(&arena);
    let outcome = live.kill();
    assert_eq!(outcome.code, None, "{outcome:#?}");
    let record = arena.home().record(&identifier);
    let machine = see_tests::emulator(&identifier);
    assert!(machine.is_some(), "nothing outlived its owner");
    let mut paths = arena.home().recorded_paths(&identifier);
    // Other kinds of resources have a location, too, at which no file lies.
    paths.retain(|path| path.exists());
    assert!(!paths.is_empty(), "nothing was made");
    let dry = arena.collect_with(&["--dry-run"]);
    assert_eq!(dry.code, Some(0), "{dry:#?}");
    assert_eq!(arena.home().record(&identifier), record);
    assert_eq!(see_tests::emulator(&identifier), machine);
    for path in paths {
        assert!(path.exists(), "a dry run removed {}", path.display());
    }

    let gone = arena.collect();
    assert_eq!(gone.code, Some(0), "{gone:#?}");
    assert_eq!(arena.left_of(&[&identifier]), Vec::<String>::new());
}

#[test]
fn an_interrupt_in_mid_sample_ends_the_run_in_order() {
    let arena = Arena::new(Kind::Embedded);
    let (mut live, identifier) = sampling(&arena);
    live.signal(Signal::INT);
    let outcome = live.finish(PATIENCE);
    assert_eq!(outcome.code, Some(130), "{outcome:#?}");
    assert_eq!(
        outcome.result()["result"]["identifier"],
        identifier.as_str()
    );
    assert_eq!(arena.left_of(&[&identifier]), Vec::<String>::new());
    assert_eq!(remains(&identifier), Vec::<String>::new());
}

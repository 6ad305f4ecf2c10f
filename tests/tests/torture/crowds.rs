//! Many environments at once, in one process and in many.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rustix::process::Signal;
use see_tests::{Home, Lab, Live, assert_nothing_remains, finish, spawn};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use crate::arena::{Arena, Kind, PATIENCE};
use crate::volley::{code_of, identifier_of};

const IN_ONE_PROCESS: usize = 16;
const PROCESSES: usize = 8;
const CONTAINERS: usize = 8;

/// A run that stays, and collects nothing beforehand.
const QUIET: [&str; 5] = ["run", "long.json", "--no-gc", "--output", "json"];

/// Set in the process that a test starts to be alone in it: libvirt's embedded driver, once it is open, keeps a
/// process from its daemon.
const INSIDE: &str = "SEE_TEST_INSIDE_A_PROCESS";

#[test]
fn sixteen_embedded_environments_at_once_in_one_process_do_not_clash_and_leave_nothing() {
    let context = json!({ "memory": "32MiB" });
    crowd(
        "crowds::sixteen_embedded_environments_at_once_in_one_process_do_not_clash_and_leave_nothing",
        &context,
    );
}

#[test]
fn sixteen_environments_of_a_daemon_at_once_in_one_process_do_not_clash_and_leave_nothing() {
    // They take their networks from one range.
    let context = json!({
        "memory": "32MiB",
        "hypervisor": "qemu:///system",
        "network": {
            "dynamic_address": { "ipv4": "10.214.0.0", "prefix": 16, "subnet_prefix": 24 },
        },
    });
    crowd(
        "crowds::sixteen_environments_of_a_daemon_at_once_in_one_process_do_not_clash_and_leave_nothing",
        &context,
    );
}

/// Makes sixteen environments with this context section at once, in a process of its own.
fn crowd(test: &str, context: &Value) {
    if std::env::var_os(INSIDE).is_some() {
        return sixteen(context);
    }
    let home = Home::new();
    let mut inside = Command::new(std::env::current_exe().expect("a test has a path"));
    inside
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1");
    home.furnish(&mut inside);
    let outcome = finish(spawn(&mut inside), PATIENCE);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert!(outcome.stdout.contains("1 passed"), "{outcome:#?}");
}

fn sixteen(context: &Value) {
    let home = Home::passable();
    home.write("small.img", vec![1; 1 << 20]);
    let mut context = context.clone();
    context["disk"] = json!({ "image": home.path("small.img") });
    let run = json!({ "version": 1, "context": context, "hooks": { "hooks": [] } });
    let file = home.write("run.json", run.to_string());
    let runtime = tokio::runtime::Runtime::new().expect("there are threads");
    let identifiers = runtime.block_on(async {
        let lab = Arc::new(Lab::new(&home));
        let gate = Arc::new(Barrier::new(IN_ONE_PROCESS));
        let lives: Vec<_> = (0..IN_ONE_PROCESS)
            .map(|_| tokio::spawn(live(Arc::clone(&lab), file.clone(), Arc::clone(&gate))))
            .collect();
        let mut identifiers = Vec::new();
        for life in lives {
            identifiers.push(life.await.expect("no environment fails"));
        }
        let lab = Arc::into_inner(lab).expect("all have ended");
        lab.finish().await;
        identifiers
    });
    assert_eq!(identifiers.len(), IN_ONE_PROCESS);
    for identifier in identifiers {
        assert_nothing_remains(&identifier);
    }
    assert_eq!(home.recorded(), Vec::<String>::new());
}

/// One environment, which runs while all others do.
async fn live(lab: Arc<Lab>, file: PathBuf, gate: Arc<Barrier>) -> String {
    let mut watched = lab.allocate(&file).await.expect("a whole environment");
    let mut turn = watched.environment.turn().await.expect("it is not stopped");
    turn.poweron().await.expect("it starts");
    drop(turn);
    let all = tokio::time::timeout(PATIENCE / 2, gate.wait()).await;
    all.expect("the others run, too");
    let identifier = watched.identifier();
    watched.end().await;
    identifier
}

#[test]
fn eight_processes_at_once_do_not_clash_and_leave_nothing() {
    let arena = Arena::new(Kind::Embedded);
    // One home, and each of them collects first what dead ones left, as it does by itself.
    together(&arena, &["run", "long.json", "--output", "json"], PROCESSES);
}

#[test]
fn eight_processes_of_one_daemon_at_once_do_not_clash_and_leave_nothing() {
    let arena = Arena::new(Kind::System);
    together(&arena, &QUIET, PROCESSES);
}

#[test]
fn containers_of_many_processes_at_once_do_not_clash_and_leave_nothing() {
    let arena = Arena::new(Kind::Lxc);
    together(&arena, &QUIET, CONTAINERS);
}

/// Each process holds its machine until all of them have one that runs.
fn together(arena: &Arena, words: &[&str], count: usize) {
    let mut lives: Vec<Live> = (0..count)
        .map(|_| Live::start(&mut arena.seectl(words)))
        .collect();
    let identifiers: Vec<String> = lives.iter_mut().map(identifier_of).collect();
    for live in &mut lives {
        let runs = live.wait_for("machine that runs", PATIENCE, |line| {
            line["event"] == "step_finished" && line["attributes"]["step"] == "poweron"
        });
        assert!(runs.is_some(), "{live:#?}");
    }
    for live in &mut lives {
        assert!(live.runs(), "it did not wait for the others: {live:#?}");
        live.signal(Signal::TERM);
    }
    for live in lives {
        let outcome = live.finish(PATIENCE);
        assert_eq!(outcome.code, code_of(Signal::TERM), "{outcome:#?}");
    }
    let identifiers: Vec<&str> = identifiers.iter().map(String::as_str).collect();
    assert_eq!(arena.left_of(&identifiers), Vec::<String>::new());
    assert_eq!(arena.left_at_all(), Vec::<String>::new());
}

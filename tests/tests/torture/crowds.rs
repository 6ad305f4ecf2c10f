//! Many environments at once, in one process and in many.

use std::process::Command;
use std::sync::Arc;

use see_tests::{Home, Lab, Live, assert_nothing_remains};
use serde_json::json;

use crate::arena::{Arena, Kind, PATIENCE};
use crate::volley::identifier_of;

const IN_ONE_PROCESS: usize = 16;
const PROCESSES: usize = 8;

#[test]
fn sixteen_environments_at_once_in_one_process_do_not_clash_and_leave_nothing() {
    // For its lock: it is no good to crowd a machine that is crowded.
    let _arena = Arena::new(Kind::Embedded);
    let home = Home::passable();
    home.write("small.img", vec![1; 1 << 20]);
    let files: Vec<_> = (0..IN_ONE_PROCESS)
        .map(|number| {
            let mut context = json!({
                "memory": "32MiB",
                "disk": { "image": home.path("small.img") },
            });
            // Half of them share a daemon, and take networks from one range.
            if number % 2 == 1 {
                context["hypervisor"] = json!("qemu:///system");
                context["network"] = json!({
                    "dynamic_address": { "ipv4": "10.214.0.0", "prefix": 16, "subnet_prefix": 24 },
                });
            }
            let run = json!({ "version": 1, "context": context, "hooks": { "hooks": [] } });
            home.write(&format!("run-{number}.json"), run.to_string())
        })
        .collect();
    let runtime = tokio::runtime::Runtime::new().expect("there are threads");
    let identifiers = runtime.block_on(async {
        let lab = Arc::new(Lab::new(&home));
        let gate = Arc::new(tokio::sync::Barrier::new(IN_ONE_PROCESS));
        let lives: Vec<_> = files
            .into_iter()
            .map(|file| {
                let (lab, gate) = (Arc::clone(&lab), Arc::clone(&gate));
                tokio::spawn(async move {
                    let mut watched = lab.allocate(&file).await.expect("a whole environment");
                    let mut turn = watched.environment.turn().await.expect("it is not stopped");
                    turn.poweron().await.expect("it starts");
                    drop(turn);
                    // All of them run before the first one ends.
                    gate.wait().await;
                    let identifier = watched.identifier();
                    watched.end().await;
                    identifier
                })
            })
            .collect();
        let mut identifiers = Vec::new();
        for life in lives {
            identifiers.push(life.await.expect("no environment fails"));
        }
        let lab = Arc::into_inner(lab).expect("all have ended");
        lab.finish().await;
        identifiers
    });
    for identifier in identifiers {
        assert_nothing_remains(&identifier);
    }
    assert_eq!(home.recorded(), Vec::<String>::new());
}

#[test]
fn eight_processes_at_once_do_not_clash_and_leave_nothing() {
    let embedded = Arena::new(Kind::Embedded);
    // One home, and each of them collects first what dead ones left, as it does by itself.
    let run = || -> Command { embedded.seectl(&["run", "run.json", "--output", "json"]) };
    let mut lives: Vec<Live> = (0..PROCESSES).map(|_| Live::start(&mut run())).collect();
    let identifiers: Vec<String> = lives.iter_mut().map(identifier_of).collect();
    for live in lives {
        let outcome = live.finish(PATIENCE);
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    }
    let identifiers: Vec<&str> = identifiers.iter().map(String::as_str).collect();
    assert_eq!(embedded.left_of(&identifiers), Vec::<String>::new());
}

#[test]
fn eight_processes_of_one_daemon_at_once_do_not_clash_and_leave_nothing() {
    let arena = Arena::new(Kind::System);
    let mut lives: Vec<Live> = (0..PROCESSES)
        .map(|_| Live::start(&mut arena.run("run.json")))
        .collect();
    let identifiers: Vec<String> = lives.iter_mut().map(identifier_of).collect();
    for live in lives {
        let outcome = live.finish(PATIENCE);
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    }
    let identifiers: Vec<&str> = identifiers.iter().map(String::as_str).collect();
    assert_eq!(arena.left_of(&identifiers), Vec::<String>::new());
}

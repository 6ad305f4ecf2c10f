//! The proof of a closed network, from inside a real guest.

use see_tests::Outcome;
use serde_json::json;

use crate::isolated::AGENT_PORT;
use crate::support::{RUN, SANDBOX_FAILED, Site, allocated, sampling, token, told};

#[test]
fn a_guest_tries_everything_before_its_sample_runs_and_proves_its_network_closed() {
    let site = Site::new();
    // There is something to find: services, another network, a cloud's secrets.
    site.open_up();
    let run_file = site.run_file("run.json", json!({ "mode": "isolated" }), sampling());
    let outcome = site.run(&run_file, "true");
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(told(&outcome, "/isolation/verdict"), json!("proven"));
    let proven = outcome.events("isolation_proven");
    assert_eq!(proven.len(), 1, "{outcome:#?}");
    let tried = proven[0]["attributes"]["tried"].as_u64();
    assert!(tried.is_some_and(|tried| tried >= 10), "{proven:?}");
    let at = |event: &str| outcome.events(event)[0]["timestamp"].as_f64();
    assert!(
        at("isolation_proven") < at("sample_started"),
        "{outcome:#?}"
    );
}

#[test]
fn a_closed_network_that_nobody_proves_fails_the_run_before_the_power_comes_on() {
    let site = Site::new();
    let python_see = json!([{ "name": "commands", "configuration": { "agent-port": 8080 } }]);
    let steps = || json!([{ "step": "poweron" }, { "step": "wait", "timeout": "2s" }]);
    for (mode, more, hooks) in [
        ("isolated", json!({}), json!([])),
        ("shared", json!({ "verify": true }), json!([])),
        ("isolated", json!({}), python_see),
    ] {
        let mut network = json!({ "mode": mode });
        let keys = network.as_object_mut().expect("an object");
        keys.extend(more.as_object().expect("an object").clone());
        let context = json!({ "network": network });
        let run_file = site.run_file_of("run.json", context, hooks, steps());
        let outcome = site.run(&run_file, "true");
        assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
        assert_eq!(told(&outcome, "/isolation/verdict"), json!("unproven"));
        let failure = told(&outcome, "/failure").to_string();
        for part in ["poweron", "`commands`", "false` in `network`"] {
            assert!(failure.contains(part), "no {part} in {failure}");
        }
        assert_eq!(outcome.events("pre_poweron").len(), 0, "{outcome:#?}");
        assert_eq!(told(&outcome, "/left_behind"), json!([]));
    }
    let context = json!({ "network": { "mode": "isolated", "verify": false } });
    let run_file = site.run_file_of("run.json", context, json!([]), steps());
    let outcome = site.run(&run_file, "true");
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(told(&outcome, "/isolation/verdict"), json!("not_checked"));
}

/// Fails unless the guest proved its network closed.
fn assert_proven(outcome: &Outcome) {
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(told(outcome, "/isolation/verdict"), json!("proven"));
    assert_eq!(outcome.events("isolation_proven").len(), 1, "{outcome:#?}");
    assert_eq!(told(outcome, "/left_behind"), json!([]));
}

#[test]
fn guests_that_sit_on_the_shared_network_together_prove_it_closed_each() {
    let site = Site::new();
    site.open_up();
    let run_file = site.run_file("run.json", json!({ "mode": "shared" }), sampling());
    let mut runs = [(); 2].map(|()| site.start(&run_file, "true"));
    // Both have a seat before either is asked to prove anything.
    runs.iter_mut().for_each(allocated);
    for run in runs {
        assert_proven(&run.finish(RUN));
    }
}

#[test]
fn a_guest_whose_agent_is_asked_through_the_walls_proves_them_closed() {
    let site = Site::new();
    site.open_up();
    let context = json!({
        "network": { "mode": "isolated" },
        "agent": { "transport": "tcp", "port": AGENT_PORT, "token": token() },
    });
    let run_file = site.run_file_with("run.json", context, sampling());
    assert_proven(&site.run(&run_file, "true"));
}

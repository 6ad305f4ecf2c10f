//! The proof of a closed network, from inside a real guest.

use serde_json::json;

use crate::support::{Site, sampling, told};

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

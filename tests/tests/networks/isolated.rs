//! A network of the guest's own, closed.

use std::time::Duration;

use see_tests::until;
use serde_json::json;

use crate::support::{RUN, Site, answered, is_event, probe, sampling, stdout, token, told};

/// The port on which the small guest's agent listens.
const AGENT_PORT: u16 = 8020;

#[test]
fn an_isolated_guest_answers_its_agents_host_and_reaches_nothing() {
    let site = Site::new();
    site.open_up();
    // Only the agent's connection goes through the wall.
    let context = json!({
        "network": { "mode": "isolated", "verify": false },
        "agent": { "transport": "tcp", "port": AGENT_PORT, "token": token() },
    });
    let run_file = site.run_file_with("run.json", context, sampling());
    // The host's address is the one before the guest's. Its own address stays, lest the agent is lost.
    let own = probe(["$gateway", "198.51.100.9", "fd99::1", "fd99::3"]);
    let own = own
        .split("# As the other guest")
        .next()
        .expect("the first part");
    let command = format!(
        "gateway=$(ip -4 -o addr show eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/' | \
         awk -F. '{{ print $1\".\"$2\".\"$3\".\"$4-1 }}')\n{own}"
    );
    let mut run = site.start(&run_file, &command);
    run.wait_for("the sample", RUN, is_event("run_sample"))
        .unwrap_or_else(|| panic!("it ended: {run:#?}"));
    let outcome = run.finish(RUN);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let printed = stdout(&outcome);
    assert_eq!(
        answered(&printed, "open"),
        Vec::<String>::new(),
        "{printed}"
    );
    assert_eq!(answered(&printed, "closed").len(), 14, "{printed}");
    assert_eq!(told(&outcome, "/isolation/verdict"), json!("not_checked"));
    assert_eq!(told(&outcome, "/left_behind"), json!([]));
    until("the end of the network", Duration::from_secs(10), || {
        site.traces().is_empty()
    });
}

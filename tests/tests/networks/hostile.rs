//! A closed network under a domain's XML that is made to let the guest out.

use std::time::Duration;

use see_tests::hostile::{MADE_HARMLESS, TRY, Target};
use see_tests::{assert_nothing_remains, until};
use serde_json::json;

use crate::neighbour::inside;
use crate::shared::gateway;
use crate::support::{QUESTIONS, RUN, Site, answered, is_event, probe, sampling, stdout, told};

/// The address of the host on the guest's network, which is the one before the guest's own.
const OWN_GATEWAY: &str = "$(ip -4 -o addr show eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/' | \
    awk -F. '{ print $1\".\"$2\".\"$3\".\"$4-1 }')";

#[test]
fn what_is_made_harmless_lets_no_guest_of_a_closed_network_out() {
    let site = Site::new();
    site.open_up();
    let folder = site.home.path("user");
    let mut target = inside(&site.namespace(), move || Target::new(&folder));
    // Another guest, which would answer.
    let run_file = site.run_file("first.json", json!({ "mode": "shared" }), sampling());
    let stay = "nc -ll -p 7000 -e echo hi & while :; do sleep 1; done";
    let mut first = site.start(&run_file, stay);
    let address = first.wait_for("address", RUN, is_event("ip_address"));
    let address = address.unwrap_or_else(|| panic!("it ended: {first:#?}"));
    let other = address["attributes"]["address"].as_str();
    let other = other.expect("an address is text").to_owned();
    first
        .wait_for("the sample", RUN, is_event("run_sample"))
        .unwrap_or_else(|| panic!("it ended: {first:#?}"));

    let domain = target.domain(&MADE_HARMLESS.join("\n"), "");
    let shared = gateway(&site, "virbr-see");
    let runs = [("isolated", OWN_GATEWAY), ("shared", &*shared)].map(|(mode, gateway)| {
        let run = json!({
            "version": 1,
            "context": {
                "hypervisor": site.daemon.uri(),
                "domain": { "configuration": domain },
                "disk": { "image": target.image() },
                "network": { "mode": mode },
            },
            "hooks": { "hooks": [
                { "name": "commands", "configuration": { "ready_timeout": "160s" } } ] },
            "protocol": sampling(),
        });
        let run_file = site.home.write(&format!("{mode}.json"), run.to_string());
        let asked = probe(["\"$gateway\"", &other, "fd99::1", "fd99::3"], 1);
        // The questions wait for all that their shell has begun; a line that nobody reads holds up who writes to it.
        let hostile = target.filled_in(TRY);
        let command = format!("({hostile})\ngateway={gateway}\n{asked}");
        (mode, site.start(&run_file, &command))
    });
    for (mode, run) in runs {
        let outcome = run.finish(RUN);
        assert_eq!(outcome.code, Some(0), "{mode}: {outcome:#?}");
        let printed = stdout(&outcome);
        let open = answered(&printed, "open");
        assert_eq!(open, Vec::<String>::new(), "{mode}: {printed}");
        let closed = answered(&printed, "closed").len();
        assert_eq!(closed, QUESTIONS, "{mode}: {printed}");
        assert_eq!(told(&outcome, "/isolation/verdict"), json!("proven"));
        let identifier = told(&outcome, "/identifier");
        assert_nothing_remains(identifier.as_str().expect("it has one"));
    }
    target.assert_untouched("closed");

    // Who was asked for was there all the time.
    assert!(first.runs(), "{first:#?}");
    first.signal(rustix::process::Signal::TERM);
    let outcome = first.finish(RUN);
    assert_eq!(told(&outcome, "/isolation/verdict"), json!("proven"));
    until("the end of the networks", Duration::from_secs(10), || {
        site.traces().is_empty()
    });
}

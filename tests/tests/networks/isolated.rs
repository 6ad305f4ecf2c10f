//! A network of the guest's own, closed.

use std::net::{TcpListener, UdpSocket};
use std::time::Duration;

use see_tests::until;
use serde_json::json;

use crate::neighbour::{Neighbour, inside, serve};
use crate::support::{
    OWN_QUESTIONS, RUN, Site, allocated, answered, is_event, probe, sampling, stdout, token, told,
};

/// The port on which the small guest's agent listens.
pub(crate) const AGENT_PORT: u16 = 8020;

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
    let own = probe(["$gateway", "198.51.100.9", "fd99::1", "fd99::3"], 1);
    let own = own
        .split("# As the other guest")
        .next()
        .expect("the first part");
    let command = format!(
        "gateway=$(ip -4 -o addr show eth0 | sed 's/.*inet \\([0-9.]*\\).*/\\1/' | \
         awk -F. '{{ print $1\".\"$2\".\"$3\".\"$4-1 }}')\n{own}"
    );
    let mut run = site.start(&run_file, &command);
    allocated(&mut run);
    // Only the walls are in the way to the host and to whoever else may be on the bridge, in IPv6, too.
    let links = site.daemon.told("ip", &["-o", "link"]);
    let mut names = links.lines().filter_map(|line| line.split(": ").nth(1));
    let bridge = names.find(|name| name.starts_with("virbr"));
    let bridge = bridge.expect("the network has a bridge");
    // libvirt's server of names is not there, which would tell the guest's questions to the world.
    let names = format!("{}:53", crate::shared::gateway(&site, bridge));
    let free = inside(&site.namespace(), move || {
        UdpSocket::bind(&names).is_ok() && TcpListener::bind(&names).is_ok()
    });
    assert!(free, "somebody listens on port 53 of the gateway");
    let neighbour = Neighbour::new(
        &site,
        "other0",
        &format!(
            "echo 0 >/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6
             ip -6 addr add fd99::1/64 dev {bridge} nodad; ip link set other0 master {bridge} up"
        ),
        "ip addr add 198.51.100.9/24 dev eth0; ip -6 addr add fd99::3/64 dev eth0 nodad
         ip link set eth0 up",
    );
    serve(neighbour.namespace(), &["[::]:7000"], &[]);
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
    assert_eq!(
        answered(&printed, "closed").len(),
        OWN_QUESTIONS,
        "{printed}"
    );
    assert_eq!(told(&outcome, "/isolation/verdict"), json!("not_checked"));
    assert_eq!(told(&outcome, "/left_behind"), json!([]));
    until("the end of the network", Duration::from_secs(10), || {
        site.traces().is_empty()
    });
}

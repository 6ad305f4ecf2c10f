//! Who a guest is to the network's DHCP server.

use std::net::IpAddr;
use std::time::Duration;

use see_libvirt::xml::NetworkXml;
use see_tests::until;
use serde_json::json;

use crate::support::{RUN, Site, allocated, staying};

/// What asks the server.
const CLIENTS: &str = include_str!("identity.py");

#[test]
fn a_guest_cannot_take_or_give_up_anothers_lease_by_its_client_identifier() {
    let site = Site::new();
    let network = json!({ "mode": "shared", "verify": false });
    let mut run = site.start(&site.run_file("run.json", network, staying()), "true");
    allocated(&mut run);
    let uri = site.daemon.uri();
    let virsh = |words: &[&str]| {
        let all = [&["-q", "-c", &uri], words].concat();
        site.daemon.told("virsh", &all)
    };
    let xml = NetworkXml::parse(&virsh(&["net-dumpxml", "see-shared"])).expect("it is XML");
    // The first seat is the run's.
    let hosts = xml.dhcp_hosts();
    let [_, first, second, ..] = hosts.as_slice() else {
        panic!("{hosts:?}");
    };
    // Two clients on the bridge, around which no walls stand.
    let shell = "ip link add port0 type veth peer name end0 && ip link set port0 master virbr-see up && \
         ip link set end0 up";
    site.daemon.told("sh", &["-ec", shell]);
    let script = site.home.write("identity.py", CLIENTS);
    let addresses = [first.1.to_string(), second.1.to_string()];
    let words = [
        script.to_str().expect("it is text"),
        "end0",
        &first.0,
        &addresses[0],
        &second.0,
        &addresses[1],
    ];
    site.daemon.told("python3", &words);
    let has_lease = |leases: &str, (mac, address): &(String, IpAddr)| {
        let end = format!("{address}/");
        let is_theirs = |line: &str| line.contains(mac.as_str()) && line.contains(&end);
        leases.lines().any(is_theirs)
    };
    // The server has each change written down after its answer, in order: the second client's lease was the last one.
    let mut leases = String::new();
    until("the second client's lease", Duration::from_secs(20), || {
        leases = virsh(&["net-dhcp-leases", "see-shared"]);
        has_lease(&leases, second)
    });
    assert!(has_lease(&leases, first), "{first:?} is lost: {leases}");
    site.daemon.told("ip", &["link", "del", "port0"]);
    run.signal(rustix::process::Signal::TERM);
    run.finish(RUN);
}

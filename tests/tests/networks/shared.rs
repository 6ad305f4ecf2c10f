//! The shared network.

use std::time::Duration;

use see_libvirt::xml::NetworkXml;
use see_tests::{Live, until};
use serde_json::{Value, json};

use crate::neighbour::{Neighbour, serve};
use crate::support::{
    QUESTIONS, RUN, SANDBOX_FAILED, Site, allocated, answered, is_event, probe, sampling, stdout,
    told,
};

#[test]
fn guests_on_the_shared_network_reach_neither_each_other_nor_the_host_nor_the_world() {
    let site = Site::new();
    site.open_up();
    let network = || json!({ "mode": "shared", "verify": false });
    let first = site.run_file("first.json", network(), sampling());
    let stay = "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; ip -6 addr add fd99::3/64 dev eth0; \
                nc -ll -p 7000 -e echo hi & while :; do sleep 1; done";
    let mut first = site.start(&first, stay);
    let told_address = first.wait_for("address", RUN, is_event("ip_address"));
    let told_address = told_address.unwrap_or_else(|| panic!("it ended: {first:#?}"));
    let other = told_address["attributes"]["address"]
        .as_str()
        .expect("an address is text")
        .to_owned();
    first
        .wait_for("the sample", RUN, is_event("run_sample"))
        .expect("it runs");

    // libvirt leaves IPv6 off on the bridge: with it, nothing but our rules is in the way.
    site.daemon.told(
        "sh",
        &[
            "-c",
            "echo 0 >/proc/sys/net/ipv6/conf/virbr-see/disable_ipv6 && \
             ip -6 addr add fd99::1/64 dev virbr-see nodad",
        ],
    );
    let gateway = gateway(&site, "virbr-see");
    let second = site.run_file("second.json", network(), sampling());
    let asked = probe([&gateway, &other, "fd99::1", "fd99::3"], 1);
    let mut second = site.start(&second, &asked);
    // The same questions where nothing is closed, so that it is known that they are asked well.
    let (mut control, _neighbour) = open_network(&site);
    // What the bridge and the host learn of hardware addresses meanwhile.
    let mut learnt = String::new();
    until("the end of the questions", RUN, || {
        learnt += &site.daemon.told("bridge", &["fdb", "show"]);
        learnt += &site.daemon.told("ip", &["neigh", "show"]);
        std::thread::sleep(Duration::from_millis(200));
        !second.runs() && !control.runs()
    });
    let (outcome, control) = (second.finish(RUN), control.finish(RUN));
    assert_eq!(control.code, Some(0), "{control:#?}");
    let control = stdout(&control);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let printed = stdout(&outcome);
    assert_eq!(
        answered(&printed, "open"),
        Vec::<String>::new(),
        "{printed}"
    );
    assert_eq!(answered(&printed, "closed").len(), QUESTIONS, "{printed}");
    let second_mac = learnt
        .lines()
        .find(|line| line.contains("52:54:00:aa:bb:cc") && line.contains("virbr-see"));
    assert_eq!(second_mac, None);
    // Nobody learnt that the first guest's address is another's.
    let uri = site.daemon.uri();
    let dump = ["-q", "-c", &uri, "net-dumpxml", "see-shared"];
    let network = NetworkXml::parse(&site.daemon.told("virsh", &dump)).expect("XML");
    let hosts = network.dhcp_hosts();
    let own = hosts
        .iter()
        .find(|(_, address)| address.to_string() == other);
    let (own, _) = own.expect("the first guest has a seat");
    let spoofed = learnt.lines().find(|line| {
        let is_of_it = line.starts_with(&format!("{other} dev virbr-see "));
        is_of_it && line.contains("lladdr") && !line.contains(&format!("lladdr {own} "))
    });
    assert_eq!(spoofed, None);
    assert_eq!(told(&outcome, "/isolation/verdict"), json!("not_checked"));
    assert_eq!(answered(&control, "open").len(), QUESTIONS, "{control}");
    assert_eq!(answered(&control, "open"), answered(&printed, "closed"));

    // The other's run still stands. Its rules are taken away.
    assert!(first.runs(), "{first:#?}");
    let tables = site.daemon.told("nft", &["list", "tables", "bridge"]);
    let wall = tables
        .lines()
        .filter_map(|line| line.strip_prefix("table bridge "))
        .find(|name| name.starts_with("see-"))
        .expect("the guest has a wall");
    site.daemon
        .told("nft", &["delete", "table", "bridge", wall]);
    let outcome = first.finish(RUN);
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    assert_eq!(told(&outcome, "/isolation/verdict"), json!("broken"));
    let found = told(&outcome, "/isolation/why");
    assert!(found.to_string().contains("firewall rules"), "{found}");
    assert_eq!(told(&outcome, "/teardown_errors"), json!([]));
    // The last one took the network with it.
    until("the end of the network", Duration::from_secs(10), || {
        site.traces().is_empty()
    });
}

/// The host's address on a bridge.
pub(crate) fn gateway(site: &Site, bridge: &str) -> String {
    let shown = site
        .daemon
        .told("ip", &["-j", "-4", "addr", "show", bridge]);
    let shown: Value = serde_json::from_str(&shown).expect("it is JSON");
    let address = shown
        .pointer("/0/addr_info/0/local")
        .and_then(Value::as_str);
    address.expect("the bridge has an address").to_owned()
}

/// The probe on a network that closes nothing: host and neighbour answer there, in IPv4 and IPv6.
fn open_network(site: &Site) -> (Live, Neighbour) {
    let network = json!({ "dynamic_address": {
        "ipv4": "10.93.7.0", "prefix": 24, "subnet_prefix": 24 } });
    let run_file = site.run_file("open.json", network, sampling());
    let asked = probe(["10.93.7.1", "10.93.7.200", "fd98::1", "fd98::3"], 5);
    let mut run = site.start(&run_file, &asked);
    allocated(&mut run);
    let shown = site.daemon.told("ip", &["-j", "-4", "addr", "show"]);
    let shown: Value = serde_json::from_str(&shown).expect("it is JSON");
    let links = shown.as_array().into_iter().flatten();
    let bridge = links
        .filter(|link| link.pointer("/addr_info/0/local") == Some(&json!("10.93.7.1")))
        .find_map(|link| link["ifname"].as_str());
    let bridge = bridge.expect("the open network has a bridge");
    let neighbour = Neighbour::new(
        site,
        "other0",
        &format!(
            "echo 0 >/proc/sys/net/ipv6/conf/{bridge}/disable_ipv6
             ip -6 addr add fd98::1/64 dev {bridge} nodad; ip link set other0 master {bridge} up"
        ),
        "ip addr add 10.93.7.200/24 dev eth0; ip -6 addr add fd98::3/64 dev eth0 nodad
         ip link set eth0 up",
    );
    serve(neighbour.namespace(), &["[::]:7000"], &[]);
    (run, neighbour)
}

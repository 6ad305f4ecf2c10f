//! Subnets and bridges: never somebody else's.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;

use see_core::Identifier;
use see_libvirt::xml::NetworkXml;
use see_tests::{GROUP, Home, Lab, Live, Nobody};
use serde_json::{Value, json};

use crate::support::{SANDBOX_FAILED, Site, allocated, passing, sampling, staying, stdout, told};

/// What a neighbour runs.
const BESIDE: &str = "sleep 3; echo undisturbed";

fn within(network: &str, prefix: u8, subnet_prefix: u8) -> Value {
    json!({ "dynamic_address": {
        "ipv4": network, "prefix": prefix, "subnet_prefix": subnet_prefix } })
}

/// The addresses of the daemon's networks, but for a neighbour's.
pub(crate) fn subnets(site: &Site) -> Vec<(IpAddr, u8)> {
    let virsh = |arguments: &[&str]| {
        let uri = site.daemon.uri();
        let all = [&["-q", "-c", &uri], arguments].concat();
        site.daemon.told("virsh", &all)
    };
    virsh(&["net-list", "--all", "--name"])
        .lines()
        .filter(|name| !name.is_empty())
        .flat_map(|name| {
            let xml = NetworkXml::parse(&virsh(&["net-dumpxml", name]));
            xml.expect("libvirt writes XML").subnets()
        })
        .filter(|(address, _)| address.to_string() != "10.92.0.1")
        .collect()
}

#[test]
fn processes_and_users_that_allocate_at_once_get_different_subnets_until_none_is_left() {
    let site = Site::new();
    let image = site.home.path("guest.qcow2");
    std::fs::set_permissions(image, Permissions::from_mode(0o444)).expect("it is ours");
    let user = Nobody::of(Home::passable());
    let beside = neighbour(&site);
    // A network without addresses is nobody's obstacle.
    let bare = site.home.write(
        "bare.xml",
        "<network><name>bare</name><bridge name='virbr-bare'/></network>",
    );
    let bare = bare.to_str().expect("a path of a test is text");
    let uri = site.daemon.uri();
    site.daemon
        .told("virsh", &["-q", "-c", &uri, "net-create", bare]);
    // Exactly as many subnets as processes.
    let run_file = site.run_file("run.json", within("10.93.1.0", 24, 27), staying());
    let start = |turn: usize| {
        let seectl = match turn % 2 {
            0 => site.home.seectl(),
            _ => user.seectl(Some(GROUP)),
        };
        let mut command = site.command_of(seectl, &run_file, "true");
        // A folder above, too, would be that of whoever is first.
        let results = user.own.join(format!("results-{turn}"));
        Live::start(command.arg("--results").arg(results))
    };
    let mut runs: Vec<Live> = (0..8).map(start).collect();
    runs.iter_mut().for_each(allocated);
    let found = subnets(&site);
    let distinct: BTreeSet<_> = found.iter().collect();
    assert_eq!((found.len(), distinct.len()), (8, 8), "{found:?}");
    assert!(found.iter().all(|(_, prefix)| *prefix == 27), "{found:?}");

    let late = site.run_file("late.json", within("10.93.1.0", 24, 27), passing());
    let outcome = site.run(&late, "true");
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    let failure = told(&outcome, "/failure").to_string();
    assert!(failure.contains("is in use"), "{failure}");
    assert_eq!(told(&outcome, "/left_behind"), json!([]));
    assert_eq!(subnets(&site).len(), 8, "the neighbours go on");
    let mut unprivileged = Vec::new();
    for (turn, mut run) in runs.into_iter().enumerate() {
        run.signal(rustix::process::Signal::TERM);
        let outcome = run.finish(crate::support::RUN);
        assert_eq!(outcome.code, Some(143), "{outcome:#?}");
        if turn % 2 == 1 {
            let identifier = told(&outcome, "/identifier");
            unprivileged.push(identifier.as_str().expect("it has one").to_owned());
        }
    }
    assert_undisturbed(beside);
    let mut left = site.traces();
    // libvirt leaves the numbers of its address servers, which only root may remove.
    left.retain(|trace| {
        let is = |identifier| *trace == format!("/run/libvirt/network/{identifier}.pid");
        !unprivileged.iter().any(is)
    });
    assert_eq!(left, ["virbr-bare"], "which is somebody else's");
}

/// A guest with a network of its own beside the others, which runs a sample once it has an address.
fn neighbour(site: &Site) -> Live {
    let network = within("10.92.0.0", 24, 24);
    let mut live = site.start(&site.run_file("beside.json", network, sampling()), BESIDE);
    allocated(&mut live);
    live
}

fn assert_undisturbed(neighbour: Live) {
    let outcome = neighbour.finish(crate::support::RUN);
    assert_eq!(outcome.code, Some(0), "the neighbour: {outcome:#?}");
    assert_eq!(stdout(&outcome), "undisturbed\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_exists_is_told_and_left_and_the_neighbour_finishes() {
    let site = Site::new();
    let beside = neighbour(&site);
    // A bridge gets eight digits of the identifier, wherever they stand in it: here there are few such names.
    let text = "44444444-4444-4444-8444-444444444444";
    let identifier: Identifier = text.parse().expect("an identifier");
    let digits = text.replace('-', "");
    let names: BTreeSet<String> = (0..=digits.len() - 8)
        .map(|start| format!("virbr-{}", &digits[start..start + 8]))
        .collect();
    for name in &names {
        site.daemon
            .told("ip", &["link", "add", name, "type", "bridge"]);
    }
    let ours = |links: &str| -> Vec<String> {
        let lines = links.lines().filter(|line| line.contains("virbr-4"));
        let mut lines: Vec<String> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let bridges = || {
        ours(
            &site
                .daemon
                .told("ip", &["-o", "link", "show", "type", "bridge"]),
        )
    };
    let before = bridges();
    let run_file = site.run_file("run.json", within("10.93.3.0", 24, 28), passing());
    let lab = Lab::new(&site.home);
    let error = lab.allocate_as(&run_file, identifier).await;
    let error = error.expect_err("no bridge is free").chain();
    assert!(
        error.contains("virbr-4") && error.contains("exists already"),
        "{error}"
    );
    assert_eq!(bridges(), before, "they are somebody else's");
    for name in &names {
        site.daemon.told("ip", &["link", "delete", name]);
    }
    assert_eq!(see_tests::remains(text), Vec::<String>::new());
    assert_eq!(site.daemon.objects(text), Vec::<String>::new());
    lab.finish().await;
    assert_undisturbed(beside);
}

#[test]
fn a_subnet_inside_anothers_network_or_route_is_taken_in_every_table_and_family() {
    let site = Site::new();
    let shell = "ip link add other type bridge && ip link set other up && \
        ip route add 10.94.0.0/17 dev other table 100 && \
        ip addr add 10.94.200.1/18 dev other && \
        ip -6 route add fd94:0:0:1::/64 dev other table 100 && \
        ip route add 0.0.0.0/1 dev other";
    site.daemon.told("sh", &["-c", shell]);
    // Free are 10.94.128.0/18 alone, and the lower half of the IPv6 network.
    let network = json!({ "dynamic_address": [
        { "ipv4": "10.94.0.0", "prefix": 16, "subnet_prefix": 18 },
        { "ipv6": "fd94::", "prefix": 63, "subnet_prefix": 64 },
    ] });
    let run_file = site.run_file("run.json", network, staying());
    let mut run = site.start(&run_file, "true");
    allocated(&mut run);
    let expected: Vec<(IpAddr, u8)> = vec![
        ("10.94.128.1".parse().expect("an address"), 18),
        ("fd94::1".parse().expect("an address"), 64),
    ];
    assert_eq!(subnets(&site), expected);
    // The XML of a user's own that overlaps is refused.
    site.home.write(
        "network.xml",
        "<network><name>n</name><ip address='10.94.3.1' prefix='24'/></network>",
    );
    let own = json!({ "configuration": "network.xml" });
    let outcome = site.run(&site.run_file("own.json", own, passing()), "true");
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    let failure = told(&outcome, "/failure").to_string();
    assert!(
        failure.contains("a route of this host has 10.94.0.0/17"),
        "{failure}"
    );
    run.signal(rustix::process::Signal::TERM);
    run.finish(crate::support::RUN);
}

#[tokio::test(flavor = "multi_thread")]
async fn identifiers_that_begin_alike_and_bridges_that_exist_get_other_names() {
    let site = Site::new();
    let identifiers: Vec<Identifier> = ["1", "2", "3"]
        .into_iter()
        .map(|digit| {
            let text = format!("0123abcd-{}567-4567-89ab-cdef01234567", digit);
            text.parse().expect("an identifier")
        })
        .collect();
    // Only the daemon sees this device: this process runs in another network.
    site.daemon
        .told("ip", &["link", "add", "virbr-0123abcd", "type", "bridge"]);
    let run_file = site.run_file("run.json", within("10.93.2.0", 24, 28), passing());
    let lab = Lab::new(&site.home);
    let (first, second, third) = tokio::join!(
        lab.allocate_as(&run_file, identifiers[0]),
        lab.allocate_as(&run_file, identifiers[1]),
        lab.allocate_as(&run_file, identifiers[2]),
    );
    let links = site.daemon.told("ip", &["-o", "link"]);
    let bridges: BTreeSet<&str> = links
        .lines()
        .filter_map(|line| line.split(": ").nth(1))
        .filter(|name| name.starts_with("virbr-") && *name != "virbr-0123abcd")
        .collect();
    assert_eq!(bridges.len(), 3, "{links}");
    for watched in [first, second, third] {
        let watched = watched.expect("another name is found");
        let ended = watched.environment.deallocate().await;
        assert!(ended.is_clean(), "{ended:?}");
    }
    lab.finish().await;
}

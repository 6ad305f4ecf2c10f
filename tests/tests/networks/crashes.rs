//! What a killed run leaves of networks, and that collecting it harms nobody.

use std::time::Duration;

use see_tests::{finish, spawn, until};
use serde_json::json;

use crate::support::{RUN, Site, allocated, staying, told};

/// The documented exit code of a collection that had to leave something.
const LEFT_BEHIND: i32 = 6;

#[test]
fn walls_seats_and_networks_of_killed_runs_are_collected_and_others_stay() {
    let site = Site::new();
    let foreign = see_core::Identifier::random();
    // Named as ours are, without our label.
    let foreign = format!("see-{foreign}");
    site.daemon.told("nft", &["add", "table", "inet", &foreign]);
    let start = |name: &str, mode: &str| {
        let run_file = site.run_file(name, json!({ "mode": mode, "verify": false }), staying());
        let mut run = site.start(&run_file, "true");
        allocated(&mut run);
        run
    };
    let survivor = start("survivor.json", "shared");
    let before = site.traces();
    for mode in ["shared", "isolated"] {
        let dead = start("dead.json", mode);
        assert!(site.traces().len() > before.len());
        dead.kill();
        let left = site.traces();
        assert!(left.len() > before.len(), "{left:?}");
        let gc = || {
            let mut gc = site.home.seectl();
            gc.args(["gc", "--output", "json"]);
            finish(spawn(&mut site.daemon.beside(gc)), RUN)
        };
        if mode == "isolated" {
            // Somebody else's rules under the dead one's name.
            let new = left.iter().filter(|trace| !before.contains(trace));
            let wall = new
                .filter_map(|trace| trace.strip_prefix("table bridge "))
                .next()
                .expect("the dead one had a wall");
            site.daemon.told("nft", &["flush", "table", "bridge", wall]);
            let outcome = gc();
            assert_eq!(outcome.code, Some(LEFT_BEHIND), "{outcome:#?}");
            let tables = site.daemon.told("nft", &["list", "tables", "bridge"]);
            assert!(tables.contains(wall), "{outcome:#?}");
            site.daemon
                .told("nft", &["delete", "table", "bridge", wall]);
        }
        let outcome = gc();
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        assert_eq!(site.traces(), before, "{outcome:#?}");
    }
    // The last on the shared network takes it away, also when it is dead.
    survivor.kill();
    let outcome = finish(spawn(site.seectl().arg("gc")), RUN);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    until("only the foreign table", Duration::from_secs(10), || {
        site.traces() == [format!("table inet {foreign}")]
    });
}

/// How a daemon's death while it takes a network down goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The run goes on, and tears down.
    Teardown,
    /// The run was killed, too.
    Collection,
    /// The same, and meanwhile somebody made a bridge of the same name.
    Stranger,
}

#[test]
fn what_a_daemon_forgets_of_a_network_goes_with_the_run_or_its_collection_and_a_strangers_bridge_stays()
 {
    let mut site = Site::new();
    let network = json!({ "dynamic_address": {
        "ipv4": "10.95.0.0", "prefix": 16, "subnet_prefix": 24 } });
    let run_file = site.run_file("run.json", network, staying());
    for then in [Then::Teardown, Then::Collection, Then::Stranger] {
        let mut run = site.start(&run_file, "true");
        allocated(&mut run);
        let identifier = site.home.recorded().pop().expect("it has a record");
        let bridge = format!("virbr-{}", &identifier[..8]);
        // As libvirt's backend for nftables, which not every version has, leaves its rules, and a neighbour's.
        let rules = format!(
            "add table ip libvirt_network; flush table ip libvirt_network; \
             add chain ip libvirt_network guest_output; add chain ip libvirt_network guest_nat; \
             add rule ip libvirt_network guest_output ip saddr 10.95.7.0/24 iifname {bridge} counter accept; \
             add rule ip libvirt_network guest_output oif {bridge} counter reject; \
             add rule ip libvirt_network guest_nat ip saddr 10.95.7.0/24 counter return; \
             add rule ip libvirt_network guest_nat ip saddr 10.96.7.0/24 counter return"
        );
        site.daemon.told("nft", &[&rules]);
        let run = match then {
            Then::Teardown => Some(run),
            Then::Collection | Then::Stranger => {
                run.kill();
                None
            }
        };
        // This is how far a daemon comes that dies while it takes a network down: it forgets it first.
        site.daemon.kill();
        let state = format!("rm /run/libvirt/network/{identifier}.xml; ip link set {bridge} down");
        let stranger = format!("ip link delete {bridge}; ip link add {bridge} type bridge");
        let shell = match then {
            Then::Stranger => format!("{state}; {stranger}"),
            _ => state,
        };
        site.daemon.told("sh", &["-ec", &shell]);
        site.daemon.restart();
        assert!(site.traces().contains(&bridge), "{then:?}");

        if let Some(mut run) = run {
            run.signal(rustix::process::Signal::TERM);
            let outcome = run.finish(RUN);
            assert_eq!(outcome.code, Some(143), "{outcome:#?}");
            assert_eq!(told(&outcome, "/left_behind"), json!([]));
        } else {
            let outcome = finish(spawn(site.seectl().arg("gc")), RUN);
            assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        }
        assert_eq!(site.home.recorded(), Vec::<String>::new());
        if then == Then::Stranger {
            site.daemon.told("ip", &["link", "delete", &bridge]);
        }
        assert_eq!(site.traces(), Vec::<String>::new(), "{then:?}");
        let shell = format!(
            "find /run/libvirt /var/lib/libvirt -name '*{identifier}*' -o -name '*{bridge}*'"
        );
        assert_eq!(site.daemon.told("sh", &["-c", &shell]), "", "{then:?}");
        let lines = site.daemon.processes();
        assert!(
            lines.iter().all(|(_, line)| !line.contains(&identifier)),
            "{lines:#?}"
        );
        if then != Then::Stranger {
            let shell = "nft list table ip libvirt_network; iptables -S; iptables -t nat -S; iptables -t mangle -S; ip6tables -S";
            let rules = site.daemon.told("sh", &["-ec", shell]);
            assert!(!rules.contains(&bridge), "{then:?}: {rules}");
            assert!(!rules.contains("10.95."), "{then:?}: {rules}");
            assert!(
                rules.contains("10.96.7.0"),
                "a neighbour's rule stays: {rules}"
            );
        }
    }
}

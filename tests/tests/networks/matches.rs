//! Each match of the rules around a guest's port: none is there for nothing.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::layers::{AGENT, HOST_MAC, OTHER_MAC, Rules, SECOND_MAC};
use crate::neighbour::Neighbour;
use crate::support::Site;

/// What sends the frames and tells where they are seen.
const FRAMES: &str = include_str!("frames.py");
/// A hardware address that another guest takes, which has no wall here.
const THIRD_MAC: &str = "52:54:00:00:00:98";
/// Everything that is seen anywhere with the wall as it is. The third guest tells what stays on the bridge.
const PASSES: [&str; 13] = [
    "guest: ARP for the host, at host",
    "guest: ARP probe, at host",
    "guest: DHCP request, at host",
    "guest: DHCP request, renewed, at host",
    "guest: agent's answer, at host",
    "host: ARP for another, at other",
    "host: ARP for another, at third",
    "host: ARP for the guest, at guest",
    "host: ARP for the guest, at other",
    "host: ARP for the guest, at third",
    "host: DHCP answer, at guest",
    "host: question to the agent, at guest",
    "other: ARP for the host, at host",
];
/// As [`PASSES`], of others among themselves.
const OTHERS: [&str; 2] = [
    "other: ARP for the host, at third",
    "52:54:00:00:00:98 is learnt behind other0",
];

#[test]
fn each_match_of_the_wall_around_a_guest_stops_what_no_other_stops() {
    let site = Site::new();
    let rules = Rules::of_a_run(&site);
    let bridge = Bridge::new(&site, &rules);
    let whole: BTreeSet<String> = PASSES
        .iter()
        .chain(&OTHERS)
        .map(|&seen| seen.to_owned())
        .collect();
    let file = site.home.write("wall.nft", &rules.wall);
    bridge.load(&["-f", &file.display().to_string()]);
    assert_eq!(bridge.seen(), whole, "behind the whole wall");

    // No rule sees LLDP on a bridge that keeps it to itself.
    bridge.forward_groups("0");
    let learnt = format!("{SECOND_MAC} is learnt behind {}", rules.device);
    let seen = bridge.seen();
    let more: Vec<&String> = seen.difference(&whole).collect();
    assert_eq!(more, [&learnt], "{seen:#?}");
    bridge.forward_groups("0x4000");

    let listed = site.daemon.told("nft", &["-j", "list", "ruleset"]);
    let listed: Value = serde_json::from_str(&listed).expect("it is JSON");
    let objects = listed["nftables"].as_array().expect("it lists objects");
    let objects: Vec<Value> = objects
        .iter()
        .filter(|object| object.get("metainfo").is_none())
        .map(|object| json!({ "add": object }))
        .collect();
    let mut tried = 0;
    for (at, object) in objects.iter().enumerate() {
        let expressions = object.pointer("/add/rule/expr").and_then(Value::as_array);
        let expressions = expressions.map(Vec::as_slice).unwrap_or_default();
        let accepts = expressions.iter().any(|one| one.get("accept").is_some());
        for (index, one) in expressions.iter().enumerate() {
            if one.get("match").is_none() {
                continue;
            }
            let mut without = objects.clone();
            let left = without[at].pointer_mut("/add/rule/expr");
            left.and_then(Value::as_array_mut)
                .expect("it is a list")
                .remove(index);
            let file = site
                .home
                .write("without.json", json!({ "nftables": without }).to_string());
            bridge.load(&["-j", "-f", &file.display().to_string()]);
            let seen = bridge.seen();
            let differs = match accepts {
                // Something comes through, and all else as before.
                true => seen.is_superset(&whole) && seen != whole,
                false => seen != whole,
            };
            assert!(differs, "without {one} of {object}: {seen:#?}");
            tried += 1;
        }
    }
    assert!(tried >= 27, "only {tried} matches were found");

    // Without the rules about the kind of a frame, what is in a VLAN passes for what it is inside of it.
    let is_of_kinds = |object: &Value| object.to_string().contains(r#""field":"type""#);
    let without: Vec<&Value> = objects.iter().filter(|it| !is_of_kinds(it)).collect();
    assert_eq!(objects.len() - without.len(), 2, "one for each direction");
    let file = site
        .home
        .write("untagged.json", json!({ "nftables": without }).to_string());
    bridge.load(&["-j", "-f", &file.display().to_string()]);
    let seen = bridge.seen();
    let more: Vec<&String> = seen.difference(&whole).collect();
    assert!(
        more.iter()
            .any(|seen| seen.contains("guest: DHCP request in a VLAN")),
        "{more:#?}"
    );
}

/// A bridge with a guest's stand-in and two others, none of which says anything by itself.
struct Bridge<'a> {
    site: &'a Site,
    given: Value,
    _plugged: [Neighbour; 3],
}

impl<'a> Bridge<'a> {
    fn new(site: &'a Site, rules: &Rules) -> Self {
        let quiet = "echo 1 >/proc/sys/net/ipv6/conf/";
        site.daemon.told(
            "sh",
            &[
                "-e",
                "-c",
                &format!(
                    "ip link add virbr-see address {HOST_MAC} type bridge mcast_snooping 0 group_fwd_mask 0x4000
                     {quiet}virbr-see/disable_ipv6; ip link set virbr-see up"
                ),
            ],
        );
        let plug = |device: &str, mac: &str| {
            let here =
                format!("{quiet}{device}/disable_ipv6; ip link set {device} master virbr-see up");
            let there = format!(
                "{quiet}eth0/disable_ipv6; ip link set eth0 address {mac} promisc on arp off up"
            );
            Neighbour::new(site, device, &here, &there)
        };
        let guest = plug(&rules.device, &rules.mac);
        let other = plug("other0", OTHER_MAC);
        let third = plug("third0", "52:54:00:00:00:04");
        let at = |neighbour: &Neighbour| json!([neighbour.namespace(), "eth0"]);
        let given = json!({
            "places": {
                "guest": at(&guest), "other": at(&other), "third": at(&third),
                "host": [site.namespace(), "virbr-see"],
            },
            "mac": rules.mac, "own": rules.own, "gateway": rules.gateway, "other": rules.other,
            "host_mac": HOST_MAC, "other_mac": OTHER_MAC, "second_mac": SECOND_MAC,
            "third_mac": THIRD_MAC,
            "agent": AGENT,
        });
        Self {
            site,
            given,
            _plugged: [guest, other, third],
        }
    }

    /// Loads rules, by these words for nft, in place of all others.
    fn load(&self, words: &[&str]) {
        self.site.daemon.told("nft", &["flush", "ruleset"]);
        self.site.daemon.told("nft", words);
    }

    /// Sets which frames of link protocols the bridge takes for ordinary ones.
    fn forward_groups(&self, mask: &str) {
        let words = [
            "link",
            "set",
            "virbr-see",
            "type",
            "bridge",
            "group_fwd_mask",
            mask,
        ];
        self.site.daemon.told("ip", &words);
    }

    /// Every frame that is seen anywhere, and behind which ports the bridge learns addresses that are nobody's.
    fn seen(&self) -> BTreeSet<String> {
        let flush = ["link", "set", "virbr-see", "type", "bridge", "fdb_flush"];
        self.site.daemon.told("ip", &flush);
        let mut python = Command::new("python3");
        python.args(["-c", FRAMES]);
        python.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut python = python.spawn().expect("python3 is installed");
        let mut input = python.stdin.take().expect("it is a pipe");
        input
            .write_all(self.given.to_string().as_bytes())
            .expect("it reads");
        drop(input);
        let output = python.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8(output.stdout).expect("it prints text");
        let learnt = self
            .site
            .daemon
            .told("bridge", &["fdb", "show", "br", "virbr-see"]);
        let learnt = learnt.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            let mac = words
                .next()
                .filter(|mac| [SECOND_MAC, THIRD_MAC].contains(mac))?;
            Some(format!("{mac} is learnt behind {}", words.nth(1)?))
        });
        printed.lines().map(str::to_owned).chain(learnt).collect()
    }
}

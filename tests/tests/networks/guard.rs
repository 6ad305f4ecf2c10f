//! Rules and ports that somebody changes while a guest stands behind them.

use std::time::Duration;

use see_tests::{Live, until};
use serde_json::{Value, json};

use crate::support::{RUN, SANDBOX_FAILED, Site, allocated, is_event, sampling, staying, told};

/// The table around the bridge of the shared network.
const FLOOR: &str = "see-shared";

/// A run behind walls, whose guest never starts, and the name of its own tables.
struct Walled {
    live: Live,
    table: String,
}

impl Walled {
    fn start(site: &Site, file: &str, mode: &str) -> Self {
        let before = tables(site);
        let run_file = site.run_file(file, json!({ "mode": mode, "verify": false }), staying());
        let mut command = site.command(&run_file, "true");
        let mut live = Live::start(command.env("SEE_LOG", "info"));
        allocated(&mut live);
        let new = tables(site).into_iter().find(|name| !before.contains(name));
        let table = new.expect("the guest has a wall");
        Self { live, table }
    }

    /// The device that its guest's port will be.
    fn port(&self, site: &Site) -> String {
        let wall = site
            .daemon
            .told("nft", &["list", "table", "bridge", &self.table]);
        let named = wall.split("oifname \"").nth(1);
        let device = named.and_then(|rest| rest.split('"').next());
        device.expect("the wall is around a port").to_owned()
    }

    /// The bridge of a network of its own.
    fn bridge(&self, site: &Site) -> String {
        let floor = site
            .daemon
            .told("nft", &["list", "table", "inet", &self.table]);
        let named = floor.split("iifname \"").nth(1);
        let bridge = named.and_then(|rest| rest.split('"').next());
        bridge.expect("the floor is around a bridge").to_owned()
    }

    /// Fails unless the run ends as one whose walls fell, and says this.
    fn assert_ended(self, why: &str) {
        assert_ended(self.live, why);
    }
}

/// Fails unless the run ends as one whose firewall rules changed, and says this. What it logged.
fn assert_ended(live: Live, why: &str) -> String {
    let outcome = live.finish(RUN);
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{why}: {outcome:#?}");
    let isolation = told(&outcome, "/isolation");
    assert_eq!(isolation["verdict"], "broken", "{why}: {isolation}");
    let found = isolation["why"].as_str().expect("it says why");
    assert!(found.contains(why), "{why}: {found}");
    assert_eq!(told(&outcome, "/teardown_errors"), json!([]), "{why}");
    assert_eq!(told(&outcome, "/left_behind"), json!([]), "{why}");
    outcome.stderr
}

/// The walls that stand.
fn tables(site: &Site) -> Vec<String> {
    let listed = site.daemon.told("nft", &["list", "tables", "bridge"]);
    let names = listed
        .lines()
        .filter_map(|line| line.strip_prefix("table bridge "));
    names.map(str::to_owned).collect()
}

/// The seat of this run on the shared network, as nft writes it.
fn seat(site: &Site, table: &str) -> String {
    let set = ["-j", "list", "set", "inet", FLOOR, "seats"];
    let listed: Value = serde_json::from_str(&site.daemon.told("nft", &set)).expect("JSON");
    let objects = listed["nftables"].as_array().expect("objects");
    let elements = objects
        .iter()
        .filter_map(|object| object.pointer("/set/elem")?.as_array())
        .flatten();
    let label = table.replacen("see-", "see:", 1);
    let concat = elements
        .filter(|element| element.pointer("/elem/comment") == Some(&json!(label)))
        .find_map(|element| element.pointer("/elem/val/concat"));
    let concat = concat.expect("the run has a seat");
    let address = concat[0].as_str().expect("an address");
    format!("{{ {address} . {} }}", concat[1])
}

#[test]
fn rules_and_ports_that_are_changed_or_gone_end_the_runs_behind_them_and_mark_their_results() {
    let site = Site::new();
    let nft = |words: &[&str]| site.daemon.told("nft", words);
    let changed = Walled::start(&site, "changed.json", "shared");
    let unseated = Walled::start(&site, "unseated.json", "shared");
    let open = Walled::start(&site, "open.json", "shared");
    let astray = Walled::start(&site, "astray.json", "isolated");
    let floorless = Walled::start(&site, "floorless.json", "isolated");
    let told = Walled::start(&site, "told.json", "isolated");
    let mut last = Walled::start(&site, "last.json", "shared");

    nft(&["insert", "rule", "bridge", &changed.table, "out", "accept"]);
    let own = seat(&site, &unseated.table);
    nft(&["delete", "element", "inet", FLOOR, "seats", &own]);
    nft(&["delete", "table", "inet", &floorless.table]);
    // Who takes a guest's port off its bridge, or lets it talk with others there. No guest stands behind it here.
    let (open_port, stray_port) = (open.port(&site), astray.port(&site));
    let (told_port, told_bridge) = (told.port(&site), told.bridge(&site));
    let link = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        site.daemon.told("ip", &[&["link"], &words[..]].concat());
    };
    link(&format!(
        "add {open_port} master virbr-see type veth peer name end0"
    ));
    link(&format!("add {stray_port} type veth peer name end1"));
    // Who has the bridge keep LLDP to itself, where no rule sees it.
    let shown = site
        .daemon
        .told("ip", &["-d", "link", "show", &told_bridge]);
    assert!(shown.contains("group_fwd_mask 0x4000"), "{shown}");
    link(&format!("set {told_bridge} type bridge group_fwd_mask 0"));
    link(&format!(
        "add {told_port} master {told_bridge} type veth peer name end2"
    ));
    // What is not up yet is still being made, and carries nothing.
    for port in [&open_port, &stray_port, &told_port] {
        link(&format!("set {port} up"));
    }
    changed.assert_ended("firewall rules changed: new is");
    unseated.assert_ended("its seat on the network");
    open.assert_ended("is not isolated from others");
    astray.assert_ended("is not on the bridge");
    told.assert_ended("is 0x0, expected 0x4000");
    for port in [open_port, stray_port, told_port] {
        link(&format!("del {port}"));
    }
    floorless.assert_ended("firewall rules are gone: the table see-");

    // Whose walls and seat are as they were stays, until the floor that all have in common changes.
    assert!(last.live.runs(), "{:#?}", last.live);
    nft(&["flush", "chain", "inet", FLOOR, "forward"]);
    last.assert_ended("firewall rules changed: missing is");
    until("the end of the networks", Duration::from_secs(10), || {
        site.traces().is_empty()
    });
}

#[test]
fn a_flushed_ruleset_ends_the_runs_behind_it_as_soon_as_nftables_notifies_of_it() {
    let site = Site::new();
    let closed = site.run_file("closed.json", json!({ "mode": "isolated" }), sampling());
    let mut command = site.command(&closed, "sleep 600");
    let mut running = Live::start(command.env("SEE_LOG", "info"));
    let begun = running.wait_for("sample", RUN, is_event("sample_started"));
    assert!(begun.is_some(), "it ended before: {running:#?}");
    let others = ["isolated", "shared", "isolated"].into_iter().enumerate();
    let others = others
        .map(|(number, mode)| Walled::start(&site, &format!("flushed-{number}.json"), mode).live);
    let runs: Vec<Live> = others.chain([running]).collect();

    site.daemon.told("nft", &["flush", "ruleset"]);
    let logs = runs.into_iter();
    let logs: Vec<String> = logs
        .map(|run| assert_ended(run, "firewall rules are gone: the table see-"))
        .collect();
    // The look that each run takes in any case, once a second, may fall on that very moment, but not in all of them.
    let is_notified = |log: &String| log.contains("notification");
    assert!(logs.iter().any(is_notified), "{logs:#?}");
    until("the end of the networks", Duration::from_secs(10), || {
        site.traces().is_empty()
    });
}

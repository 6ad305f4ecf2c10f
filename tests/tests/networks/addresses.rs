//! Where networks get their addresses on hosts that route private ranges elsewhere, as with a VPN.

use rustix::process::Signal;
use see_tests::Live;
use serde_json::{Value, json};

use crate::claims::subnets;
use crate::support::{
    RUN, SANDBOX_FAILED, Site, allocated, passing, sampling, staying, stdout, told,
};

const MODES: [&str; 3] = ["isolated", "shared", "nat"];
const TEN: &str = "10.0.0.0/8";
const TWELVE: &str = "172.16.0.0/12";
const SIXTEEN: &str = "192.168.0.0/16";

/// Routes these networks over a device of the host's, and no others, as a VPN does.
fn route(site: &Site, networks: &[&str]) {
    let routes = networks
        .iter()
        .map(|network| format!("ip route add {network} dev vpn\n"));
    let shell = format!(
        "set -e\n\
         ip link show vpn >/dev/null 2>&1 || ip link add vpn type veth peer name far\n\
         ip link set vpn up\n\
         ip link set far up\n\
         ip route flush dev vpn\n{}",
        routes.collect::<String>()
    );
    site.daemon.told("sh", &["-c", &shell]);
}

/// A run in each mode that is allocated.
fn all_modes(site: &Site, file: &str, more: &Value) -> Vec<Live> {
    let start = |mode: &&str| {
        let mut network = json!({ "mode": mode });
        let keys = network.as_object_mut().expect("an object");
        keys.extend(more.as_object().expect("an object").clone());
        let run_file = site.run_file(&format!("{file}-{mode}.json"), network, staying());
        site.start(&run_file, "true")
    };
    let mut runs: Vec<Live> = MODES.iter().map(start).collect();
    runs.iter_mut().for_each(allocated);
    runs
}

fn end(runs: Vec<Live>) {
    for mut run in runs {
        run.signal(Signal::TERM);
        run.finish(RUN);
    }
}

#[test]
fn each_mode_runs_on_a_host_that_routes_private_ranges_elsewhere() {
    let site = Site::new();
    for (number, (routed, begins)) in [
        (vec![TEN], "172."),
        (vec![TWELVE], "10."),
        (vec![SIXTEEN], "10."),
        (vec![TEN, TWELVE], "192.168."),
        (vec![TEN, SIXTEEN], "172."),
        (vec![TWELVE, SIXTEEN], "10."),
        (vec![TEN, TWELVE, SIXTEEN], "100."),
    ]
    .into_iter()
    .enumerate()
    {
        route(&site, &routed);
        let runs = all_modes(&site, &format!("routed-{number}"), &json!({}));
        let found = subnets(&site);
        assert_eq!(found.len(), MODES.len(), "{found:?}");
        for (address, _) in found {
            assert!(
                address.to_string().starts_with(begins),
                "{routed:?}: {address}"
            );
        }
        end(runs);
    }
}

#[test]
fn a_guest_gets_and_uses_an_address_beside_a_route_of_each_private_range() {
    let site = Site::new();
    for (mode, (routed, begins)) in
        MODES
            .into_iter()
            .zip([(TEN, "172."), (TWELVE, "10."), (SIXTEEN, "10.")])
    {
        route(&site, &[routed]);
        let run_file = site.run_file(&format!("{mode}.json"), json!({ "mode": mode }), sampling());
        let outcome = site.run(&run_file, "ip -4 -o addr show eth0");
        assert_eq!(outcome.code, Some(0), "{mode}: {outcome:#?}");
        let printed = stdout(&outcome);
        assert!(
            printed.contains(&format!("inet {begins}")),
            "{routed}, {mode}: {printed}"
        );
        assert_eq!(told(&outcome, "/left_behind"), json!([]));
    }
}

#[test]
fn an_address_space_says_where_each_mode_looks_and_the_error_names_it_when_nothing_is_free() {
    let site = Site::new();
    let space = json!({ "address_space": ["198.18.0.0/15"] });
    let runs = all_modes(&site, "space", &space);
    let found = subnets(&site);
    assert_eq!(found.len(), MODES.len(), "{found:?}");
    for (address, _) in &found {
        let text = address.to_string();
        assert!(
            text.starts_with("198.18.") || text.starts_with("198.19."),
            "{text}"
        );
    }
    // The shared network is there, and not where it is asked for.
    let elsewhere = json!({ "mode": "shared", "address_space": "10.0.0.0/8" });
    let outcome = site.run(
        &site.run_file("elsewhere.json", elsewhere, passing()),
        "true",
    );
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    let failure = told(&outcome, "/failure").to_string();
    assert!(
        failure.contains("outside of `network.address_space`"),
        "{failure}"
    );
    end(runs);

    route(&site, &[TEN, TWELVE, SIXTEEN, "100.64.0.0/10"]);
    for mode in MODES {
        let run_file = site.run_file(
            &format!("full-{mode}.json"),
            json!({ "mode": mode }),
            passing(),
        );
        let outcome = site.run(&run_file, "true");
        assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{mode}: {outcome:#?}");
        let failure = told(&outcome, "/failure").to_string();
        for part in [
            "network.address_space",
            "a route of this host has 172.16.0.0/12",
        ] {
            assert!(failure.contains(part), "{mode}: {failure}");
        }
        assert_eq!(told(&outcome, "/left_behind"), json!([]));
    }
}

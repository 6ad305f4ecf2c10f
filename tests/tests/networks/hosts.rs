//! Networks and firewalls that the host has already.

use serde_json::{Value, json};

use crate::support::{
    RUN, SANDBOX_FAILED, Site, allocated, passing, sampling, staying, stdout, told,
};

/// The steps of a run whose guest has a card, and maybe no address.
fn sampling_without_address() -> Value {
    json!([
        { "step": "poweron" },
        { "step": "wait", "for": "ready", "timeout": "170s" },
        { "step": "trigger", "event": "run_sample", "attributes": { "command": "${command}" } },
        { "step": "wait", "for": "sample_finished", "timeout": "120s" },
    ])
}

#[test]
fn a_guest_is_connected_to_a_bridge_of_the_hosts_which_stays_as_it_is() {
    let site = Site::new();
    let shell = "ip link add br0 address 52:54:00:00:00:b0 type bridge && ip addr add 192.0.2.1/24 dev br0 && ip link set br0 up";
    site.daemon.told("sh", &["-c", shell]);
    let shown = || {
        let shell = "ip -4 -o addr show br0; cd /sys/class/net/br0; cat address bridge/stp_state \
             bridge/forward_delay bridge/group_fwd_mask";
        site.daemon.told("sh", &["-c", shell])
    };
    let before = shown();
    site.home.write(
        "bridge.xml",
        "<network><name>n</name><forward mode='bridge'/><bridge name='br0'/></network>",
    );
    let network = json!({ "configuration": "bridge.xml" });
    let run_file = site.run_file("run.json", network, sampling_without_address());
    let command = "ip addr add 192.0.2.2/24 dev eth0; ip link set eth0 up
        for look in $(seq 50); do ping -c 1 -W 1 192.0.2.1 >/dev/null && echo reached && break; done";
    let outcome = site.run(&run_file, command);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(stdout(&outcome), "reached\n");
    assert_eq!(told(&outcome, "/left_behind"), json!([]));
    assert_eq!(shown(), before);

    // A network that libvirt makes, without rules of its own.
    site.home.write(
        "open.xml",
        "<network><name>n</name><forward mode='open'/></network>",
    );
    let network = json!({ "configuration": "open.xml", "dynamic_address": {
        "ipv4": "198.18.0.0", "prefix": 15, "subnet_prefix": 24 } });
    let outcome = site.run(&site.run_file("open.json", network, sampling()), "true");
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert_eq!(told(&outcome, "/left_behind"), json!([]));
}

#[test]
fn a_network_that_cannot_be_used_is_refused_at_its_line() {
    let site = Site::new();
    for (xml, part) in [
        (
            "<forward mode='bridge'/>\n<bridge name='br7'/>",
            "network.xml:3:1",
        ),
        (
            "<forward mode='hostdev'><pf dev='eth0'/></forward>",
            "use the mode 'bridge'",
        ),
        (
            "<forward mode='bridge'/><virtualport type='openvswitch'/><bridge name='lo'/>",
            "ovs-vsctl",
        ),
    ] {
        site.home
            .write("network.xml", format!("<network>\n{xml}</network>"));
        let network = json!({ "configuration": "network.xml" });
        let outcome = site.run(&site.run_file("run.json", network, passing()), "true");
        let said = format!("{outcome:?}");
        assert!(said.contains(part), "{xml}: {outcome:#?}");
        assert_ne!(outcome.code, Some(0), "{outcome:#?}");
    }
}

#[test]
fn closed_networks_need_no_chains_of_libvirts_where_the_host_forwards_and_others_tell_what_is_missing()
 {
    let site = Site::new();
    let nat = site.run_file("nat.json", json!({ "mode": "nat" }), passing());
    // From its first network on libvirt takes its chains for granted.
    let outcome = site.run(&nat, "true");
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    site.daemon.told("nft", &["flush", "ruleset"]);
    let outcome = site.run(&nat, "true");
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    let failure = told(&outcome, "/failure").to_string();
    assert!(failure.contains("systemctl restart libvirtd"), "{failure}");
    assert_eq!(told(&outcome, "/left_behind"), json!([]));

    let forwards = || site.daemon.told("cat", &["/proc/sys/net/ipv4/ip_forward"]);
    assert_eq!(
        forwards().trim(),
        "1",
        "libvirt's `nat` has the host forward"
    );
    for mode in ["isolated", "shared"] {
        let run_file = site.run_file(&format!("{mode}.json"), json!({ "mode": mode }), passing());
        let outcome = site.run(&run_file, "true");
        assert_eq!(outcome.code, Some(0), "{mode}: {outcome:#?}");
    }
}

#[test]
fn a_closed_network_does_not_make_a_router_of_the_host() {
    let site = Site::new();
    // A new namespace takes it over from the host.
    let off = "echo 0 >/proc/sys/net/ipv4/ip_forward";
    site.daemon.told("sh", &["-c", off]);
    let forwards = || site.daemon.told("cat", &["/proc/sys/net/ipv4/ip_forward"]);
    for mode in ["isolated", "shared"] {
        let run_file = site.run_file(&format!("{mode}.json"), json!({ "mode": mode }), staying());
        let mut run = site.start(&run_file, "true");
        allocated(&mut run);
        assert_eq!(forwards().trim(), "0", "{mode}");
        run.signal(rustix::process::Signal::TERM);
        run.finish(RUN);
    }
}

#[test]
fn a_host_firewall_that_drops_dhcp_is_named_when_no_lease_came() {
    let site = Site::new();
    let strict = "add table inet filter; add chain inet filter input { type filter hook input priority 0; policy drop; }";
    site.daemon.told("nft", &[strict]);
    // Nobody but the guest itself can say that it is ready.
    let context = json!({ "network": { "mode": "isolated", "verify": false } });
    let run_file = site.run_file_with("run.json", context, sampling());
    let text = std::fs::read_to_string(&run_file).expect("it was written");
    std::fs::write(&run_file, text.replace("160s", "60s")).expect("it is ours");
    let outcome = site.run(&run_file, "true");
    assert_ne!(outcome.code, Some(0), "{outcome:#?}");
    let said = outcome.events("not_ip_address");
    let said = serde_json::to_string(&said).expect("it is JSON");
    assert!(
        said.contains("the chain input of the table inet filter drops"),
        "{said}: {outcome:#?}"
    );
}

//! Holes on purpose: a guest behind walls that somebody leads around them, to everything that is closed to it.

use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::Signal;
use see_tests::{Live, until};
use serde_json::{Value, json};

use crate::neighbour::{Neighbour, serve};
use crate::support::{RUN, SANDBOX_FAILED, SERVICE, Site, allocated, sampling, staying, told};

/// The longest wait for a device, an address, an answer.
const SOON: Duration = Duration::from_secs(60);
/// A machine of the LAN: the host's gateway, and the server that the host asks for names.
const LAN: &str = "198.51.100.254";
/// What the guest's frames come out of on the host.
const EXIT: &str = "exit0";

/// The host, with a way around the walls that is not connected yet.
struct Host {
    site: Site,
    _lan: Neighbour,
    _routers: Advertiser,
}

/// A server that tells the guest of the host's networks in IPv6, and of itself as their router.
struct Advertiser(Child);

impl Drop for Advertiser {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Host {
    fn new() -> Self {
        let site = Site::new();
        site.open_up();
        // No other device has addresses of IPv6: those of a link answer on that link alone.
        let lan = Neighbour::new(
            &site,
            "lan0",
            "echo 1 >/proc/sys/net/ipv6/conf/lan0/disable_ipv6; ip link set lan0 master world up\n\
             ip route add default via 198.51.100.254",
            "ip addr add 198.51.100.254/24 dev eth0; ip link set eth0 up\n\
             ip route add default via 198.51.100.1",
        );
        serve(lan.namespace(), &[], &[&format!("{LAN}:53")]);
        site.home
            .write("resolv.conf", format!("nameserver {LAN}\n"));
        // What goes into one device comes out of the other.
        let shell = "ip link add name enter0 type veth peer name exit0
            echo 1 >/proc/sys/net/ipv6/conf/enter0/disable_ipv6
            ip addr add 192.168.77.1/24 dev exit0; ip -6 addr add 2001:db8:77::1/64 dev exit0 nodad
            echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/exit0/rp_filter
            echo 1 >/proc/sys/net/ipv4/conf/exit0/proxy_arp; echo 0 >/proc/sys/net/ipv4/neigh/exit0/proxy_delay
            ip link set enter0 up; ip link set exit0 up";
        site.daemon.told("sh", &["-e", "-c", shell]);
        let mut dnsmasq = Command::new("dnsmasq");
        dnsmasq
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--port=0"])
            .args(["--bind-interfaces", &format!("--interface={EXIT}")])
            .args(["--enable-ra", "--dhcp-range=2001:db8:77::,ra-only,64"])
            // Every few seconds: the guest may ask before it is led around its walls, and never again.
            .arg(format!("--ra-param={EXIT},4"))
            .args(["--leasefile-ro", "--pid-file=", "--user=root"]);
        let routers = site.daemon.beside(dnsmasq).spawn();
        Self {
            site,
            _lan: lan,
            _routers: Advertiser(routers.expect("dnsmasq is installed")),
        }
    }

    fn shell(&self, script: &str) -> String {
        self.site.daemon.told("sh", &["-e", "-c", script])
    }

    /// The device of the one guest that runs, once it is there.
    fn port(&self) -> String {
        let mut port = None;
        until("the guest's port", SOON, || {
            let links = self.shell("ip -o link");
            let mut names = links.lines().filter_map(|line| line.split(": ").nth(1));
            port = names
                .find(|name| name.starts_with("see"))
                .map(str::to_owned);
            port.is_some()
        });
        port.expect("it was found")
    }

    /// The seats in the floors of networks with one guest, in the order of their tables' names.
    fn isolated_seats(&self) -> Vec<String> {
        let tables = self.shell("nft list tables inet");
        let names = tables
            .split_whitespace()
            .filter(|name| name.starts_with("see-"));
        names.flat_map(|name| self.seats_in(name)).collect()
    }

    /// The addresses of the seats on the shared network that are taken.
    fn seats(&self) -> Vec<String> {
        self.seats_in("see-shared")
    }

    fn seats_in(&self, floor: &str) -> Vec<String> {
        let listed = self.shell(&format!("nft -j list set inet {floor} seats"));
        let listed: Value = serde_json::from_str(&listed).expect("it is JSON");
        let sets = listed["nftables"].as_array().into_iter().flatten();
        sets.filter_map(|object| object.pointer("/set/elem")?.as_array())
            .flatten()
            .filter_map(|seat| seat.pointer("/elem/val/concat/0")?.as_str())
            .map(str::to_owned)
            .collect()
    }

    /// Another sandbox's address answers, as far from the host as a guest is.
    fn raise_other(&self, other: &str) -> Neighbour {
        let here = format!(
            "echo 1 >/proc/sys/net/ipv6/conf/other0/disable_ipv6
             echo 0 >/proc/sys/net/ipv4/conf/other0/rp_filter
             echo 1 >/proc/sys/net/ipv4/conf/other0/proxy_arp
             echo 0 >/proc/sys/net/ipv4/neigh/other0/proxy_delay
             ip link set other0 up
             ip route add {other}/32 dev other0 table 77; ip rule add to {other} lookup 77 pref 10"
        );
        let there = format!(
            "ip addr add {other}/32 dev eth0; ip link set eth0 up; ip route add default dev eth0"
        );
        Neighbour::new(&self.site, "other0", &here, &there)
    }

    /// Leads all frames of a guest around the walls, but for those of `but`: the rules of the walls stay as they
    /// are, and the bridge sees nothing.
    fn lead_around(&self, port: &str, but: &str) {
        self.shell(&format!(
            "nft 'add table netdev around; delete table netdev around; table netdev around {{
                 chain out {{ type filter hook ingress device \"{port}\" priority 0; {but}; fwd to \"enter0\"; }}
                 chain back {{ type filter hook ingress device \"enter0\" priority 0; fwd to \"{port}\"; }}
             }}'"
        ));
    }

    /// The run, with the LAN's server of names.
    fn start(&self, mode: &str) -> Live {
        let site = &self.site;
        let run_file = site.run_file("run.json", json!({ "mode": mode }), sampling());
        let mut command = Command::new("sh");
        site.home.furnish(&mut command);
        command
            .args(["-c", "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\""])
            .arg(site.home.path("resolv.conf"))
            .arg(see_tests::seectl())
            .args(["run", "--output", "json"])
            .arg(run_file)
            .args(["--command", "echo the sample runs"]);
        Live::start(&mut site.daemon.beside(command))
    }
}

/// Waits until the guest behind this port took the host's advertisement and answers.
fn await_ipv6(host: &Host, port: &str) {
    let link = host.shell(&format!("ip -o link show dev {port}"));
    let mac = link.split("link/ether ").nth(1);
    let mac = mac.and_then(|rest| rest.split_whitespace().next());
    let mac: Vec<&str> = mac.expect("a port has an address").split(':').collect();
    // The port's hardware address is the guest's but for the first byte; the guest makes its address of its own, by
    // RFC 4291, appendix A.
    let own = format!("5054:{}ff:fe{}:{}{}", mac[2], mac[3], mac[4], mac[5]);
    until("the guest's IPv6", SOON, || {
        let mut ping = Command::new("ping");
        ping.args(["-c", "1", "-W", "1", &format!("2001:db8:77:0:{own}")]);
        let asked = host.site.daemon.beside(ping).output();
        asked.expect("ping is installed").status.success()
    });
}

#[test]
fn every_hole_that_is_opened_is_found_and_named_before_the_sample_runs() {
    let host = Host::new();
    let site = &host.site;
    let other = site.run_file("other.json", json!({ "mode": "shared" }), staying());
    let mut other = site.start(&other, "true");
    allocated(&mut other);
    let others = host.seats();
    let [other_address] = others.as_slice() else {
        panic!("one seat is taken, not {others:?}");
    };
    let _other = host.raise_other(other_address);
    let mut run = host.start("shared");
    allocated(&mut run);
    let own = host.seats().into_iter().find(|seat| seat != other_address);
    let own = own.expect("the guest has a seat");
    let gateway = crate::shared::gateway(site, "virbr-see");
    serve(
        site.namespace(),
        &["169.254.169.254:80"],
        &[
            &format!("{gateway}:53"),
            &format!("{gateway}:1234"),
            "198.51.100.1:1234",
            "[2001:db8::1]:1234",
        ],
    );
    host.shell(&format!(
        "ip route add {own}/32 dev {EXIT} table 77; ip rule add to {own} lookup 77 pref 10"
    ));
    let port = host.port();
    // First without DHCP, so that the guest has IPv6 before it has the address after which it is asked.
    host.lead_around(&port, "meta l4proto 255");
    await_ipv6(&host, &port);
    host.lead_around(&port, "udp dport 67 accept");

    let outcome = run.finish(RUN);
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    assert_eq!(told(&outcome, "/verdict"), json!("sandbox_failed"));
    assert_eq!(told(&outcome, "/isolation/verdict"), json!("broken"));
    for event in ["run_sample", "sample_started", "ready", "isolation_proven"] {
        assert_eq!(outcome.events(event), Vec::<Value>::new(), "{event}");
    }
    assert_eq!(outcome.events("isolation_broken").len(), 1);
    let holes = told(&outcome, "/isolation/holes");
    let holes: Vec<&str> = holes
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let link = host.shell(&format!("ip -6 -o addr show dev {EXIT} scope link"));
    let link = link.split_whitespace().nth(3).expect("it has an address");
    let link = link.split('/').next().expect("before its prefix");
    let mut expected: Vec<String> = Vec::new();
    for address in [
        gateway.as_str(),
        "198.51.100.1",
        "192.168.77.1",
        "169.254.169.254",
        "2001:db8::1",
        "2001:db8:77::1",
        link,
    ] {
        let at = |port: u16| match address.contains(':') {
            true => format!("[{address}]:{port}"),
            false => format!("{address}:{port}"),
        };
        expected.push(format!("the host at {address} (ping {address}:"));
        expected.push(format!("the host at {address} (TCP {}:", at(9)));
        let service = at(SERVICE);
        expected.push(format!("the host's TCP service {service} (TCP {service}:"));
    }
    for datagrams in [
        format!("{gateway}:1234"),
        "198.51.100.1:1234".to_owned(),
        "[2001:db8::1]:1234".to_owned(),
    ] {
        expected.push(format!(
            "the host's UDP service {datagrams} (UDP {datagrams}:"
        ));
    }
    for (what, how) in [
        (
            "a name server of the host",
            format!("the name example.com at {gateway}:53"),
        ),
        ("another sandbox", format!("ping {other_address}")),
        ("another sandbox", format!("TCP {other_address}:9")),
        (&*format!("the LAN's gateway {LAN}"), format!("ping {LAN}")),
        (
            &*format!("the LAN's gateway {LAN}"),
            format!("TCP {LAN}:80"),
        ),
        ("the cloud's metadata", "TCP 169.254.169.254:80".to_owned()),
        (
            &*format!("the name server {LAN}"),
            format!("the name example.com at {LAN}:53"),
        ),
        (
            "every IPv6 neighbour on the link",
            "ping ff02::1".to_owned(),
        ),
    ] {
        expected.push(format!("{what} ({how}:"));
    }
    let missed: Vec<&String> = expected
        .iter()
        .filter(|hole| !holes.iter().any(|found| found.starts_with(hole.as_str())))
        .collect();
    assert!(missed.is_empty(), "not found: {missed:#?}, but {holes:#?}");
    // Who reads the results later finds the same in them.
    let folder = told(&outcome, "/results");
    let folder = std::path::Path::new(folder.as_str().expect("a path"));
    let kept = std::fs::read(folder.join("result.json")).expect("the run's result");
    let kept: Value = serde_json::from_slice(&kept).expect("it is JSON");
    assert_eq!(kept["isolation"], told(&outcome, "/isolation"));
    assert_eq!(told(&outcome, "/teardown_errors"), json!([]));
    assert_eq!(told(&outcome, "/left_behind"), json!([]));

    other.signal(Signal::TERM);
    other.finish(RUN);
    until("the end of the network", SOON, || site.traces().is_empty());
}

#[test]
fn a_way_from_one_isolated_guest_to_another_is_found() {
    let host = Host::new();
    let site = &host.site;
    let other = site.run_file("other.json", json!({ "mode": "isolated" }), staying());
    let mut other = site.start(&other, "true");
    allocated(&mut other);
    let others = host.isolated_seats();
    let [other_address] = others.as_slice() else {
        panic!("one guest is there, not {others:?}");
    };
    let _other = host.raise_other(other_address);
    let mut run = host.start("isolated");
    allocated(&mut run);
    let mut seats = host.isolated_seats().into_iter();
    let own = seats.find(|seat| seat != other_address);
    let own = own.expect("the guest has an address");
    host.shell(&format!(
        "ip route add {own}/32 dev {EXIT} table 77; ip rule add to {own} lookup 77 pref 10"
    ));
    host.lead_around(&host.port(), "udp dport 67 accept");
    let outcome = run.finish(RUN);
    assert_eq!(outcome.code, Some(SANDBOX_FAILED), "{outcome:#?}");
    let holes = told(&outcome, "/isolation/holes").to_string();
    for how in [
        format!("another sandbox (ping {other_address}:"),
        format!("another sandbox (TCP {other_address}:9:"),
    ] {
        assert!(holes.contains(&how), "{how}: {holes}");
    }
    other.signal(Signal::TERM);
    other.finish(RUN);
}

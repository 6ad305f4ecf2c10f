//! The probe: each hole that somebody may leave in the walls around a guest is opened on purpose, and the
//! agent finds it, and nothing else. In network namespaces; needs `ip`, `nft` and `ping`.

#![cfg(target_os = "linux")]

#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "each test program uses a part of it")]
mod support;
mod world;

use see_agent::protocol::{Finding, ProbeTarget};
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::thread;
use world::{World, in_own_network, listens};

/// What has to be closed: each with a name for the tests.
const CLOSED: [(&str, Kind, &str); 13] = [
    ("a service of the host", Kind::Tcp, "10.77.0.1:2222"),
    ("a port that nobody serves", Kind::Tcp, "10.77.0.1:9"),
    ("a datagram service", Kind::Udp, "10.77.0.1:1234"),
    (
        "a datagram port that nobody serves",
        Kind::Udp,
        "10.77.0.1:9",
    ),
    ("the host itself", Kind::Ping, "10.77.0.1:0"),
    ("the host's other address", Kind::Tcp, "192.168.77.1:2222"),
    (
        "a machine of the local network",
        Kind::Tcp,
        "192.168.77.2:22",
    ),
    ("the cloud's secrets", Kind::Tcp, "169.254.169.254:80"),
    ("another sandbox", Kind::Tcp, "10.77.0.3:8020"),
    ("another sandbox's echo", Kind::Ping, "10.77.0.3:0"),
    ("names", Kind::Dns, "10.77.0.1:53"),
    ("the host over IPv6", Kind::Tcp, "[fd77::1]:2222"),
    ("every machine on the link", Kind::Ping, "[ff02::1]:0"),
];

#[derive(Clone, Copy)]
enum Kind {
    Tcp,
    Udp,
    Ping,
    Dns,
}

/// What the guest reaches of it, by name.
fn reached(world: &mut World) -> Vec<&'static str> {
    let targets = CLOSED.map(|(_, kind, address)| {
        let address = address.parse().expect("an address");
        match kind {
            Kind::Tcp => ProbeTarget::Tcp(address),
            Kind::Udp => ProbeTarget::Udp(address),
            Kind::Ping => ProbeTarget::Ping(address.ip()),
            Kind::Dns => ProbeTarget::Dns(address, "example.org".to_owned()),
        }
    });
    let findings = world.probe(targets.to_vec());
    assert_eq!(findings.len(), CLOSED.len());
    let mut reached = Vec::new();
    for ((name, ..), finding) in CLOSED.iter().zip(findings) {
        match finding {
            Finding::Silent => {}
            Finding::Answered(how) => {
                assert!(!how.is_empty());
                reached.push(*name);
            }
            other => panic!("{name} was not tried: {other:?}"),
        }
    }
    reached
}

/// A service of the host that greets whoever comes.
fn serve_tcp(address: &str) {
    let listener = TcpListener::bind(address).expect("a free port");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = stream;
            let mut question = [0; 64];
            if stream.read(&mut question).is_ok_and(|length| length > 0) {
                drop(stream.write_all(b"\0\x02hi"));
            }
        }
    });
    assert!(listens(address), "the hole is not there");
}

/// A service of the host that answers each datagram.
fn serve_udp(address: &str) {
    let socket = UdpSocket::bind(address).expect("a free port");
    thread::spawn(move || {
        let mut question = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut question) {
            drop(socket.send_to(&question[..length], from));
        }
    });
}

#[test]
fn behind_walls_that_stand_nothing_answers_and_everything_is_tried() {
    in_own_network(
        "behind_walls_that_stand_nothing_answers_and_everything_is_tried",
        |world| {
            // Services that are there, and that the walls keep the guest from.
            serve_tcp("0.0.0.0:2222");
            serve_tcp("10.77.0.1:53");
            serve_udp("0.0.0.0:1234");
            assert_eq!(reached(world), [""; 0]);
            // The way out that the probe made for itself is gone again.
            assert_eq!(world.in_guest("ip -4 route show default"), "");
        },
    );
}

#[test]
fn a_tcp_service_of_the_host_is_found() {
    in_own_network("a_tcp_service_of_the_host_is_found", |world| {
        serve_tcp("10.77.0.1:2222");
        world.accept("input ip daddr 10.77.0.1 tcp dport 2222");
        assert_eq!(reached(world), ["a service of the host"]);
    });
}

#[test]
fn a_reset_where_nobody_serves_is_a_hole_in_the_wall() {
    in_own_network(
        "a_reset_where_nobody_serves_is_a_hole_in_the_wall",
        |world| {
            world.accept("input tcp dport 9");
            assert_eq!(reached(world), ["a port that nobody serves"]);
        },
    );
}

#[test]
fn a_datagram_service_of_the_host_is_found() {
    in_own_network("a_datagram_service_of_the_host_is_found", |world| {
        serve_udp("10.77.0.1:1234");
        world.accept("input udp dport 1234");
        assert_eq!(reached(world), ["a datagram service"]);
    });
}

#[test]
fn a_refused_datagram_is_a_hole_in_the_wall() {
    in_own_network("a_refused_datagram_is_a_hole_in_the_wall", |world| {
        world.accept("input udp dport 9");
        assert_eq!(reached(world), ["a datagram port that nobody serves"]);
    });
}

#[test]
fn a_host_that_answers_echo_requests_is_found() {
    in_own_network("a_host_that_answers_echo_requests_is_found", |world| {
        world.accept("input icmp type echo-request");
        assert_eq!(reached(world), ["the host itself"]);
    });
}

#[test]
fn a_service_on_another_address_of_the_host_is_found_without_a_route_to_it() {
    in_own_network(
        "a_service_on_another_address_of_the_host_is_found_without_a_route_to_it",
        |world| {
            serve_tcp("192.168.77.1:2222");
            world.accept("input ip daddr 192.168.77.1 tcp dport 2222");
            assert_eq!(world.in_guest("ip -4 route show default"), "");
            assert_eq!(reached(world), ["the host's other address"]);
        },
    );
}

#[test]
fn a_machine_of_the_hosts_own_network_is_found() {
    in_own_network("a_machine_of_the_hosts_own_network_is_found", |world| {
        world.accept("forward iifname br0");
        assert_eq!(reached(world), ["a machine of the local network"]);
    });
}

#[test]
fn the_address_of_a_clouds_secrets_is_found() {
    in_own_network("the_address_of_a_clouds_secrets_is_found", |world| {
        serve_tcp("169.254.169.254:80");
        world.accept("input ip daddr 169.254.169.254");
        assert_eq!(reached(world), ["the cloud's secrets"]);
    });
}

#[test]
fn another_sandbox_on_the_same_bridge_is_found() {
    in_own_network("another_sandbox_on_the_same_bridge_is_found", |world| {
        world.script("ip link set other type bridge_slave isolated off");
        assert_eq!(
            reached(world),
            [
                "another sandbox",
                "another sandbox's echo",
                "every machine on the link"
            ]
        );
    });
}

#[test]
fn a_server_of_names_is_found_over_udp() {
    in_own_network("a_server_of_names_is_found_over_udp", |world| {
        serve_udp("10.77.0.1:53");
        world.accept("input udp dport 53");
        assert_eq!(reached(world), ["names"]);
    });
}

#[test]
fn a_server_of_names_is_found_over_tcp() {
    in_own_network("a_server_of_names_is_found_over_tcp", |world| {
        serve_tcp("10.77.0.1:53");
        world.accept("input tcp dport 53");
        assert_eq!(reached(world), ["names"]);
    });
}

#[test]
fn a_host_that_answers_over_ipv6_is_found() {
    in_own_network("a_host_that_answers_over_ipv6_is_found", |world| {
        serve_tcp("[fd77::1]:2222");
        world.accept("input icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }");
        world.accept("input ip6 daddr fd77::1 tcp dport 2222");
        assert_eq!(reached(world), ["the host over IPv6"]);
    });
}

#[test]
fn a_host_that_answers_the_link_as_a_whole_is_found() {
    in_own_network(
        "a_host_that_answers_the_link_as_a_whole_is_found",
        |world| {
            world.accept("input meta l4proto icmpv6");
            assert_eq!(reached(world), ["every machine on the link"]);
        },
    );
}

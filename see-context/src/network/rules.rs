//! The firewall's rules, as nftables objects.
//!
//! Two tables stand around a guest, each with one label.
//!
//! The *wall* is a table of the family `bridge`, of the guest's own, around its port. It knows the guest's
//! hardware address and its one IPv4 address. Out of the guest come: ARP with just these two, DHCP requests for
//! this hardware address, and answers of the agent where it is reached over TCP. In come: ARP from the host, DHCP
//! answers for this hardware address, and connections to the agent. Everything else is dropped: other protocols,
//! all of IPv6, frames from a second hardware address (before the bridge learns it), frames from or to any other
//! port of the bridge. So are frames with a VLAN's tag, first of all: the kernel takes the tag off, and what matches IP
//! would match what is behind it.
//!
//! Frames of link protocols, to the addresses 01:80:c2:00:00:00 to :0f, pass a bridge by another way: it hands them
//! to the port itself, past everything that goes by the bridge's name, and learns whose they are. The wall drops them
//! there. Those of LLDP pass no hook on that way, so the bridge is told to take them for ordinary ones ([`LLDP`]).
//!
//! The *floor* is a table of the family `inet` around a bridge. Nothing is forwarded from or to it, whatever the
//! host's forwarding says; the host itself takes DHCP requests and answers of agents that it asked, and sends DHCP
//! answers and asks agents. A set of seats names the agents: address and port.
//!
//! Base chains of other tables cannot open what these drop: a packet has to be accepted by all of them.
//!
//! A kernel may lack the match for the name of a frame's bridge, so the wall goes by the port's name, which is
//! ours to choose, and stands before the port does.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::nft::Family;

/// Before connection tracking and everything that other programs hook in.
const PRIORITY: i32 = -300;
/// The bit in a UDP packet, counted from its header, at which DHCP has the client's hardware address.
const DHCP_CLIENT: u32 = (8 + 28) * 8;
/// Where a DHCP request goes whose sender knows no server yet.
const EVERYBODY: &str = "255.255.255.255";
/// The bit by which a bridge takes frames of LLDP for ordinary ones.
pub(super) const LLDP: u16 = 1 << 0xe;
/// The set of seats in a floor.
pub(super) const SEATS: &str = "seats";

/// A guest's place on a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct GuestPort {
    /// The host's device.
    pub(super) device: String,
    /// The guest's hardware address, in lower case with colons.
    pub(super) mac: String,
    /// The guest's address.
    pub(super) address: IpAddr,
    /// The host's address in the network.
    pub(super) gateway: IpAddr,
    /// The TCP port on which the agent is asked.
    pub(super) agent: Option<u16>,
}

/// An address that is taken on a network, with the port of its agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) address: IpAddr,
    pub(super) agent: Option<u16>,
    pub(super) label: String,
}

/// A table while it is built.
struct Table<'a> {
    family: Family,
    name: &'a str,
    label: &'a str,
    commands: Vec<Value>,
}

impl<'a> Table<'a> {
    /// It takes the place of a table of that name, in the same transaction.
    fn new(family: Family, name: &'a str, label: &'a str) -> Self {
        let mut commands = remove(family, name);
        commands.push(json!({ "add": named(family, name) }));
        Self {
            family,
            name,
            label,
            commands,
        }
    }

    fn chain(&mut self, name: &str, hook: Option<&str>) {
        let mut chain = json!({ "family": self.family.name(), "table": self.name, "name": name });
        if let (Some(hook), Some(keys)) = (hook, chain.as_object_mut()) {
            keys.insert("type".to_owned(), "filter".into());
            keys.insert("hook".to_owned(), hook.into());
            keys.insert("prio".to_owned(), PRIORITY.into());
            keys.insert("policy".to_owned(), "accept".into());
        }
        self.commands.push(json!({ "add": { "chain": chain } }));
    }

    fn rule(&mut self, chain: &str, expressions: Vec<Value>) {
        self.commands.push(json!({ "add": { "rule": {
            "family": self.family.name(), "table": self.name, "chain": chain,
            "expr": expressions, "comment": self.label,
        } } }));
    }
}

fn is(left: Value, right: impl Into<Value>) -> Value {
    json!({ "match": { "op": "==", "left": left, "right": right.into() } })
}

fn meta(key: &str) -> Value {
    json!({ "meta": { "key": key } })
}

fn payload(protocol: &str, field: &str) -> Value {
    json!({ "payload": { "protocol": protocol, "field": field } })
}

fn accept() -> Value {
    json!({ "accept": null })
}

fn drop_it() -> Value {
    json!({ "drop": null })
}

/// A DHCP packet of the client `mac`, where that is given, from one port to the other.
fn dhcp(from: u16, to: u16, mac: Option<&str>) -> Vec<Value> {
    let mut expressions = vec![
        is(payload("udp", "sport"), from),
        is(payload("udp", "dport"), to),
    ];
    if let Some(mac) = mac {
        let client = json!({ "payload": { "base": "th", "offset": DHCP_CLIENT, "len": 48 } });
        expressions.push(is(client, mac_number(mac)));
    }
    expressions
}

/// A hardware address as a number.
fn mac_number(mac: &str) -> u64 {
    mac.split(':')
        .filter_map(|byte| u64::from_str_radix(byte, 16).ok())
        .fold(0, |number, byte| number << 8 | byte)
}

fn all<const N: usize>(parts: [Vec<Value>; N]) -> Vec<Value> {
    parts.into_iter().flatten().collect()
}

/// The commands that raise the guest's wall, in place of an earlier one.
pub(super) fn wall(name: &str, label: &str, port: &GuestPort) -> Vec<Value> {
    let mut table = Table::new(Family::Bridge, name, label);
    let (mac, address) = (port.mac.as_str(), port.address.to_string());
    let gateway = port.gateway.to_string();
    let (device, out, into) = (port.device.as_str(), "out", "into");
    table.chain(out, None);
    table.chain(into, None);

    for chain in [out, into] {
        // Of the frame itself, before its tag was taken off.
        let foreign = json!({ "match": { "op": "!=",
            "left": payload("ether", "type"), "right": { "set": ["ip", "arp"] } } });
        table.rule(chain, vec![foreign, drop_it()]);
    }
    let second_mac = json!({ "match": {
        "op": "!=", "left": payload("ether", "saddr"), "right": mac } });
    table.rule(out, vec![second_mac, drop_it()]);
    let one_of = |addresses: [&str; 2]| json!({ "set": addresses });
    table.rule(
        out,
        vec![
            is(payload("arp", "saddr ether"), mac),
            is(payload("arp", "saddr ip"), one_of(["0.0.0.0", &address])),
            is(payload("arp", "daddr ip"), one_of([&gateway, &address])),
            accept(),
        ],
    );
    table.rule(
        out,
        all([
            vec![
                is(payload("ip", "saddr"), one_of(["0.0.0.0", &address])),
                is(payload("ip", "daddr"), one_of([EVERYBODY, &gateway])),
            ],
            dhcp(68, 67, Some(mac)),
            vec![accept()],
        ]),
    );
    table.rule(
        into,
        vec![is(payload("arp", "daddr ip"), address.as_str()), accept()],
    );
    // Of IPv4 alone: what is of no other kind has come so far, and ARP has no ports.
    table.rule(into, all([dhcp(67, 68, Some(mac)), vec![accept()]]));
    if let Some(agent) = port.agent {
        table.rule(
            out,
            vec![
                is(payload("ip", "saddr"), address.as_str()),
                is(payload("ip", "daddr"), gateway.as_str()),
                is(payload("tcp", "sport"), agent),
                accept(),
            ],
        );
        table.rule(
            into,
            vec![
                is(payload("ip", "saddr"), gateway.as_str()),
                is(payload("ip", "daddr"), address.as_str()),
                is(payload("tcp", "dport"), agent),
                accept(),
            ],
        );
    }
    for chain in [out, into] {
        table.rule(chain, vec![drop_it()]);
    }

    // Before the bridge learns where an address is.
    let jump = |chain: &str| json!({ "jump": { "target": chain } });
    table.chain("prerouting", Some("prerouting"));
    table.rule("prerouting", vec![is(meta("iifname"), device), jump(out)]);
    let link_protocols = json!({ "range": ["01:80:c2:00:00:00", "01:80:c2:00:00:0f"] });
    table.chain("input", Some("input"));
    table.rule(
        "input",
        vec![
            is(meta("iifname"), device),
            is(payload("ether", "daddr"), link_protocols),
            drop_it(),
        ],
    );
    table.chain("forward", Some("forward"));
    for key in ["iifname", "oifname"] {
        table.rule("forward", vec![is(meta(key), device), drop_it()]);
    }
    table.chain("output", Some("output"));
    table.rule("output", vec![is(meta("oifname"), device), jump(into)]);
    table.commands
}

/// The commands that make the floor of a bridge, in place of an earlier one.
pub(super) fn floor(
    name: &str,
    label: &str,
    bridge: &str,
    gateway: IpAddr,
    seat: &Seat,
) -> Vec<Value> {
    let mut table = Table::new(Family::Inet, name, label);
    table.commands.push(json!({ "add": { "set": {
        "family": Family::Inet.name(), "table": name, "name": SEATS,
        "type": ["ipv4_addr", "inet_service"],
    } } }));
    let from = || vec![is(meta("iifname"), bridge)];
    let to = || vec![is(meta("oifname"), bridge)];
    let version_4 = || vec![is(meta("nfproto"), "ipv4")];

    table.chain("input", Some("input"));
    let servers = json!({ "set": [EVERYBODY, gateway.to_string()] });
    let to_servers = vec![is(payload("ip", "daddr"), servers)];
    table.rule(
        "input",
        all([from(), to_servers, dhcp(68, 67, None), vec![accept()]]),
    );
    let established = json!({ "match": {
        "op": "in", "left": { "ct": { "key": "state" } }, "right": "established" } });
    let tcp = || is(meta("l4proto"), "tcp");
    table.rule(
        "input",
        all([from(), version_4(), vec![tcp(), established, accept()]]),
    );
    table.rule("input", all([from(), vec![drop_it()]]));

    table.chain("forward", Some("forward"));
    table.rule("forward", all([from(), vec![drop_it()]]));
    table.rule("forward", all([to(), vec![drop_it()]]));

    table.chain("output", Some("output"));
    table.rule(
        "output",
        all([to(), version_4(), dhcp(67, 68, None), vec![accept()]]),
    );
    let agent = json!({ "concat": [payload("ip", "daddr"), payload("tcp", "dport")] });
    table.rule(
        "output",
        all([to(), vec![is(agent, format!("@{SEATS}")), accept()]]),
    );
    table.rule("output", all([to(), vec![drop_it()]]));
    table.commands.push(take_seat(name, seat));
    table.commands
}

/// The command that takes a seat.
pub(super) fn take_seat(floor: &str, seat: &Seat) -> Value {
    json!({ "add": { "element": element(floor, seat) } })
}

/// The command that leaves it.
pub(super) fn leave_seat(floor: &str, seat: &Seat) -> Value {
    json!({ "delete": { "element": element(floor, seat) } })
}

fn element(floor: &str, seat: &Seat) -> Value {
    // No connection goes to port 0.
    let value = json!({ "concat": [seat.address.to_string(), seat.agent.unwrap_or(0)] });
    json!({
        "family": Family::Inet.name(), "table": floor, "name": SEATS,
        "elem": [{ "elem": { "val": value, "comment": seat.label } }],
    })
}

/// The commands that remove a table, whether it is there or not.
pub(super) fn remove(family: Family, name: &str) -> Vec<Value> {
    // Adding what is there changes nothing; deleting what is not there would fail.
    let table = named(family, name);
    vec![json!({ "add": table }), json!({ "delete": table })]
}

fn named(family: Family, name: &str) -> Value {
    json!({ "table": { "family": family.name(), "name": name } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hardware_address_is_the_number_that_dhcp_carries() {
        assert_eq!(mac_number("52:54:00:11:22:33"), 0x5254_0011_2233);
    }
}

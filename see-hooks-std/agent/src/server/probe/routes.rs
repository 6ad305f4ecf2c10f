//! The ways out of the guest.

use crate::platform;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::process::{Command, Stdio};

/// A link of the guest that has an address which is good on it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) address: Ipv6Addr,
}

/// The address, once for each link where it is one that every link has of its own.
pub(super) fn ways(address: SocketAddr) -> Vec<SocketAddr> {
    match address {
        SocketAddr::V6(v6) if v6.scope_id() == 0 && is_of_a_link(*v6.ip()) => {
            let links = links().into_iter();
            let on = |link: Link| SocketAddrV6::new(*v6.ip(), v6.port(), 0, link.number);
            links.map(|link| on(link).into()).collect()
        }
        address => vec![address],
    }
}

fn is_of_a_link(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_unicast_link_local() || (first == 0xFF && second & 0x0F == 2)
}

/// Every link with an address of its own.
pub(super) fn links() -> Vec<Link> {
    parse_links(&fs::read_to_string("/proc/net/if_inet6").unwrap_or_default())
}

/// Reads lines such as `fe80…0001 02 40 20 80     eth0`: address, number, prefix, scope, flags, name.
fn parse_links(table: &str) -> Vec<Link> {
    let parse = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        let number = u32::from_str_radix(words.next()?, 16).ok()?;
        let address = Ipv6Addr::from(address);
        let name = words.nth(3)?.to_owned();
        address.is_unicast_link_local().then_some(Link {
            number,
            name,
            address,
        })
    };
    table.lines().filter_map(parse).collect()
}

/// A default route for IPv4 where the guest has none, until it is dropped.
#[derive(Debug)]
pub(super) struct DefaultRoute(Option<Via>);

/// A neighbour and the interface behind which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Via {
    gateway: Ipv4Addr,
    interface: String,
}

impl DefaultRoute {
    /// Through the first address of the guest's network, where it usually is. Where that cannot be
    /// set, there is none.
    pub(super) fn lend() -> Self {
        let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
        let via = missing_default(&table).filter(|via| change("add", via));
        Self(via)
    }
}

impl Drop for DefaultRoute {
    fn drop(&mut self) {
        if let Some(via) = &self.0 {
            // Where it fails the sample has a route that it could have made itself.
            change("del", via);
        }
    }
}

/// Adds or takes away a default route; says whether that worked.
fn change(how: &str, via: &Via) -> bool {
    let Some(mut command) = platform::change_default_route(how, via.gateway, &via.interface) else {
        return false;
    };
    quiet(&mut command)
}

fn quiet(command: &mut Command) -> bool {
    let command = command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The gateway that is to be expected, where the kernel's table of routes has none.
fn missing_default(table: &str) -> Option<Via> {
    let number = |word: &str| u32::from_str_radix(word, 16).ok().map(u32::from_be);
    // Name, destination, gateway, flags, three numbers, mask; the addresses in the network's order.
    let parse = |line: &str| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [name, destination, gateway, _, _, _, _, mask, ..] = words[..] else {
            return None;
        };
        let name = name.to_owned();
        Some((name, number(destination)?, number(gateway)?, number(mask)?))
    };
    let routes: Vec<_> = table.lines().skip(1).filter_map(parse).collect();
    if routes.iter().any(|(.., mask)| *mask == 0) {
        return None;
    }
    let mut own = routes.into_iter().filter(|(_, _, gateway, mask)| {
        // A network of one or two addresses has no gateway of its own.
        *gateway == 0 && mask.count_zeros() >= 2
    });
    let (interface, network, ..) = own.next()?;
    Some(Via {
        gateway: Ipv4Addr::from(network.wrapping_add(1)),
        interface,
    })
}

/// Whether the address is one of the guest's own.
pub(super) fn is_own(address: IpAddr) -> bool {
    match address {
        IpAddr::V6(address) => links().iter().any(|link| link.address == address),
        IpAddr::V4(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
    const OWN: &str = "eth0\t0001010A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";

    #[test]
    fn a_network_without_a_gateway_is_given_its_first_address() {
        let via = missing_default(&format!("{HEAD}{OWN}")).expect("a gateway");
        assert_eq!(via.gateway, Ipv4Addr::new(10, 1, 1, 1));
        assert_eq!(via.interface, "eth0");
    }

    #[test]
    fn a_gateway_that_is_there_stays_alone() {
        let default = "eth0\t00000000\t0101010A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(missing_default(&format!("{HEAD}{default}{OWN}")), None);
        assert_eq!(missing_default(HEAD), None);
        assert_eq!(missing_default("nonsense\nof two lines"), None);
    }

    #[test]
    fn links_are_those_with_an_address_of_their_own() {
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n\
                     fe80000000000000505400fffe123456 02 40 20 80     eth0\n\
                     fd000000000000000000000000000001 02 40 00 80     eth0\n\
                     broken\n";
        let links = parse_links(table);
        assert_eq!(links.len(), 1);
        assert_eq!((links[0].number, links[0].name.as_str()), (2, "eth0"));
    }
}

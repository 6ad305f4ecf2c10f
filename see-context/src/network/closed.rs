//! What must not answer a guest behind walls, as things stand on this host.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use see_core::{Closed, Error, Result, Target};

use super::netlink::route::{self, Route};
use super::rules::{GuestPort, Seat};
use super::subnet::Subnet;
use crate::error::blocking;

/// Other sandboxes that are tried.
pub(super) const OTHERS: usize = 2;
/// Machines of the LAN that are tried where no gateway tells of one.
const NEIGHBOURS: usize = 8;
/// A TCP port on which rarely anything listens: a host that can be reached refuses with an answer.
const UNUSED: u16 = 9;
/// The service of clouds that tells machines their secrets.
const METADATA: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254));
/// All nodes of the link.
const EVERYBODY: IpAddr = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1));
/// The name that a name server is asked for.
const NAME: &str = "example.com";
/// The DHCP server's port, which is open at the gateway.
const DHCP: u16 = 67;

/// A socket of this host that takes connections or datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Service {
    address: IpAddr,
    port: u16,
    datagrams: bool,
}

/// Everything that must be closed to the guest on `port`. `proc` is the folder of the kernel's tables of sockets.
pub(super) async fn list(
    port: &GuestPort,
    others: &[Seat],
    proc: &'static Path,
) -> Result<Vec<Closed>> {
    let routes = route::routes().await?;
    let looked = blocking("list the host's services", || {
        Ok((services(proc)?, name_servers()))
    });
    let (services, name_servers) = looked.await?;
    Ok(list_of(port, others, &routes, &services, name_servers))
}

/// The same from what was looked at.
fn list_of(
    port: &GuestPort,
    others: &[Seat],
    routes: &[Route],
    services: &BTreeSet<Service>,
    name_servers: Vec<IpAddr>,
) -> Vec<Closed> {
    let mut closed = Vec::new();
    let mut add = |what: String, target: Target| closed.push(Closed { what, target });

    for address in own_addresses(routes, port.gateway) {
        add(format!("the host at {address}"), Target::Ping(address));
        add(
            format!("the host at {address}"),
            Target::Tcp(SocketAddr::new(address, UNUSED)),
        );
        let serving = services.iter().filter(|service| service.serves(address));
        let serving = serving.filter(|service| !(service.is_dhcp() && address == port.gateway));
        // One may listen on an address and on all.
        let serving = serving.map(|service| (service.datagrams, service.port));
        for (datagrams, port) in serving.collect::<BTreeSet<_>>() {
            let target = SocketAddr::new(address, port);
            match datagrams {
                true => add(
                    format!("the host's UDP service {target}"),
                    Target::Udp(target),
                ),
                false => add(
                    format!("the host's TCP service {target}"),
                    Target::Tcp(target),
                ),
            }
        }
    }
    add(
        "a name server of the host".to_owned(),
        Target::Dns(SocketAddr::new(port.gateway, 53), NAME.to_owned()),
    );
    for other in others {
        let what = || "another sandbox".to_owned();
        let agent = other.agent.unwrap_or(UNUSED);
        add(what(), Target::Ping(other.address));
        add(what(), Target::Tcp(SocketAddr::new(other.address, agent)));
    }
    let gateways: BTreeSet<IpAddr> = routes
        .iter()
        .filter(|route| route.destination.is_none())
        .flat_map(|route| route.gateways.iter().copied())
        .collect();
    let lan: Vec<(&str, IpAddr)> = match gateways.is_empty() {
        false => gateways.into_iter().map(|it| ("gateway", it)).collect(),
        true => {
            let neighbours = neighbours(routes, port.gateway).into_iter();
            neighbours.map(|it| ("machine", it)).collect()
        }
    };
    for (who, address) in lan {
        let what = || format!("the LAN's {who} {address}");
        add(what(), Target::Ping(address));
        add(what(), Target::Tcp(SocketAddr::new(address, 80)));
    }
    add(
        "the cloud's metadata".to_owned(),
        Target::Tcp(SocketAddr::new(METADATA, 80)),
    );
    for server in name_servers {
        add(
            format!("the name server {server}"),
            Target::Dns(SocketAddr::new(server, 53), NAME.to_owned()),
        );
    }
    add(
        "every IPv6 neighbour on the link".to_owned(),
        Target::Ping(EVERYBODY),
    );
    closed
}

/// The addresses of this host, that on the guest's network first; not those that mean the guest itself there.
fn own_addresses(routes: &[Route], gateway: IpAddr) -> Vec<IpAddr> {
    let all: BTreeSet<IpAddr> = routes
        .iter()
        .filter(|route| route.is_local)
        .filter_map(|route| route.destination)
        .filter(|subnet| subnet.is_one())
        .map(|subnet| subnet.address())
        .filter(|address| !address.is_loopback() && *address != gateway)
        .collect();
    std::iter::once(gateway).chain(all).collect()
}

/// Where there is no gateway: the first address of each network of this host's that is not the host's own, but for
/// the guest's network.
fn neighbours(routes: &[Route], gateway: IpAddr) -> BTreeSet<IpAddr> {
    let own: BTreeSet<IpAddr> = own_addresses(routes, gateway).into_iter().collect();
    let guests = Subnet::containing(gateway, if gateway.is_ipv4() { 32 } else { 128 });
    routes
        .iter()
        .filter(|route| !route.is_local && route.gateways.is_empty())
        .filter_map(|route| route.destination)
        .filter(|subnet| !subnet.is_one() && is_of_machines(subnet.address()))
        .filter(|subnet| !guests.is_some_and(|guests| subnet.overlaps(guests)))
        .filter_map(|subnet| {
            let hosts = (1..=2).filter_map(|offset| subnet.host(offset));
            hosts.into_iter().find(|host| !own.contains(host))
        })
        .take(NEIGHBOURS)
        .collect()
}

/// Whether a network of this address is one of other machines: not of groups, or of every link alike.
fn is_of_machines(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_multicast() && !address.is_loopback(),
        IpAddr::V6(address) => !address.is_multicast() && !address.is_unicast_link_local(),
    }
}

impl Service {
    fn is_dhcp(&self) -> bool {
        self.datagrams && self.port == DHCP
    }

    fn serves(&self, address: IpAddr) -> bool {
        // A socket of IPv6 on every address takes IPv4, too.
        self.address == address
            || self.address == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            || (self.address == IpAddr::V4(Ipv4Addr::UNSPECIFIED) && address.is_ipv4())
    }
}

fn services(proc: &Path) -> Result<BTreeSet<Service>> {
    let mut found = BTreeSet::new();
    for (file, datagrams) in [
        ("tcp", false),
        ("tcp6", false),
        ("udp", true),
        ("udp6", true),
    ] {
        let table = match fs::read_to_string(proc.join(file)) {
            Ok(table) => table,
            // A kernel without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("the host's services cannot be listed", error)),
        };
        found.extend(sockets(&table, datagrams));
    }
    Ok(found)
}

/// The sockets in a table of the kernel's that wait for strangers.
fn sockets(table: &str, datagrams: bool) -> impl Iterator<Item = Service> {
    // Listening, or for datagrams bound and connected to nobody.
    let waiting = if datagrams { "07" } else { "0A" };
    table.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_whitespace();
        let (address, port) = fields.nth(1)?.split_once(':')?;
        if fields.nth(1)? != waiting {
            return None;
        }
        let port = u16::from_str_radix(port, 16).ok()?;
        Some(Service {
            address: hex_address(address)?,
            port,
            datagrams,
        })
    })
}

/// The kernel prints addresses as numbers of the host's byte order, 32 bits each.
fn hex_address(text: &str) -> Option<IpAddr> {
    let mut bytes = Vec::with_capacity(16);
    for start in (0..text.len()).step_by(8) {
        let number = u32::from_str_radix(text.get(start..start + 8)?, 16).ok()?;
        bytes.extend(number.to_ne_bytes());
    }
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

/// Those that the host itself asks. Those of its loopback are the guest's own there.
fn name_servers() -> Vec<IpAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|server| server.trim().parse().ok())
        .filter(|server: &IpAddr| !server.is_loopback())
        .collect()
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    #[test]
    fn listening_sockets_are_read_and_connected_ones_are_not() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
            0: 0100007F:0016 00000000:0000 0A 0:0\n\
            1: 00000000:1F90 00000000:0000 0A 0:0\n\
            2: 0A00000A:0016 0B00000A:D431 01 0:0\nbroken\n";
        let found: Vec<Service> = sockets(table, false).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[1].port, 8080);
        let host = IpAddr::from([10, 0, 0, 1]);
        assert!(!found[0].serves(host));
        assert!(found[1].serves(host));
        let six = "head\n0: 00000000000000000000000001000000:0035 0:0 07 0:0\n";
        let found: Vec<Service> = sockets(six, true).collect();
        assert_eq!(found[0].address, IpAddr::V6(Ipv6Addr::LOCALHOST));
    }

    fn port(gateway: IpAddr) -> GuestPort {
        GuestPort {
            device: "see0".to_owned(),
            mac: "52:54:00:00:00:01".to_owned(),
            address: [10, 0, 0, 2].into(),
            gateway,
            agent: None,
        }
    }

    /// What is listed with the sockets of this folder, and the host's own addresses.
    async fn listed(port: &GuestPort, others: &[Seat], proc: &Path) -> (Vec<Closed>, Vec<IpAddr>) {
        let routes = route::routes().await.unwrap();
        let services = services(proc).unwrap();
        let closed = list_of(port, others, &routes, &services, Vec::new());
        (closed, own_addresses(&routes, port.gateway))
    }

    #[tokio::test]
    async fn every_service_on_every_address_of_the_host_is_tried_once() {
        let folder = tempfile::tempdir().unwrap();
        let services: Vec<u16> = (1000..1100).collect();
        let listening = |anywhere: &str| {
            let lines = services
                .iter()
                .map(|port| format!("0: {anywhere}:{port:04X} 00000000:0000 0A 0:0\n"));
            format!("head\n{}", lines.collect::<String>())
        };
        fs::write(folder.path().join("tcp"), listening("00000000")).unwrap();
        let anywhere = listening("00000000000000000000000000000000");
        fs::write(folder.path().join("tcp6"), anywhere).unwrap();
        let gateway = IpAddr::from([10, 0, 0, 1]);
        let (closed, own) = listed(&port(gateway), &[], folder.path()).await;
        for address in own {
            for service in &services {
                let wanted = Target::Tcp(SocketAddr::new(address, *service));
                let times = closed.iter().filter(|closed| closed.target == wanted);
                assert_eq!(times.count(), 1, "{wanted:?}");
            }
        }
    }

    fn route(destination: Option<([u8; 4], u8)>, is_local: bool) -> Route {
        Route {
            destination: destination
                .map(|(at, prefix)| Subnet::containing(at.into(), prefix).unwrap()),
            is_local,
            gateways: Vec::new(),
            device: None,
        }
    }

    #[test]
    fn without_a_gateway_somebody_of_each_network_of_the_hosts_stands_for_the_lan() {
        let gateway = IpAddr::from([10, 0, 0, 1]);
        let mut routes = vec![
            route(Some(([10, 0, 0, 0], 30)), false),
            route(Some(([192, 168, 1, 0], 24)), false),
            route(Some(([192, 168, 1, 7], 32)), true),
            route(Some(([192, 168, 2, 0], 24)), false),
            route(Some(([192, 168, 2, 1], 32)), true),
            route(Some(([192, 168, 2, 255], 32)), false),
            route(Some(([127, 0, 0, 0], 8)), true),
            route(Some(([224, 0, 0, 0], 4)), false),
        ];
        let found: Vec<IpAddr> = neighbours(&routes, gateway).into_iter().collect();
        let expected = [[192, 168, 1, 1], [192, 168, 2, 2]].map(IpAddr::from);
        assert_eq!(found, expected);
        routes.extend((0..100).map(|third| route(Some(([172, 16, third, 0], 24)), false)));
        assert_eq!(neighbours(&routes, gateway).len(), NEIGHBOURS);
    }

    #[tokio::test]
    async fn only_the_dhcp_server_at_the_gateway_is_open() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(
            folder.path().join("udp"),
            "head\n0: 00000000:0043 0:0 07 0:0\n",
        )
        .unwrap();
        let gateway = IpAddr::from([10, 0, 0, 1]);
        let (closed, own) = listed(&port(gateway), &[], folder.path()).await;
        let tried = |address: IpAddr| {
            let wanted = Target::Udp(SocketAddr::new(address, DHCP));
            closed.iter().any(|closed| closed.target == wanted)
        };
        assert!(!tried(gateway));
        for address in own.into_iter().filter(IpAddr::is_ipv4) {
            assert_eq!(tried(address), address != gateway, "{address}");
        }
    }

    #[tokio::test]
    async fn the_host_its_services_and_the_link_are_to_be_closed() {
        let folder = tempfile::tempdir().unwrap();
        let table = "head\n0: 00000000:1F90 00000000:0000 0A 0:0\n";
        fs::write(folder.path().join("tcp"), table).unwrap();
        let gateway = IpAddr::from([10, 0, 0, 1]);
        let other = Seat {
            address: [10, 0, 0, 7].into(),
            agent: None,
            label: "see:b".to_owned(),
        };
        let (closed, _) = listed(&port(gateway), &[other], folder.path()).await;
        let targets: Vec<Target> = closed.into_iter().map(|closed| closed.target).collect();
        for wanted in [
            Target::Ping(gateway),
            Target::Tcp(SocketAddr::new(gateway, 8080)),
            Target::Ping([10, 0, 0, 7].into()),
            Target::Tcp(SocketAddr::new(METADATA, 80)),
            Target::Ping(EVERYBODY),
            Target::Dns(SocketAddr::new(gateway, 53), NAME.to_owned()),
        ] {
            assert!(targets.contains(&wanted), "{wanted:?}: {targets:?}");
        }
        assert!(!targets.contains(&Target::Ping(Ipv4Addr::LOCALHOST.into())));
    }
}

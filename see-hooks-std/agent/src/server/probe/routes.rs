//! The ways out of the guest.

use crate::platform;
use crate::server::lock;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

/// A link of the guest that has an address which is good on it alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) number: u32,
    pub(super) name: String,
    pub(super) address: Ipv6Addr,
}

/// The address, once for each link where it is one that every link has of its own.
pub(super) fn ways(address: SocketAddr) -> io::Result<Vec<SocketAddr>> {
    match address {
        SocketAddr::V6(v6) if is_of_every_link(v6) => {
            let links = links()?.into_iter();
            let on = |link: Link| SocketAddrV6::new(*v6.ip(), v6.port(), 0, link.number);
            Ok(links.map(|link| on(link).into()).collect())
        }
        address => Ok(vec![address]),
    }
}

/// The name of a link on which the address means somebody, and that has no address to ask from yet: the guest
/// gives it one once it has seen, for a second or more, that nobody else has it.
pub(super) fn awaited(address: SocketAddr) -> Option<String> {
    match address {
        SocketAddr::V6(v6) if is_of_every_link(v6) => {
            let table = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
            let settings = Path::new("/proc/sys/net/ipv6/conf");
            awaited_link(Path::new("/sys/class/net"), settings, &table)
        }
        _ => None,
    }
}

/// Looks for it among the devices: a cable that is plugged in, IPv6 switched on, and no address that is good yet.
fn awaited_link(devices: &Path, settings: &Path, table: &str) -> Option<String> {
    const ETHERNET: &str = "1";
    let is = |file: PathBuf, wanted: &str| {
        fs::read_to_string(file).is_ok_and(|found| found.trim() == wanted)
    };
    let devices = fs::read_dir(devices).ok()?.flatten();
    devices
        .filter(|device| {
            let folder = device.path();
            is(folder.join("type"), ETHERNET)
                && is(folder.join("carrier"), "1")
                && !folder.join("master").exists()
        })
        .filter_map(|device| device.file_name().into_string().ok())
        .filter(|name| is(settings.join(name).join("disable_ipv6"), "0"))
        .find(|name| !table.lines().any(|line| is_good(line, name)))
}

/// Whether a line of the kernel's table is of an address of this link alone, which may be used.
fn is_good(line: &str, name: &str) -> bool {
    const TENTATIVE: u32 = 0x40;
    const OPTIMISTIC: u32 = 0x04;
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [address, _, _, _, flags, link] = words[..] else {
        return false;
    };
    let flags = u32::from_str_radix(flags, 16).unwrap_or(TENTATIVE);
    let address = u128::from_str_radix(address, 16).unwrap_or_default();
    let may_be_used = flags & TENTATIVE == 0 || flags & OPTIMISTIC != 0;
    link == name && may_be_used && Ipv6Addr::from(address).is_unicast_link_local()
}

fn is_of_every_link(address: SocketAddrV6) -> bool {
    address.scope_id() == 0 && is_of_a_link(*address.ip())
}

fn is_of_a_link(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.octets();
    address.is_unicast_link_local() || (first == 0xFF && second & 0x0F == 2)
}

/// Every link with an address of its own; none where there is no IPv6.
pub(super) fn links() -> io::Result<Vec<Link>> {
    match fs::read_to_string("/proc/net/if_inet6") {
        Ok(table) => Ok(parse_links(&table)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
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

/// A default route for IPv4, which probes have where the guest has none.
#[derive(Debug, Default)]
pub(crate) struct DefaultRoute(Mutex<Lending>);

#[derive(Debug, Default)]
struct Lending {
    /// How many probes need it.
    probes: usize,
    /// The one that was made for them.
    made: Option<Via>,
}

/// A default route, as long as this lives.
#[derive(Debug)]
pub(super) struct Lent<'a>(&'a DefaultRoute);

/// A neighbour and the interface behind which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Via {
    gateway: Ipv4Addr,
    interface: String,
}

impl DefaultRoute {
    /// Through the first address of the guest's network, where it usually is. Where that cannot be
    /// set, there is none.
    pub(super) fn lend(&self) -> Lent<'_> {
        let mut lending = lock(&self.0);
        lending.probes += 1;
        if lending.made.is_none() {
            let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
            lending.made = missing_default(&table).filter(|via| change("add", via));
        }
        Lent(self)
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut lending = lock(&self.0.0);
        lending.probes -= 1;
        if lending.probes > 0 {
            return;
        }
        if let Some(via) = lending.made.take() {
            // Where it fails the sample has a route that it could have made itself.
            change("del", &via);
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
    let child = platform::spawn(command.stderr(Stdio::null()));
    let status = child.and_then(|mut child| child.wait());
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
        IpAddr::V6(address) => {
            links().is_ok_and(|links| links.iter().any(|link| link.address == address))
        }
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
    fn a_link_whose_address_is_not_good_yet_is_awaited() {
        let folder = std::env::temp_dir().join(format!("see-agent-links-{}", std::process::id()));
        let (devices, settings) = (folder.join("net"), folder.join("conf"));
        let write = |file: PathBuf, text: &str| {
            fs::create_dir_all(file.parent().expect("it is in a folder")).expect("made");
            fs::write(file, text).expect("written");
        };
        for (name, kind, carrier, off) in [
            ("lo", "772", "1", "0"),
            ("eth0", "1", "1", "0"),
            ("unplugged0", "1", "0", "0"),
            ("without0", "1", "1", "1"),
        ] {
            write(devices.join(name).join("type"), kind);
            write(devices.join(name).join("carrier"), carrier);
            write(settings.join(name).join("disable_ipv6"), off);
        }
        let awaited = |flags: &str, address: &str| {
            let table = format!("{address} 02 40 20 {flags}     eth0\n");
            awaited_link(&devices, &settings, &table)
        };
        let own = "fe80000000000000505400fffe123456";
        assert_eq!(awaited("80", own), None);
        assert_eq!(awaited("c4", own), None);
        assert_eq!(awaited("c0", own).as_deref(), Some("eth0"));
        let wide = "fd000000000000000000000000000001";
        assert_eq!(awaited("80", wide).as_deref(), Some("eth0"));
        let none = awaited_link(&devices, &settings, "");
        assert_eq!(none.as_deref(), Some("eth0"));
        // A kernel without IPv6.
        assert_eq!(awaited_link(&devices, Path::new("/nothing"), ""), None);
        fs::remove_dir_all(folder).expect("removed");
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

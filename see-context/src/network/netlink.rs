//! What the kernel says of routes and devices, over a netlink socket: in every routing table, of both
//! families, as `/proc/net/route` does not.

use std::collections::BTreeMap;
use std::net::IpAddr;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use see_core::{Error, Result};

use super::subnet::Subnet;

/// A route of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// Where it leads; `None` for a default route.
    pub(super) destination: Option<Subnet>,
    /// Whether the destination is this host.
    pub(super) is_local: bool,
    /// The next hosts on the way.
    pub(super) gateways: Vec<IpAddr>,
    /// The number of the device.
    pub(super) device: Option<u32>,
}

/// A network device of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// Its number.
    pub(super) index: u32,
    /// Whether it is switched on.
    pub(super) is_up: bool,
    /// Its hardware address, in lower case with colons.
    pub(super) mac: Option<String>,
    /// The number of the bridge that it is a port of.
    pub(super) bridge: Option<u32>,
    /// Whether it is a port that exchanges nothing with other isolated ports.
    pub(super) is_isolated: bool,
    /// Of a bridge: which frames of link protocols it treats as all others, a bit each.
    pub(super) group_forward: Option<u16>,
}

/// The length of a message's header, and of the fixed parts behind it.
const HEADER: usize = 16;
const ROUTE: usize = 12;
const DEVICE: usize = 16;

// The kernel's numbers: <linux/netlink.h>, <linux/rtnetlink.h>, <linux/if_link.h>.
const NLM_F_REQUEST: u16 = 0x01;
const NLM_F_ACK: u16 = 0x04;
const NLM_F_DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTN_LOCAL: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_MULTIPATH: u16 = 9;
const RTA_VIA: u16 = 18;
const RTM_F_CLONED: u32 = 0x200;
const IFF_UP: u32 = 1;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BR_GROUP_FWD_MASK: u16 = 9;
const IFLA_BRPORT_ISOLATED: u16 = 33;
/// The kind of a bridge.
const BRIDGE: &[u8] = b"bridge\0";
/// The length of a next hop's fixed part.
const NEXT_HOP: usize = 8;
/// Flags in an attribute's kind.
const KIND: u16 = 0x3fff;

/// Every route of every table. The calling thread waits for the kernel, for microseconds.
///
/// # Errors
/// Where the kernel gives no answer.
pub(super) fn routes() -> Result<Vec<Route>> {
    let mut found = Vec::new();
    dump(RTM_GETROUTE, ROUTE, |kind, body| {
        if kind == RTM_NEWROUTE {
            found.extend(route(body));
        }
    })?;
    Ok(found)
}

/// Every network device, by its name.
///
/// # Errors
/// Where the kernel gives no answer.
pub(super) fn devices() -> Result<BTreeMap<String, Device>> {
    let mut found = BTreeMap::new();
    dump(RTM_GETLINK, DEVICE, |kind, body| {
        if kind == RTM_NEWLINK {
            found.extend(device(body));
        }
    })?;
    Ok(found)
}

/// Sets which frames of link protocols a bridge treats as all others.
///
/// # Errors
/// Where the kernel refuses it, or has no such bridge any more.
pub(super) fn set_group_forward(bridge: &Device, mask: u16) -> Result<()> {
    let data = attribute(IFLA_BR_GROUP_FWD_MASK, &mask.to_ne_bytes());
    let info = [
        attribute(IFLA_INFO_KIND, BRIDGE),
        attribute(IFLA_INFO_DATA, &data),
    ];
    let mut body = vec![0_u8; DEVICE];
    body[4..8].copy_from_slice(&bridge.index.to_ne_bytes());
    body.extend(attribute(IFLA_LINKINFO, &info.concat()));
    let failed = "the kernel does not set what a bridge forwards";
    ask(RTM_NEWLINK, NLM_F_ACK, &body, failed, |_, _| {})
}

/// An attribute with this value, padded.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(aligned(length));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(length), 0);
    bytes
}

/// Asks for everything of a kind, and hands over each message without its header.
fn dump(request: u16, fixed: usize, take: impl FnMut(u16, &[u8])) -> Result<()> {
    let failed = "the kernel does not tell the host's routes and devices";
    // Of all families: the fixed part is zero.
    ask(request, NLM_F_DUMP, &vec![0_u8; fixed], failed, take)
}

/// Sends a request, and hands over each message of the answer without its header.
fn ask(
    request: u16,
    flags: u16,
    body: &[u8],
    failed: &'static str,
    mut take: impl FnMut(u16, &[u8]),
) -> Result<()> {
    let refused = |error: rustix::io::Errno| Error::io(failed, error.into());
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is number 0, the default.
        None,
    )
    .map_err(refused)?;
    let length = HEADER + body.len();
    let mut message = vec![0_u8; HEADER];
    message[0..4].copy_from_slice(&(length as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&request.to_ne_bytes());
    message[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    message.extend(body);
    rustix::net::send(&socket, &message, SendFlags::empty()).map_err(refused)?;
    // The kernel never sends more at once.
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        let (received, _) =
            rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()).map_err(refused)?;
        let mut rest = &buffer[..received];
        if rest.is_empty() {
            return Ok(());
        }
        while let Some((kind, body, after)) = message_of(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    // No error is the answer to a request that is done.
                    let code = number(body).map_or(0, |code| (code as i32).saturating_neg());
                    return match code {
                        0 if flags & NLM_F_ACK != 0 => Ok(()),
                        code => {
                            let error = std::io::Error::from_raw_os_error(code);
                            Err(Error::io(failed, error))
                        }
                    };
                }
                _ => take(kind, body),
            }
            rest = after;
        }
    }
}

/// The first message: its kind, its body, and what follows.
fn message_of(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = number(bytes)? as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER..length)?;
    let after = bytes.get(aligned(length)..).unwrap_or_default();
    Some((kind, body, after))
}

/// The attributes in these bytes. What is cut off ends them.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(0..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..length)?;
        bytes = bytes.get(aligned(length)..).unwrap_or_default();
        Some((kind & KIND, value))
    })
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(0..4)?.try_into().ok()?))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        16 => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
        _ => None,
    }
}

fn route(body: &[u8]) -> Option<Route> {
    let (fixed, rest) = body.split_at_checked(ROUTE)?;
    let (prefix, kind) = (fixed[1], fixed[7]);
    // A remembered path of IPv6 is no route of its own.
    if number(&fixed[8..])? & RTM_F_CLONED != 0 {
        return None;
    }
    let mut route = Route {
        destination: None,
        is_local: kind == RTN_LOCAL,
        gateways: Vec::new(),
        device: None,
    };
    for (kind, value) in attributes(rest) {
        match kind {
            RTA_DST => route.destination = Subnet::containing(address(value)?, prefix),
            RTA_GATEWAY | RTA_VIA => route.gateways.extend(gateway(kind, value)),
            RTA_MULTIPATH => route.gateways.extend(gateways(value)),
            RTA_OIF => route.device = number(value),
            _ => {}
        }
    }
    Some(route)
}

/// A gateway; that of another family than the route's comes behind the number of its family.
fn gateway(kind: u16, value: &[u8]) -> Option<IpAddr> {
    match kind {
        RTA_GATEWAY => address(value),
        RTA_VIA => address(value.get(2..)?),
        _ => None,
    }
}

/// The gateways in a list of next hops.
fn gateways(mut hops: &[u8]) -> Vec<IpAddr> {
    let mut found = Vec::new();
    while let Some(length) = hops.get(0..2) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        let Some(hop) = hops.get(NEXT_HOP..length) else {
            break;
        };
        found.extend(attributes(hop).filter_map(|(kind, value)| gateway(kind, value)));
        hops = hops.get(aligned(length)..).unwrap_or_default();
    }
    found
}

fn device(body: &[u8]) -> Option<(String, Device)> {
    let (fixed, rest) = body.split_at_checked(DEVICE)?;
    let mut name = None;
    let mut device = Device {
        index: number(&fixed[4..])?,
        is_up: number(&fixed[8..])? & IFF_UP != 0,
        mac: None,
        bridge: None,
        is_isolated: false,
        group_forward: None,
    };
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_IFNAME => {
                let text = value.split(|byte| *byte == 0).next()?;
                name = Some(String::from_utf8_lossy(text).into_owned());
            }
            IFLA_ADDRESS => {
                let bytes = value.iter().map(|byte| format!("{byte:02x}"));
                device.mac = Some(bytes.collect::<Vec<_>>().join(":"));
            }
            IFLA_MASTER => device.bridge = number(value),
            IFLA_LINKINFO => {
                device.is_isolated = attributes(value)
                    .filter(|(kind, _)| *kind == IFLA_INFO_SLAVE_DATA)
                    .flat_map(|(_, value)| attributes(value))
                    .any(|(kind, value)| kind == IFLA_BRPORT_ISOLATED && value == [1]);
                let is_bridge = attributes(value).any(|info| info == (IFLA_INFO_KIND, BRIDGE));
                device.group_forward = attributes(value)
                    .filter(|(kind, _)| is_bridge && *kind == IFLA_INFO_DATA)
                    .flat_map(|(_, value)| attributes(value))
                    .find(|(kind, _)| *kind == IFLA_BR_GROUP_FWD_MASK)
                    .and_then(|(_, value)| Some(u16::from_ne_bytes(value.try_into().ok()?)));
            }
            _ => {}
        }
    }
    Some((name?, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_seen_in_the_table_of_local_routes() {
        let device = devices().unwrap().remove("lo").unwrap();
        assert_eq!(device.index, 1);
        assert_eq!(device.mac.as_deref(), Some("00:00:00:00:00:00"));
        let own = Subnet::containing([127, 0, 0, 1].into(), 32);
        let routes = routes().unwrap();
        assert!(
            routes
                .iter()
                .any(|route| route.is_local && route.destination == own),
            "{routes:?}"
        );
    }

    /// A route's message: a default route of IPv4 with these attributes.
    fn default_route(rest: &[u8]) -> Route {
        route(&[&[0_u8; ROUTE], rest].concat()).unwrap()
    }

    #[test]
    fn gateways_are_read_from_several_next_hops_and_from_those_of_the_other_family() {
        let hop = |rest: &[u8]| {
            let length = (NEXT_HOP + rest.len()) as u16;
            let fixed = [length.to_ne_bytes(), [0; 2], [0; 2], [0; 2]].concat();
            [&fixed, rest].concat()
        };
        let v6: IpAddr = "fe80::7".parse().unwrap();
        let via = match v6 {
            IpAddr::V6(v6) => [&10_u16.to_ne_bytes()[..], &v6.octets()].concat(),
            IpAddr::V4(_) => unreachable!(),
        };
        let via = attribute(RTA_VIA, &via);
        let first = attribute(RTA_GATEWAY, &[10, 0, 0, 1]);
        let hops = [hop(&first), hop(&[]), hop(&via)].concat();
        let route = default_route(&attribute(RTA_MULTIPATH, &hops));
        assert_eq!(route.gateways, [IpAddr::from([10, 0, 0, 1]), v6]);
        assert_eq!(default_route(&via).gateways, [v6]);
        assert_eq!(
            default_route(&first).gateways,
            [IpAddr::from([10, 0, 0, 1])]
        );
        // A next hop that is longer than the list.
        let cut = [200, 0, 0, 0, 0, 0, 0, 0];
        assert!(
            default_route(&attribute(RTA_MULTIPATH, &cut))
                .gateways
                .is_empty()
        );
        assert!(gateways(&[0; 8]).is_empty());
    }

    #[test]
    fn a_device_that_is_switched_on_is_told_from_one_that_is_not() {
        let mut body = vec![0_u8; DEVICE];
        body.extend(attribute(IFLA_IFNAME, b"see0\0"));
        assert!(!device(&body).unwrap().1.is_up);
        // Running, but not up.
        body[8..12].copy_from_slice(&0x40_u32.to_ne_bytes());
        assert!(!device(&body).unwrap().1.is_up);
        body[8..12].copy_from_slice(&0x41_u32.to_ne_bytes());
        assert!(device(&body).unwrap().1.is_up);
        assert!(devices().unwrap()["lo"].is_up);
    }

    #[test]
    fn what_is_cut_off_or_longer_than_it_says_is_passed_over() {
        assert!(message_of(&[255, 0, 0, 0, 24, 0]).is_none());
        assert!(route(&[0; 4]).is_none());
        assert_eq!(attributes(&[0; 8]).count(), 0);
        let long = [200, 0, 1, 0, 10, 0, 0, 1];
        assert_eq!(attributes(&long).count(), 0);
        let whole = [8, 0, 1, 0, 10, 0, 0, 1, 3, 0];
        assert_eq!(attributes(&whole).count(), 1);
    }
}

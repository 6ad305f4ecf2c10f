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
    /// The next host on the way.
    pub(super) gateway: Option<IpAddr>,
    /// The number of the device.
    pub(super) device: Option<u32>,
}

/// A network device of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Device {
    /// Its number.
    pub(super) index: u32,
    /// The number of the bridge that it is a port of.
    pub(super) bridge: Option<u32>,
    /// Whether it is a port that exchanges nothing with other isolated ports.
    pub(super) is_isolated: bool,
}

/// The length of a message's header, and of the fixed parts behind it.
const HEADER: usize = 16;
const ROUTE: usize = 12;
const DEVICE: usize = 16;

// The kernel's numbers: <linux/netlink.h>, <linux/rtnetlink.h>, <linux/if_link.h>.
const NLM_F_REQUEST: u16 = 0x01;
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
const RTM_F_CLONED: u32 = 0x200;
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_ISOLATED: u16 = 33;
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

/// Asks for everything of a kind, and hands over each message without its header.
fn dump(request: u16, fixed: usize, mut take: impl FnMut(u16, &[u8])) -> Result<()> {
    let failed = |error: rustix::io::Errno| {
        Error::io(
            "the kernel does not tell the host's routes and devices",
            error.into(),
        )
    };
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        // NETLINK_ROUTE is number 0, the default.
        None,
    )
    .map_err(failed)?;
    let length = HEADER + fixed;
    let mut message = vec![0_u8; length];
    // Of all families: the fixed part is zero.
    message[0..4].copy_from_slice(&(length as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&request.to_ne_bytes());
    message[6..8].copy_from_slice(&(NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
    rustix::net::send(&socket, &message, SendFlags::empty()).map_err(failed)?;
    // The kernel never sends more at once.
    let mut buffer = vec![0_u8; 64 << 10];
    loop {
        let (received, _) =
            rustix::net::recv(&socket, &mut buffer[..], RecvFlags::empty()).map_err(failed)?;
        let mut rest = &buffer[..received];
        if rest.is_empty() {
            return Ok(());
        }
        while let Some((kind, body, after)) = message_of(rest) {
            match kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let code = number(body).map_or(0, |code| (code as i32).saturating_neg());
                    let error = std::io::Error::from_raw_os_error(code);
                    return Err(Error::io(
                        "the kernel does not tell the host's routes and devices",
                        error,
                    ));
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
        gateway: None,
        device: None,
    };
    for (kind, value) in attributes(rest) {
        match kind {
            RTA_DST => route.destination = Subnet::containing(address(value)?, prefix),
            RTA_GATEWAY => route.gateway = address(value),
            RTA_OIF => route.device = number(value),
            _ => {}
        }
    }
    Some(route)
}

fn device(body: &[u8]) -> Option<(String, Device)> {
    let (fixed, rest) = body.split_at_checked(DEVICE)?;
    let mut name = None;
    let mut device = Device {
        index: number(&fixed[4..])?,
        bridge: None,
        is_isolated: false,
    };
    for (kind, value) in attributes(rest) {
        match kind {
            IFLA_IFNAME => {
                let text = value.split(|byte| *byte == 0).next()?;
                name = Some(String::from_utf8_lossy(text).into_owned());
            }
            IFLA_MASTER => device.bridge = number(value),
            IFLA_LINKINFO => {
                device.is_isolated = attributes(value)
                    .filter(|(kind, _)| *kind == IFLA_INFO_SLAVE_DATA)
                    .flat_map(|(_, value)| attributes(value))
                    .any(|(kind, value)| kind == IFLA_BRPORT_ISOLATED && value == [1]);
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
        let own = Subnet::containing([127, 0, 0, 1].into(), 32);
        let routes = routes().unwrap();
        assert!(
            routes
                .iter()
                .any(|route| route.is_local && route.destination == own),
            "{routes:?}"
        );
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

//! Routes and devices of this host: in every routing table, of both families, as `/proc/net/route` does not.

use std::io;
use std::net::IpAddr;

use netlink_packet_route::link::{
    InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoPortData, LinkAttribute, LinkFlags,
    LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use see_core::{Error, Result};

use super::{Question, ask};
use crate::network::subnet::Subnet;

/// The kernel's number for a device that there is not.
const ENODEV: i32 = 19;

/// A route of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) struct Route {
    /// Where it leads; `None` for a default route.
    pub(in crate::network) destination: Option<Subnet>,
    /// Whether the destination is this host.
    pub(in crate::network) is_local: bool,
    /// The next hosts on the way.
    pub(in crate::network) gateways: Vec<IpAddr>,
    /// The number of the device.
    pub(in crate::network) device: Option<u32>,
}

/// A network device of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::network) struct Device {
    pub(in crate::network) name: String,
    /// Its number.
    pub(in crate::network) index: u32,
    /// Whether it is switched on.
    pub(in crate::network) is_up: bool,
    /// Its hardware address, in lower case with colons.
    pub(in crate::network) mac: Option<String>,
    /// The number of the bridge that it is a port of.
    pub(in crate::network) bridge: Option<u32>,
    /// Whether it is a port that exchanges nothing with other isolated ports.
    pub(in crate::network) is_isolated: bool,
    /// Of a bridge: its `group_fwd_mask`, which frames of link protocols it treats as all others, a bit each.
    pub(in crate::network) group_forward: Option<u16>,
}

/// Every route of every table, of IPv4 and IPv6.
///
/// # Errors
/// Where the kernel gives no answer.
pub(in crate::network) async fn routes() -> Result<Vec<Route>> {
    let mut found = Vec::new();
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        let answer = dump(RouteNetlinkMessage::GetRoute(request)).await;
        let answer =
            answer.map_err(|error| Error::io("the host's routes cannot be read", error))?;
        found.extend(answer.into_iter().filter_map(|message| match message {
            RouteNetlinkMessage::NewRoute(message) => route(message),
            _ => None,
        }));
    }
    Ok(found)
}

/// Every network device.
///
/// # Errors
/// Where the kernel gives no answer.
pub(in crate::network) async fn devices() -> Result<Vec<Device>> {
    let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let answer = dump(request).await.map_err(unreadable)?;
    Ok(answer.into_iter().filter_map(device_of).collect())
}

/// The network device of this name, where there is one.
///
/// # Errors
/// Where the kernel gives no answer.
pub(in crate::network) async fn device(name: &str) -> Result<Option<Device>> {
    let mut request = LinkMessage::default();
    request.attributes = vec![LinkAttribute::IfName(name.to_owned())];
    let request = RouteNetlinkMessage::GetLink(request);
    match ask(NETLINK_ROUTE, &request, Question::One).await {
        Ok(answer) => Ok(answer.into_iter().find_map(device_of)),
        Err(error) if error.raw_os_error() == Some(ENODEV) => Ok(None),
        Err(error) => Err(unreadable(error).subject(name)),
    }
}

/// Sets a bridge's `group_fwd_mask`: which frames of link protocols it treats as all others.
///
/// # Errors
/// Where the kernel refuses it, or has no such bridge any more.
pub(in crate::network) async fn set_group_forward(bridge: &Device, mask: u16) -> Result<()> {
    let mut request = LinkMessage::default();
    request.header.index = bridge.index;
    request.attributes = vec![LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Bridge),
        LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::GroupFwdMask(mask)])),
    ])];
    let request = RouteNetlinkMessage::NewLink(request);
    let answer = ask(NETLINK_ROUTE, &request, Question::One).await;
    answer.map(drop).map_err(|error| {
        let what = format!("the kernel does not set group_fwd_mask to {mask:#x}");
        Error::io(what, error).subject(&bridge.name)
    })
}

async fn dump(request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
    ask(NETLINK_ROUTE, &request, Question::Dump).await
}

fn unreadable(error: io::Error) -> Error {
    Error::io("the host's network devices cannot be read", error)
}

fn route(message: RouteMessage) -> Option<Route> {
    // A remembered path of IPv6 is no route of its own.
    if message.header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut route = Route {
        destination: None,
        is_local: message.header.kind == RouteType::Local,
        gateways: Vec::new(),
        device: None,
    };
    let prefix = message.header.destination_prefix_length;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(at) => {
                route.destination = Subnet::containing(address(at)?, prefix);
            }
            RouteAttribute::MultiPath(hops) => {
                let hops = hops.iter().flat_map(|hop| &hop.attributes);
                route.gateways.extend(hops.filter_map(gateway));
            }
            RouteAttribute::Oif(index) => route.device = Some(*index),
            other => route.gateways.extend(gateway(other)),
        }
    }
    Some(route)
}

/// A gateway, which may be of another family than the route.
fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(at) => address(at),
        RouteAttribute::Via(RouteVia::Inet(at)) => Some((*at).into()),
        RouteAttribute::Via(RouteVia::Inet6(at)) => Some((*at).into()),
        _ => None,
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn device_of(message: RouteNetlinkMessage) -> Option<Device> {
    let RouteNetlinkMessage::NewLink(message) = message else {
        return None;
    };
    let mut device = Device {
        name: String::new(),
        index: message.header.index,
        is_up: message.header.flags.contains(LinkFlags::Up),
        mac: None,
        bridge: None,
        is_isolated: false,
        group_forward: None,
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name = name,
            LinkAttribute::Address(bytes) => {
                let bytes = bytes.iter().map(|byte| format!("{byte:02x}"));
                device.mac = Some(bytes.collect::<Vec<_>>().join(":"));
            }
            LinkAttribute::Controller(index) => device.bridge = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                device.is_isolated = infos.iter().any(is_isolated);
                device.group_forward = infos.iter().find_map(group_forward);
            }
            _ => {}
        }
    }
    (!device.name.is_empty()).then_some(device)
}

fn is_isolated(info: &LinkInfo) -> bool {
    match info {
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => {
            port.contains(&InfoBridgePort::Isolated(true))
        }
        _ => false,
    }
}

fn group_forward(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Bridge(bridge)) = info else {
        return None;
    };
    bridge.iter().find_map(|attribute| match attribute {
        InfoBridge::GroupFwdMask(mask) => Some(*mask),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::RouteNextHop;

    use super::*;

    #[tokio::test]
    async fn the_loopback_is_seen_in_the_table_of_local_routes() {
        let device = device("lo").await.unwrap().unwrap();
        assert_eq!((device.index, device.is_up), (1, true));
        assert_eq!(device.mac.as_deref(), Some("00:00:00:00:00:00"));
        assert!(devices().await.unwrap().contains(&device));
        let own = Subnet::containing([127, 0, 0, 1].into(), 32);
        let routes = routes().await.unwrap();
        assert!(
            routes
                .iter()
                .any(|route| route.is_local && route.destination == own),
            "{routes:?}"
        );
    }

    #[tokio::test]
    async fn a_device_that_there_is_not_is_told_from_a_failure() {
        assert_eq!(device("see-none").await.unwrap(), None);
        assert!(device(&"long".repeat(10)).await.is_err());
    }

    #[test]
    fn gateways_are_read_from_several_next_hops_and_from_those_of_the_other_family() {
        let v4 = IpAddr::from([10, 0, 0, 1]);
        let v6 = "fe80::7".parse().unwrap();
        let first = RouteAttribute::Gateway(v4.into());
        let via = RouteAttribute::Via(RouteVia::Inet6(v6));
        let hop = |attributes: Vec<RouteAttribute>| {
            let mut hop = RouteNextHop::default();
            hop.attributes = attributes;
            hop
        };
        let hops = vec![
            hop(vec![first.clone()]),
            hop(vec![]),
            hop(vec![via.clone()]),
        ];
        let gateways = |attribute: RouteAttribute| {
            let mut message = RouteMessage::default();
            message.attributes = vec![attribute];
            route(message).unwrap().gateways
        };
        assert_eq!(gateways(RouteAttribute::MultiPath(hops)), [v4, v6.into()]);
        assert_eq!(gateways(via), [IpAddr::from(v6)]);
        assert_eq!(gateways(first), [v4]);
    }

    #[test]
    fn a_remembered_path_is_no_route() {
        let mut message = RouteMessage::default();
        message.header.flags = RouteFlags::Cloned;
        assert_eq!(route(message), None);
    }
}

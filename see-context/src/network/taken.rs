//! The subnets that are in use: by libvirt's networks and by the host's routes.

use see_core::Result;
use see_libvirt::Connection;
use see_libvirt::xml::NetworkXml;

use super::netlink::route;
use super::subnet::Subnet;
use crate::error::libvirt;

/// Routes with shorter prefixes say where the world is, and no network of this host: VPNs write a default
/// route as two halves.
const SHORTEST: u8 = 2;

/// A subnet in use, and who uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) subnet: Subnet,
    pub(super) by: String,
}

/// The network whose own subnets are no obstacle to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Own<'a> {
    pub(super) network: &'a str,
    pub(super) bridge: &'a str,
}

/// Every subnet of a libvirt network, running or only defined, and, where the daemon shares this host's
/// devices, of a route in any of its tables.
pub(super) async fn look(
    connection: &Connection,
    local: bool,
    own: Option<Own<'_>>,
) -> Result<Vec<Taken>> {
    let mut taken = Vec::new();
    if local {
        let bridge = match own {
            Some(own) => route::device(own.bridge).await?.map(|own| own.index),
            None => None,
        };
        for route in route::routes().await? {
            if let Some(subnet) = route.destination
                && subnet.prefix() >= SHORTEST
                && (bridge.is_none() || route.device != bridge)
            {
                let by = "a route of this host".to_owned();
                taken.push(Taken { subnet, by });
            }
        }
    }
    for network in connection.networks().await.map_err(libvirt)? {
        if own.is_some_and(|own| own.network == network.name()) {
            continue;
        }
        let text = match network.xml().await {
            Ok(text) => text,
            // It went away while it was looked at.
            Err(error) if error.is_no_network() => continue,
            Err(error) => return Err(libvirt(error)),
        };
        match NetworkXml::parse(&text) {
            Ok(xml) => taken.extend(xml.subnets().into_iter().filter_map(|(address, prefix)| {
                Some(Taken {
                    subnet: Subnet::containing(address, prefix)?,
                    by: format!("the network {}", network.name().escape_debug()),
                })
            })),
            Err(error) => tracing::warn!(network = network.name(), %error, "its XML is not read"),
        }
    }
    Ok(taken)
}

//! The subnets that are in use: by libvirt's networks and by the host's routes.

use std::fs;
use std::net::Ipv4Addr;

use see_core::{Error, Result};
use see_libvirt::Connection;
use see_libvirt::xml::NetworkXml;

use super::subnet::Subnet;
use crate::error::libvirt;

/// Every subnet of a libvirt network, running or only defined, and of a route of this host.
pub(super) async fn subnets(connection: &Connection) -> Result<Vec<Subnet>> {
    let mut taken = routes(
        &fs::read_to_string("/proc/net/route")
            .map_err(|error| Error::io("the host's routes cannot be read", error))?,
    );
    for network in connection.networks().await.map_err(libvirt)? {
        let text = match network.xml().await {
            Ok(text) => text,
            // It went away while it was looked at.
            Err(error) if error.is_no_network() => continue,
            Err(error) => return Err(libvirt(error)),
        };
        match NetworkXml::parse(&text) {
            Ok(xml) => taken.extend(
                xml.subnets()
                    .into_iter()
                    .filter_map(|(address, prefix)| Subnet::containing(address, prefix)),
            ),
            Err(error) => tracing::warn!(network = network.name(), %error, "its XML is not read"),
        }
    }
    Ok(taken)
}

/// The destinations in the kernel's routing table, without the default route.
fn routes(table: &str) -> Vec<Subnet> {
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let destination = number(fields.nth(1)?)?;
            let mask = number(fields.nth(5)?)?;
            let prefix = u8::try_from(u32::from(mask).leading_ones()).ok()?;
            (prefix > 0)
                .then(|| Subnet::containing(destination, prefix))
                .flatten()
        })
        .collect()
}

/// The kernel prints addresses as numbers of the host's byte order.
fn number(text: &str) -> Option<Ipv4Addr> {
    let number = u32::from_str_radix(text, 16).ok()?;
    Some(Ipv4Addr::from(number.to_ne_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn the_kernels_routes_are_read_without_the_default_one() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
            eth0\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
            virbr0\t007AA8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\nbroken line\n";
        let found: Vec<String> = routes(table).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.0/24", "192.168.122.0/24"]);
    }
}

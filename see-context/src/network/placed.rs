//! A closed network, and a guest's place on it: what a network of its own and the shared one have in common.

use see_libvirt::xml::NetworkXml;

use super::lease::Lender;
use super::rules::{GuestPort, Seat};

/// A guest's place on a network whose firewall rules are loaded.
#[derive(Debug)]
pub(super) struct Placed {
    /// Its network, and who lends it its address.
    pub(super) lender: Lender,
    pub(super) seat: Seat,
    pub(super) port: GuestPort,
    pub(super) bridge: String,
}

/// The XML of a closed network, before its addresses: DHCP for known hardware addresses, and nothing else.
///
/// libvirt's own rules add nothing to the walls, and depend on chains that others may flush. With the forward mode
/// `open` it loads none, but has the host forward from then on ([`networkEnableIPForwarding`]). So that is asked for
/// where the host forwards anyway, lest a closed network makes a router of it.
///
/// [`networkEnableIPForwarding`]: https://gitlab.com/libvirt/libvirt/-/blob/v9.0.0/src/network/bridge_driver.c
pub(super) fn closed_network() -> NetworkXml {
    let forwards = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
    let mut xml = match forwards.is_ok_and(|forwards| forwards.trim() == "1") {
        true => NetworkXml::open(),
        false => NetworkXml::isolated(),
    };
    xml.set_no_dns();
    // A client is known by its hardware address, which the wall checks, never by an identifier that it makes up: so it
    // can neither take nor give up the lease of another. And no router is told of, whatever the forward mode.
    xml.set_dnsmasq_options(&["dhcp-ignore-clid", "dhcp-option=3"]);
    xml
}

//! Network XML: built, or the user's with what SEE fills in.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::error::XmlError;
use super::label;
use super::tree::{Document, Element};

/// The namespace of options for the DHCP server.
const DNSMASQ: &str = "http://libvirt.org/schemas/network/dnsmasq/1.0";

/// The addresses of a network with DHCP, of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpNetwork {
    /// The host's own address in it.
    pub gateway: IpAddr,
    /// The length of the network's prefix, in bits.
    pub prefix: u8,
    /// What is given to guests.
    pub lent: Lent,
}

/// Which addresses a network's DHCP server gives, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lent {
    /// To everybody an address between these two, both included.
    Range(IpAddr, IpAddr),
    /// To these hardware addresses one address each, for this long; to others nothing.
    Hosts(Vec<(String, IpAddr)>, Duration),
}

/// A network's XML: what was read, with the edits that were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkXml {
    document: Document,
}

impl NetworkXml {
    /// A network without addresses, cut off from everything but the host: a start for building.
    pub fn isolated() -> Self {
        Self {
            document: Document::of(Element::new("network")),
        }
    }

    /// A network without addresses whose guests reach the world behind the host's address.
    pub fn nat() -> Self {
        let forward = Element::new("forward").with("mode", "nat");
        Self {
            document: Document::of(Element::new("network").with_child(forward)),
        }
    }

    /// A network without addresses, for whose traffic libvirt loads no rules: a start for building. libvirt has the
    /// host forward packets where such a network has addresses.
    pub fn open() -> Self {
        let forward = Element::new("forward").with("mode", "open");
        Self {
            document: Document::of(Element::new("network").with_child(forward)),
        }
    }

    /// Reads a network's XML.
    ///
    /// # Errors
    /// When it is not XML, or the root is not `<network>`.
    pub fn parse(text: &str) -> Result<Self, XmlError> {
        Self::new(Document::parse(text)?)
    }

    /// Reads a network's XML from a file's bytes.
    ///
    /// # Errors
    /// As for [`Self::parse`], and when it is not UTF-8.
    pub fn parse_bytes(bytes: &[u8]) -> Result<Self, XmlError> {
        Self::new(Document::parse_bytes(bytes)?)
    }

    fn new(document: Document) -> Result<Self, XmlError> {
        let root = document.root();
        if root.name() != "network" {
            return Err(XmlError::Root {
                position: root.position(),
                found: root.name().to_owned(),
                expected: "network",
            });
        }
        Ok(Self { document })
    }

    /// The tree beneath.
    pub fn root(&self) -> &Element {
        self.document.root()
    }

    /// The tree beneath, to edit.
    pub fn root_mut(&mut self) -> &mut Element {
        self.document.root_mut()
    }

    /// The name, where there is one.
    pub fn name(&self) -> Option<String> {
        self.root().child("name").map(Element::text)
    }

    /// The host's bridge, where it is named.
    pub fn bridge(&self) -> Option<String> {
        let bridge = self.root().attribute_of("bridge", "name");
        bridge.map(str::to_owned)
    }

    /// The hardware address of the bridge, where it is said.
    pub fn mac(&self) -> Option<String> {
        let mac = self.root().attribute_of("mac", "address");
        mac.map(str::to_owned)
    }

    /// The environment that it is labelled with, where it is.
    pub fn label(&self) -> Option<String> {
        label::label_in(self.root())
    }

    /// The subnets in it, each as address and prefix length. What is not readable as one is
    /// passed over: libvirt will refuse it or has read it otherwise.
    pub fn subnets(&self) -> Vec<(IpAddr, u8)> {
        self.root()
            .children()
            .filter(|child| child.name() == "ip" || child.name() == "route")
            .filter_map(|child| {
                let address: IpAddr = child.attribute("address")?.parse().ok()?;
                let (bits, unsaid) = match address {
                    IpAddr::V4(address) => (32, class_prefix(address)),
                    IpAddr::V6(_) => (128, 64),
                };
                let prefix = match (child.attribute("prefix"), child.attribute("netmask")) {
                    (Some(prefix), _) => prefix.parse().ok()?,
                    (None, Some(netmask)) => ones(netmask.parse().ok()?),
                    (None, None) => unsaid,
                };
                (prefix <= bits).then_some((address, prefix))
            })
            .collect()
    }

    /// The address that the DHCP server keeps for each hardware address.
    pub fn dhcp_hosts(&self) -> Vec<(String, IpAddr)> {
        self.root()
            .children()
            .filter(|child| child.name() == "ip")
            .filter_map(|ip| ip.child("dhcp"))
            .flat_map(Element::children)
            .filter(|child| child.name() == "host")
            .filter_map(|host| {
                let mac = host.attribute("mac")?.to_owned();
                Some((mac, host.attribute("ip")?.parse().ok()?))
            })
            .collect()
    }

    /// Whether the XML says addresses of its own.
    pub fn has_addresses(&self) -> bool {
        self.root().child("ip").is_some()
    }

    /// Sets name and UUID.
    pub fn set_identity(&mut self, name: &str, uuid: &str) {
        self.set_first("uuid", uuid);
        self.set_name(name);
    }

    /// Sets the name.
    pub fn set_name(&mut self, name: &str) {
        self.set_first("name", name);
    }

    /// Sets a text element of the network, before all others where it is missing.
    fn set_first(&mut self, element: &'static str, text: &str) {
        let root = self.root_mut();
        match root.child_mut(element) {
            Some(existing) => existing.set_text(text),
            None => root.prepend(Element::new(element).with_text(text)),
        }
    }

    /// Labels the network as belonging to an environment.
    pub fn set_label(&mut self, environment: &str) {
        label::set_label(self.root_mut(), environment);
    }

    /// Names the bridge, without the spanning tree: with it a new port waits four seconds
    /// before it forwards.
    pub fn set_bridge(&mut self, name: &str) {
        let bridge = self.root_mut().child_or_insert("bridge");
        bridge.set_attribute("name", name);
        bridge.set_attribute("stp", "off");
        bridge.set_attribute("delay", "0");
    }

    /// Sets the hardware address of the bridge.
    pub fn set_mac(&mut self, mac: &str) {
        self.root_mut()
            .child_or_insert("mac")
            .set_attribute("address", mac);
    }

    /// Switches the network's name server off; only DHCP is left.
    pub fn set_no_dns(&mut self) {
        self.root_mut()
            .child_or_insert("dns")
            .set_attribute("enable", "no");
    }

    /// Gives the network's DHCP server these options, in its own words, as `dhcp-option=3`. Of libvirt 5.6.
    pub fn set_dnsmasq_options(&mut self, options: &[&str]) {
        let options = options
            .iter()
            .map(|option| Element::new("dnsmasq:option").with("value", option));
        let root = self.root_mut();
        root.set_attribute("xmlns:dnsmasq", DNSMASQ);
        root.append(options.fold(Element::new("dnsmasq:options"), Element::with_child));
    }

    /// Gives the network addresses, with DHCP.
    ///
    /// # Errors
    /// [`XmlError::Conflict`] when the XML has addresses already.
    pub fn set_addresses(&mut self, addresses: &[DhcpNetwork]) -> Result<(), XmlError> {
        if let Some(existing) = self.root().child("ip") {
            return Err(XmlError::Conflict {
                position: existing.position(),
                problem: "the network has an <ip> of its own, and dynamic addresses are asked for"
                    .to_owned(),
            });
        }
        for network in addresses {
            self.root_mut().append(ip_element(network));
        }
        Ok(())
    }
}

fn ip_element(network: &DhcpNetwork) -> Element {
    let mut dhcp = Element::new("dhcp");
    match &network.lent {
        Lent::Range(first, last) => {
            dhcp.append(
                Element::new("range")
                    .with("start", first.to_string())
                    .with("end", last.to_string()),
            );
        }
        Lent::Hosts(hosts, time) => {
            let expiry = time.as_secs().to_string();
            for (mac, address) in hosts {
                let lease = Element::new("lease")
                    .with("expiry", &expiry)
                    .with("unit", "seconds");
                dhcp.append(
                    Element::new("host")
                        .with("mac", mac)
                        .with("ip", address.to_string())
                        .with_child(lease),
                );
            }
        }
    }
    let mut ip = Element::new("ip");
    if network.gateway.is_ipv6() {
        ip.set_attribute("family", "ipv6");
    }
    ip.with("address", network.gateway.to_string())
        .with("prefix", network.prefix.to_string())
        .with_child(dhcp)
}

/// The length of a netmask's prefix.
fn ones(mask: IpAddr) -> u8 {
    // At most 128.
    match mask {
        IpAddr::V4(mask) => u32::from(mask).leading_ones() as u8,
        IpAddr::V6(mask) => u128::from(mask).leading_ones() as u8,
    }
}

/// What libvirt takes where neither prefix nor netmask is said.
fn class_prefix(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..=127 => 8,
        128..=191 => 16,
        _ => 24,
    }
}

impl fmt::Display for NetworkXml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.document.fmt(f)
    }
}

//! Network XML: built, or the user's with what SEE fills in.

use std::fmt;
use std::net::Ipv4Addr;

use super::error::XmlError;
use super::label;
use super::tree::{Document, Element};

/// The addresses of a network with DHCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DhcpNetwork {
    /// The host's own address in it.
    pub gateway: Ipv4Addr,
    /// The length of the network's prefix, in bits.
    pub prefix: u8,
    /// The first address that is given to a guest.
    pub first: Ipv4Addr,
    /// The last address that is given to a guest.
    pub last: Ipv4Addr,
}

/// A network's XML: unchanged but for the edits that were made.
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
        self.root()
            .child("bridge")?
            .attribute("name")
            .map(|name| name.into_owned())
    }

    /// How packets leave the network; `None` is an isolated one.
    pub fn forward_mode(&self) -> Option<String> {
        let forward = self.root().child("forward")?;
        Some(
            forward
                .attribute("mode")
                .map_or_else(|| "nat".to_owned(), |mode| mode.into_owned()),
        )
    }

    /// The environment that it is labelled with, where it is.
    pub fn label(&self) -> Option<String> {
        label::label_in(self.root())
    }

    /// The IPv4 subnets in it, each as address and prefix length. What is not readable as one
    /// is passed over: libvirt will refuse it or has read it otherwise.
    pub fn subnets(&self) -> Vec<(Ipv4Addr, u8)> {
        self.root()
            .children()
            .filter(|child| child.name() == "ip" || child.name() == "route")
            .filter_map(|child| {
                let address: Ipv4Addr = child.attribute("address")?.parse().ok()?;
                let prefix = match (child.attribute("prefix"), child.attribute("netmask")) {
                    (Some(prefix), _) => prefix.parse().ok().filter(|prefix| *prefix <= 32)?,
                    (None, Some(netmask)) => {
                        let mask: Ipv4Addr = netmask.parse().ok()?;
                        u8::try_from(u32::from(mask).leading_ones()).ok()?
                    }
                    (None, None) => class_prefix(address),
                };
                Some((address, prefix))
            })
            .collect()
    }

    /// Whether the XML says addresses of its own.
    pub fn has_addresses(&self) -> bool {
        self.root().child("ip").is_some()
    }

    /// Sets name and UUID.
    pub fn set_identity(&mut self, name: &str, uuid: &str) {
        for (element, text) in [("uuid", uuid), ("name", name)] {
            let root = self.root_mut();
            match root.child_mut(element) {
                Some(existing) => existing.set_text(text),
                None => root.prepend(Element::new(element).with_text(text)),
            }
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

    /// Gives the network addresses, with DHCP.
    ///
    /// # Errors
    /// [`XmlError::Conflict`] when the XML has addresses already.
    pub fn set_addresses(&mut self, addresses: &DhcpNetwork) -> Result<(), XmlError> {
        if let Some(existing) = self.root().child("ip") {
            return Err(XmlError::Conflict {
                position: existing.position(),
                problem: "the network has an <ip> of its own, and dynamic addresses are asked for"
                    .to_owned(),
            });
        }
        let range = Element::new("range")
            .with("start", addresses.first.to_string())
            .with("end", addresses.last.to_string());
        self.root_mut().append(
            Element::new("ip")
                .with("address", addresses.gateway.to_string())
                .with("prefix", addresses.prefix.to_string())
                .with_child(Element::new("dhcp").with_child(range)),
        );
        Ok(())
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

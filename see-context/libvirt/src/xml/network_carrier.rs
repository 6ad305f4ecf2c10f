//! What a network's guests are connected to: a bridge that libvirt makes, or something that the host has.

use super::error::{Position, XmlError};
use super::network::NetworkXml;
use super::tree::Element;

/// What the guests of a network are connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// A bridge that libvirt makes for the network, with the addresses in its XML.
    OwnBridge,
    /// What is on the host already: libvirt makes nothing, and gives no addresses.
    Host {
        /// The bridge or devices that the XML names, each with its place there.
        devices: Vec<(String, Position)>,
        /// Whether the bridge is one of Open vSwitch.
        is_open_vswitch: bool,
    },
}

/// What libvirt takes in networks with a bridge of their own alone.
const OF_OWN_BRIDGES: [&str; 5] = ["bandwidth", "dns", "domain", "ip", "mac"];

impl NetworkXml {
    /// What its guests are connected to.
    ///
    /// # Errors
    /// [`XmlError::Conflict`] for a network that cannot be used for a machine that is thrown away, or that libvirt
    /// takes in no mode.
    pub fn carrier(&self) -> Result<Carrier, XmlError> {
        let Some(forward) = self.root().child("forward") else {
            return Ok(Carrier::OwnBridge);
        };
        let conflict = |element: &Element, problem: String| XmlError::Conflict {
            position: element.position(),
            problem,
        };
        let mode = forward.attribute("mode").unwrap_or("nat");
        match mode {
            "nat" | "route" | "open" => return Ok(Carrier::OwnBridge),
            "bridge" | "private" | "vepa" | "passthrough" => {}
            "hostdev" => {
                let problem = "the forward mode 'hostdev' gives the guest a device of the host, which nothing brings \
                     back to its state afterwards: use the mode 'bridge' or 'open'";
                return Err(conflict(forward, problem.to_owned()));
            }
            other => {
                let problem = format!(
                    "there is no forward mode '{other}': libvirt knows nat, route, open, bridge, private, vepa, \
                     passthrough and hostdev"
                );
                return Err(conflict(forward, problem));
            }
        }
        let unused = self.root().children();
        if let Some(unused) = unused
            .into_iter()
            .find(|it| OF_OWN_BRIDGES.contains(&it.name()))
        {
            let problem = format!(
                "a network with the forward mode '{mode}' has no <{}>: its addresses are those of the host's network, \
                 so leave the element out",
                unused.name()
            );
            return Err(conflict(unused, problem));
        }
        let bridge = self.root().child("bridge");
        let interfaces = forward.children().filter(|it| it.name() == "interface");
        let named: Vec<(&Element, &str)> = bridge
            .map(|bridge| (bridge, "name"))
            .into_iter()
            .chain([(forward, "dev")])
            .chain(interfaces.map(|interface| (interface, "dev")))
            .collect();
        // libvirt names the first of the interfaces in the element above, too.
        let mut devices: Vec<(String, Position)> = Vec::new();
        for (element, attribute) in named {
            if let Some(name) = element.attribute(attribute)
                && devices.iter().all(|(known, _)| *known != name)
            {
                devices.push((name.to_owned(), element.position()));
            }
        }
        let by_address = forward
            .children()
            .any(|it| it.name() == "pf" || it.name() == "address");
        if devices.is_empty() && !by_address {
            let problem = format!(
                "the forward mode '{mode}' needs a bridge or a device of the host: add <bridge name='…'/> beside it, \
                 or <interface dev='…'/> in it"
            );
            return Err(conflict(forward, problem));
        }
        Ok(Carrier::Host {
            devices,
            is_open_vswitch: self.root().attribute_of("virtualport", "type") == Some("openvswitch"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carrier(inner: &str) -> Result<Carrier, String> {
        let xml = NetworkXml::parse(&format!("<network>\n<name>n</name>{inner}</network>"));
        xml.unwrap().carrier().map_err(|error| error.to_string())
    }

    fn host(inner: &str) -> (Vec<String>, bool) {
        match carrier(inner).unwrap() {
            Carrier::Host {
                devices,
                is_open_vswitch,
            } => {
                let names = devices.into_iter().map(|(name, _)| name);
                (names.collect(), is_open_vswitch)
            }
            Carrier::OwnBridge => panic!("{inner}"),
        }
    }

    #[test]
    fn libvirt_makes_the_bridge_of_a_network_that_routes_or_is_closed() {
        for inner in [
            "",
            "<forward/>",
            "<forward mode='nat'/>",
            "<forward mode='route' dev='eth0'/>",
            "<forward mode='open'/><ip address='10.0.0.1' prefix='24'/>",
        ] {
            assert_eq!(carrier(inner).unwrap(), Carrier::OwnBridge, "{inner}");
        }
    }

    #[test]
    fn a_bridge_or_device_of_the_hosts_is_named() {
        let bridge = "<forward mode='bridge'/><bridge name='br0'/>";
        assert_eq!(host(bridge), (vec!["br0".to_owned()], false));
        let switch = format!("{bridge}<virtualport type='openvswitch'/>");
        assert_eq!(host(&switch), (vec!["br0".to_owned()], true));
        let pool = "<forward mode='private' dev='eth0'><interface dev='eth0'/><interface dev='eth1'/></forward>";
        assert_eq!(
            host(pool),
            (vec!["eth0".to_owned(), "eth1".to_owned()], false)
        );
        assert_eq!(
            host("<forward mode='vepa'><pf dev='eth0'/></forward>"),
            (vec![], false)
        );
    }

    #[test]
    fn what_libvirt_would_refuse_is_refused_at_its_place_with_what_to_do() {
        for (inner, part) in [
            (
                "<forward mode='hostdev'><pf dev='eth0'/></forward>",
                "use the mode 'bridge'",
            ),
            ("<forward mode='bridged'/>", "libvirt knows nat"),
            ("<forward mode='bridge'/>", "add <bridge name='…'/>"),
            (
                "<forward mode='bridge'/><bridge name='br0'/><ip address='10.0.0.1' prefix='24'/>",
                "leave the element out",
            ),
            (
                "<forward mode='bridge'/><bridge name='br0'/><mac address='52:54:00:00:00:01'/>",
                "has no <mac>",
            ),
        ] {
            let error = carrier(inner).unwrap_err();
            assert!(error.contains(part), "{inner}: {error}");
            assert!(error.contains("(line 2, column "), "{inner}: {error}");
        }
    }
}

//! The `network` section.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use see_core::config::{ConfigPath, Located, OneOrMany, Place};
use see_core::{AgentSettings, AgentTransport, Error, ErrorKind, Result};
use see_libvirt::xml::{DomainXml, NetworkXml};
use serde::Deserialize;

use super::subnet::{FreeSubnets, Subnet};
use super::walled::{self, Walled};
use crate::admission::Promise;
use crate::error::xml;
use crate::hypervisor::{Hypervisor, driver_of};

/// The `network` section: a mode, or python-see's keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkConfiguration {
    /// What the guest is connected to.
    mode: Option<Located<Mode>>,
    /// A libvirt network XML.
    configuration: Option<ConfigPath>,
    /// A free random subnet; a list of two for one of each family.
    dynamic_address: Option<Located<OneOrMany<DynamicAddress>>>,
    /// Whether the guest has to prove its isolation before a sample runs in it. Of the modes
    /// `isolated` and `shared`, `true` there.
    verify: Option<Located<bool>>,
    /// What `user` asks to be said.
    #[serde(rename = "i_know")]
    known: Option<Located<String>>,
}

/// What a guest is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// Nothing: interfaces in the domain's XML are taken out.
    None,
    /// The host alone.
    Isolated,
    /// Other guests too.
    Shared,
    /// The world, behind the host's address.
    Nat,
    /// The world and the host's loopback, by QEMU itself.
    User,
}

/// Where a free subnet is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DynamicAddress {
    /// An address of the network to search.
    ipv4: Option<Ipv4Addr>,
    /// The same, for a subnet of IPv6.
    ipv6: Option<Ipv6Addr>,
    /// The length of that network's prefix, in bits.
    prefix: u8,
    /// The length of the subnet's prefix, in bits.
    pub(crate) subnet_prefix: u8,
}

/// What is to be done about a network, checked.
#[derive(Debug, Clone)]
pub(crate) enum NetworkPlan {
    /// As the domain's XML says.
    AsWritten,
    /// No interface.
    None,
    /// A network of the sandbox's own.
    Own(Box<Own>),
    /// A place behind walls of ours.
    Walled(Walled),
}

/// A network of the sandbox's own.
#[derive(Debug, Clone)]
pub(crate) struct Own {
    /// Its XML, before name, bridge and addresses.
    pub(super) xml: NetworkXml,
    /// Where its addresses come from; empty where they are in the XML.
    pub(super) addresses: Vec<DynamicAddress>,
    /// Whether the daemon is on this host.
    pub(super) local: bool,
}

impl NetworkPlan {
    /// What the guest may reach.
    pub(crate) fn promise(&self) -> Promise {
        match self {
            Self::None | Self::Walled(_) => Promise::Closed,
            Self::AsWritten | Self::Own(_) => Promise::Open,
        }
    }

    /// Takes out the interfaces beside the one that the plan connects: the network that was asked for is the only
    /// one.
    pub(crate) fn unplug(&self, domain: &mut DomainXml) {
        let removed = match self {
            Self::AsWritten => 0,
            Self::None => domain.remove_interfaces(),
            Self::Own(_) | Self::Walled(_) => domain.keep_one_interface(),
        };
        if removed > 0 {
            tracing::warn!(
                "{removed} <interface> are taken out of the domain: `network` in the run file says what \
                 the guest is connected to"
            );
        }
    }
}

impl DynamicAddress {
    /// Where the modes that name no network look: private, large, and rarely used otherwise.
    pub(super) const fn usual(subnet_prefix: u8) -> Self {
        Self {
            ipv4: Some(Ipv4Addr::new(10, 0, 0, 0)),
            ipv6: None,
            prefix: 8,
            subnet_prefix,
        }
    }

    /// The network to search.
    pub(crate) fn within(&self) -> Result<Subnet> {
        let wrong = |message: String| Error::new(ErrorKind::Configuration, message);
        let address = match (self.ipv4, self.ipv6) {
            (Some(address), None) => IpAddr::V4(address),
            (None, Some(address)) => IpAddr::V6(address),
            _ => {
                return Err(wrong("`dynamic_address` needs `ipv4` or `ipv6`".to_owned())
                    .advice("give a list of two for one of each family"));
            }
        };
        Subnet::containing(address, self.prefix).ok_or_else(|| {
            let (family, bits) = match address {
                IpAddr::V4(_) => ("IPv4", 32),
                IpAddr::V6(_) => ("IPv6", 128),
            };
            wrong(format!(
                "found the prefix {}, an {family} prefix has 0 to {bits} bits",
                self.prefix
            ))
        })
    }

    fn check(&self) -> Result<()> {
        let within = self.within()?;
        let (shortest, longest) = match self.ipv4 {
            Some(_) => (self.prefix, 30),
            // DHCP of IPv6 lends from no larger subnet.
            None => (self.prefix.max(64), 126),
        };
        if self.subnet_prefix < shortest
            || FreeSubnets::new(within, self.subnet_prefix, &[]).is_none()
        {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "found the subnet_prefix {}, it must lie between {shortest} and {longest}",
                    self.subnet_prefix
                ),
            ));
        }
        Ok(())
    }
}

impl NetworkConfiguration {
    /// Checks the section, for machines that run there and whose agent is reached so.
    pub(crate) fn plan(
        self,
        hypervisor: &Hypervisor,
        agent: &AgentSettings,
        section: &Place,
    ) -> Result<NetworkPlan> {
        self.check_modes_keys()?;
        if let Some(mode) = &self.mode {
            let other = self
                .configuration
                .as_ref()
                .map(ConfigPath::place)
                .or_else(|| self.dynamic_address.as_ref().map(Located::place));
            if let Some(other) = other {
                return Err(wrong(other, "found a network of your own beside `mode`")
                    .advice("keep one of the two"));
            }
            let verified = self.verify.as_ref().is_none_or(|verify| **verify);
            return plan_mode(mode, hypervisor, agent, verified);
        }
        if self.configuration.is_none() && self.dynamic_address.is_none() {
            return Err(wrong(section, "the section says no network").advice(
                "give `mode`, `configuration` or `dynamic_address`, or leave `network` out",
            ));
        }
        has_networks(hypervisor, section)?;
        let addresses: Vec<DynamicAddress> = match &self.dynamic_address {
            None => Vec::new(),
            Some(addresses) => addresses.iter().copied().collect(),
        };
        if let Some(place) = self.dynamic_address.as_ref().map(Located::place) {
            for addresses in &addresses {
                addresses.check().map_err(|error| error.at(place.clone()))?;
            }
            let sixes = addresses.iter().filter(|one| one.ipv6.is_some()).count();
            if sixes > 1 || addresses.len() - sixes > 1 || addresses.is_empty() {
                return Err(wrong(
                    place,
                    "`dynamic_address` takes one subnet of each family",
                ));
            }
        }
        let xml = match &self.configuration {
            None => NetworkXml::nat(),
            Some(path) => read(path)?,
        };
        match (&self.configuration, &self.dynamic_address) {
            (Some(_), Some(addresses)) if xml.has_addresses() => Err(wrong(
                addresses.place(),
                "the network XML has an <ip> of its own",
            )
            .advice("keep one of the two")),
            _ => Ok(NetworkPlan::Own(Box::new(Own {
                xml,
                addresses,
                local: !hypervisor.is_remote(),
            }))),
        }
    }

    /// Refuses keys that belong to other modes.
    fn check_modes_keys(&self) -> Result<()> {
        let mode = self.mode.as_ref().map(|mode| **mode);
        if let Some(known) = &self.known
            && mode != Some(Mode::User)
        {
            return Err(wrong(known.place(), "`i_know` belongs to the mode `user`"));
        }
        if let Some(verify) = &self.verify
            && !matches!(mode, Some(Mode::Isolated | Mode::Shared))
        {
            return Err(wrong(
                verify.place(),
                "`verify` belongs to the modes `isolated` and `shared`",
            ));
        }
        Ok(())
    }
}

fn wrong(place: &Place, message: &'static str) -> Error {
    Error::configuration(place.clone(), message)
}

fn plan_mode(
    mode: &Located<Mode>,
    hypervisor: &Hypervisor,
    agent: &AgentSettings,
    verified: bool,
) -> Result<NetworkPlan> {
    let place = mode.place();
    match **mode {
        Mode::None => Ok(NetworkPlan::None),
        Mode::User => Err(wrong(place, "the mode `user` is not there in this version")
            .advice("there are `none`, `isolated`, `shared` and `nat`")),
        Mode::Nat => {
            has_networks(hypervisor, place)?;
            Ok(NetworkPlan::Own(Box::new(Own {
                xml: NetworkXml::nat(),
                addresses: vec![DynamicAddress::usual(24)],
                local: !hypervisor.is_remote(),
            })))
        }
        Mode::Isolated | Mode::Shared => {
            has_networks(hypervisor, place)?;
            if hypervisor.is_remote() {
                return Err(wrong(
                    place,
                    "this mode needs firewall rules on the hypervisor's host, which is another",
                )
                .advice("run SEE on that host, or use the mode `none` or `nat`"));
            }
            walled::check_rights().map_err(|error| error.at(place.clone()))?;
            Ok(NetworkPlan::Walled(Walled {
                shared: **mode == Mode::Shared,
                verified,
                agent: (agent.transport == AgentTransport::Tcp).then_some(agent.port),
            }))
        }
    }
}

/// Only a daemon has networks, and only the system's may make devices.
fn has_networks(hypervisor: &Hypervisor, place: &Place) -> Result<()> {
    let advice = "set `hypervisor` to `qemu:///system` for one";
    match hypervisor {
        Hypervisor::Embedded => Err(wrong(
            place,
            "the embedded hypervisor has no networks: it knows the mode `none` only",
        )
        .advice(advice)),
        // VirtualBox has no other daemon, and says itself what it cannot do.
        Hypervisor::Uri(uri) if uri.contains(":///session") && driver_of(uri) != "vbox" => {
            Err(wrong(
                place,
                "a user's own daemon has no networks: it knows the mode `none` only",
            )
            .advice(advice))
        }
        Hypervisor::Uri(_) => Ok(()),
    }
}

fn read(path: &ConfigPath) -> Result<NetworkXml> {
    let bytes = crate::host::read_xml(path, "a libvirt network XML")?;
    NetworkXml::parse_bytes(&bytes).map_err(|error| xml(error, path.path(), path.place()))
}

#[cfg(test)]
mod tests {
    use see_core::config::Configuration;

    use super::*;

    fn plan(json: &str, uri: Option<&str>) -> Result<NetworkPlan, String> {
        let tree = Configuration::from_str("run.json", json).unwrap();
        let place = tree.place();
        let hypervisor = match uri {
            None => Hypervisor::Embedded,
            Some(uri) => Hypervisor::Uri(uri.to_owned()),
        };
        tree.deserialize::<NetworkConfiguration>()
            .and_then(|section| section.plan(&hypervisor, &AgentSettings::default(), &place))
            .map_err(|error| error.to_string())
    }

    const SYSTEM: Option<&str> = Some("qemu:///system");

    fn own(json: &str) -> Own {
        match plan(json, SYSTEM) {
            Ok(NetworkPlan::Own(own)) => *own,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn python_sees_dynamic_address_makes_a_nat_network() {
        let json =
            r#"{"dynamic_address": {"ipv4": "192.168.0.0", "prefix": 16, "subnet_prefix": 24}}"#;
        let own = own(json);
        assert_eq!(own.xml.forward_mode().as_deref(), Some("nat"));
        let within = own.addresses[0].within().unwrap();
        assert_eq!(within.to_string(), "192.168.0.0/16");
    }

    #[test]
    fn a_subnet_of_each_family_is_looked_for() {
        let own = own(r#"{"dynamic_address": [
                {"ipv4": "10.0.0.0", "prefix": 8, "subnet_prefix": 24},
                {"ipv6": "fd00::", "prefix": 8, "subnet_prefix": 64}]}"#);
        let within = own.addresses[1].within().unwrap();
        assert_eq!(within.to_string(), "fd00::/8");
    }

    #[test]
    fn what_contradicts_itself_or_is_missing_is_told_with_its_place() {
        for (json, uri, part) in [
            ("{}", SYSTEM, "the section says no network"),
            (
                r#"{"mode": "nat"}"#,
                None,
                "embedded hypervisor has no networks",
            ),
            (
                r#"{"mode": "shared"}"#,
                None,
                "embedded hypervisor has no networks",
            ),
            (
                r#"{"mode": "isolated"}"#,
                Some("qemu:///session"),
                "a user's own daemon has no networks",
            ),
            (
                r#"{"mode": "isolated"}"#,
                Some("qemu+tcp://lab/system"),
                "which is another",
            ),
            (
                r#"{"mode": "nat", "verify": true}"#,
                SYSTEM,
                "`verify` belongs to",
            ),
            (
                r#"{"dynamic_address": {"prefix": 8, "subnet_prefix": 24}}"#,
                SYSTEM,
                "needs `ipv4` or `ipv6`",
            ),
            (
                r#"{"dynamic_address": [{"ipv4": "10.0.0.0", "prefix": 8, "subnet_prefix": 24}, {"ipv4": "10.0.0.0", "prefix": 8, "subnet_prefix": 24}]}"#,
                SYSTEM,
                "one subnet of each family",
            ),
            (
                r#"{"dynamic_address": {"ipv6": "fd00::", "prefix": 8, "subnet_prefix": 127}}"#,
                SYSTEM,
                "between 64 and 126",
            ),
            (
                r#"{"mode": "user", "i_know": "x"}"#,
                None,
                "`user` is not there",
            ),
            (
                r#"{"mode": "none", "i_know": "x"}"#,
                None,
                "belongs to the mode `user`",
            ),
            (
                r#"{"mode": "nat", "dynamic_address": {"ipv4": "10.0.0.0", "prefix": 8, "subnet_prefix": 24}}"#,
                SYSTEM,
                "keep one of the two",
            ),
            (
                r#"{"dynamic_address": {"ipv4": "10.0.0.0", "prefix": 24, "subnet_prefix": 16}}"#,
                SYSTEM,
                "must lie between 24 and 30",
            ),
            (
                r#"{"dynamic_address": {"ipv4": "10.0.0.0", "prefix": 33, "subnet_prefix": 24}}"#,
                SYSTEM,
                "0 to 32 bits",
            ),
            (r#"{"mode": "natt"}"#, SYSTEM, "natt"),
            (r#"{"mod": "nat"}"#, SYSTEM, "mod"),
        ] {
            let error = plan(json, uri).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
            assert!(error.starts_with("run.json:1:"), "{json}: {error}");
        }
    }
}

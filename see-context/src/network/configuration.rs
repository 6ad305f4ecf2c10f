//! The `network` section.

use std::net::Ipv4Addr;

use see_core::config::{ConfigPath, Located};
use see_core::{Error, ErrorKind, Result};
use see_libvirt::xml::NetworkXml;
use serde::Deserialize;

use super::subnet::{FreeSubnets, Subnet};
use crate::error::xml;

/// The `network` section: a mode, or python-see's keys.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkConfiguration {
    /// What the guest is connected to.
    mode: Option<Located<Mode>>,
    /// A libvirt network XML.
    configuration: Option<ConfigPath>,
    /// A free random subnet.
    dynamic_address: Option<Located<DynamicAddress>>,
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
    pub(crate) ipv4: Ipv4Addr,
    /// The length of that network's prefix, in bits.
    pub(crate) prefix: u8,
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
    Own {
        /// Its XML, before name, bridge and addresses.
        xml: NetworkXml,
        /// Where its addresses come from, unless they are in the XML.
        addresses: Option<DynamicAddress>,
    },
}

impl DynamicAddress {
    /// Where the modes that name no network look: private, large, and rarely used otherwise.
    const USUAL: Self = Self {
        ipv4: Ipv4Addr::new(10, 0, 0, 0),
        prefix: 8,
        subnet_prefix: 24,
    };

    /// The network to search.
    pub(crate) fn within(&self) -> Result<Subnet> {
        Subnet::containing(self.ipv4, self.prefix).ok_or_else(|| {
            Error::new(
                ErrorKind::Configuration,
                format!(
                    "found the prefix {}, an IPv4 prefix has 0 to 32 bits",
                    self.prefix
                ),
            )
        })
    }

    fn check(&self) -> Result<()> {
        let within = self.within()?;
        if FreeSubnets::new(within, self.subnet_prefix, &[]).is_none() {
            return Err(Error::new(
                ErrorKind::Configuration,
                format!(
                    "found the subnet_prefix {}, it must lie between the prefix {} and 30",
                    self.subnet_prefix, self.prefix
                ),
            ));
        }
        Ok(())
    }
}

impl NetworkConfiguration {
    /// Checks the section. `daemon` says whether there is one, since only it has networks.
    pub(crate) fn plan(
        self,
        daemon: bool,
        section: &see_core::config::Place,
    ) -> Result<NetworkPlan> {
        let wrong = |place: &see_core::config::Place, message: String| {
            Error::configuration(place.clone(), message)
        };
        if let Some(mode) = &self.mode {
            let other = self
                .configuration
                .as_ref()
                .map(ConfigPath::place)
                .or_else(|| self.dynamic_address.as_ref().map(Located::place));
            if let Some(other) = other {
                return Err(wrong(
                    other,
                    "found a network of your own beside `mode`".to_owned(),
                )
                .advice("keep one of the two"));
            }
            if let Some(known) = &self.known
                && **mode != Mode::User
            {
                return Err(wrong(
                    known.place(),
                    "`i_know` belongs to the mode `user`".to_owned(),
                ));
            }
            return Self::mode(**mode, mode.place(), daemon);
        }
        if let Some(known) = &self.known {
            return Err(wrong(
                known.place(),
                "`i_know` belongs to the mode `user`".to_owned(),
            ));
        }
        if self.configuration.is_none() && self.dynamic_address.is_none() {
            return Err(
                wrong(section, "the section says no network".to_owned()).advice(
                    "give `mode`, `configuration` or `dynamic_address`, or leave `network` out",
                ),
            );
        }
        if !daemon {
            return Err(no_networks(section));
        }
        if let Some(addresses) = &self.dynamic_address {
            addresses
                .check()
                .map_err(|error| error.at(addresses.place().clone()))?;
        }
        let xml = match &self.configuration {
            None => NetworkXml::nat(),
            Some(path) => read(path)?,
        };
        match (&self.configuration, &self.dynamic_address) {
            (Some(_), Some(addresses)) if xml.has_addresses() => Err(wrong(
                addresses.place(),
                "the network XML has an <ip> of its own".to_owned(),
            )
            .advice("keep one of the two")),
            (_, addresses) => Ok(NetworkPlan::Own {
                xml,
                addresses: addresses.as_ref().map(|addresses| **addresses),
            }),
        }
    }

    /// Refuses the modes whose walls stand on the host of the guest, where it is another: what is
    /// not walled in must not be called isolated.
    pub(crate) fn check_remote(&self) -> Result<()> {
        let Some(mode) = &self.mode else {
            return Ok(());
        };
        let name = match **mode {
            Mode::Isolated => "isolated",
            Mode::Shared => "shared",
            Mode::None | Mode::Nat | Mode::User => return Ok(()),
        };
        Err(Error::configuration(
            mode.place().clone(),
            format!(
                "the mode `{name}` needs firewall rules on the hypervisor's host, which is another"
            ),
        )
        .advice("use `none`, or run SEE on that host"))
    }

    fn mode(mode: Mode, place: &see_core::config::Place, daemon: bool) -> Result<NetworkPlan> {
        match mode {
            Mode::None => Ok(NetworkPlan::None),
            Mode::Isolated | Mode::Nat if !daemon => Err(no_networks(place)),
            Mode::Isolated => Ok(NetworkPlan::Own {
                xml: NetworkXml::isolated(),
                addresses: Some(DynamicAddress::USUAL),
            }),
            Mode::Nat => Ok(NetworkPlan::Own {
                xml: NetworkXml::nat(),
                addresses: Some(DynamicAddress::USUAL),
            }),
            Mode::Shared | Mode::User => Err(Error::configuration(
                place.clone(),
                format!(
                    "the mode `{}` is not there in this version",
                    if mode == Mode::Shared {
                        "shared"
                    } else {
                        "user"
                    }
                ),
            )
            .advice("there are `none`, `isolated` and `nat`")),
        }
    }
}

fn no_networks(place: &see_core::config::Place) -> Error {
    Error::configuration(
        place.clone(),
        "the embedded hypervisor has no networks: it knows the mode `none` only",
    )
    .advice("set `hypervisor` to `qemu:///system` for one")
}

fn read(path: &ConfigPath) -> Result<NetworkXml> {
    let bytes = crate::host::read_xml(path, "a libvirt network XML")?;
    NetworkXml::parse_bytes(&bytes).map_err(|error| xml(error, path.path(), path.place()))
}

#[cfg(test)]
mod tests {
    use see_core::config::Configuration;

    use super::*;

    fn plan(json: &str, daemon: bool) -> Result<NetworkPlan, String> {
        let tree = Configuration::from_str("run.json", json).unwrap();
        let place = tree.place();
        tree.deserialize::<NetworkConfiguration>()
            .and_then(|section| section.plan(daemon, &place))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn python_sees_dynamic_address_makes_a_nat_network() {
        let json =
            r#"{"dynamic_address": {"ipv4": "192.168.0.0", "prefix": 16, "subnet_prefix": 24}}"#;
        match plan(json, true) {
            Ok(NetworkPlan::Own {
                xml,
                addresses: Some(addresses),
            }) => {
                assert_eq!(xml.forward_mode().as_deref(), Some("nat"));
                assert_eq!(addresses.within().unwrap().to_string(), "192.168.0.0/16");
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_contradicts_itself_or_is_missing_is_told_with_its_place() {
        for (json, daemon, part) in [
            ("{}", true, "the section says no network"),
            (
                r#"{"mode": "nat"}"#,
                false,
                "embedded hypervisor has no networks",
            ),
            (r#"{"mode": "shared"}"#, true, "`shared` is not there"),
            (
                r#"{"mode": "user", "i_know": "x"}"#,
                false,
                "`user` is not there",
            ),
            (
                r#"{"mode": "none", "i_know": "x"}"#,
                false,
                "belongs to the mode `user`",
            ),
            (
                r#"{"mode": "nat", "dynamic_address": {"ipv4": "10.0.0.0", "prefix": 8, "subnet_prefix": 24}}"#,
                true,
                "keep one of the two",
            ),
            (
                r#"{"dynamic_address": {"ipv4": "10.0.0.0", "prefix": 24, "subnet_prefix": 16}}"#,
                true,
                "must lie between the prefix 24 and 30",
            ),
            (
                r#"{"dynamic_address": {"ipv4": "10.0.0.0", "prefix": 33, "subnet_prefix": 24}}"#,
                true,
                "0 to 32 bits",
            ),
            (r#"{"mode": "natt"}"#, true, "natt"),
            (r#"{"mod": "nat"}"#, true, "mod"),
        ] {
            let error = plan(json, daemon).unwrap_err();
            assert!(error.contains(part), "{json}: {error}");
            assert!(error.starts_with("run.json:1:"), "{json}: {error}");
        }
    }
}

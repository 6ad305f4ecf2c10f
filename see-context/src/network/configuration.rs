//! The `network` section.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use see_core::config::{ConfigPath, Located, OneOrMany, Place};
use see_core::{AgentSettings, AgentTransport, Error, ErrorKind, Result};
use see_libvirt::xml::{Carrier, DomainXml, NetworkXml, XmlError};
use serde::Deserialize;

use super::shared;
use super::space::{Search, address_space};
use super::subnet::{FreeSubnets, Subnet};
use super::walled::{self, Walled};
use crate::admission::Promise;
use crate::driver::{Driver, is_session};
use crate::error::xml;
use crate::hypervisor::Hypervisor;

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
    /// Prefixes of IPv4 in which the modes `isolated`, `shared` and `nat` look for a free subnet.
    /// The private ranges.
    address_space: Option<Located<OneOrMany<Located<String>>>>,
    /// Whether the guest has to prove its isolation before a sample runs in it. Of the modes
    /// `isolated` and `shared`, `true` there.
    verify: Option<Located<bool>>,
    /// What `user` asks to be said.
    #[serde(rename = "i_know")]
    known: Option<Located<String>>,
}

/// The length of the prefix of a network in the mode `nat`.
const NAT_PREFIX: u8 = 24;

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
    pub(super) search: Vec<Search>,
    /// Whether libvirt makes its bridge; otherwise it is one of the host's, or devices are.
    pub(super) has_own_bridge: bool,
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
    /// The network to search.
    fn within(&self) -> Result<Subnet> {
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

    /// What is looked for, checked.
    fn search(&self) -> Result<Search> {
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
        let key = "dynamic_address";
        Ok(Search::within(vec![within], self.subnet_prefix, key))
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
            return self.plan_mode(mode, hypervisor, agent);
        }
        if self.configuration.is_none() && self.dynamic_address.is_none() {
            return Err(wrong(section, "the section says no network").advice(
                "give `mode`, `configuration` or `dynamic_address`, or leave `network` out",
            ));
        }
        has_networks(hypervisor, section)?;
        let mut search = Vec::new();
        if let Some(addresses) = &self.dynamic_address {
            let place = addresses.place();
            for one in addresses.iter() {
                search.push(one.search().map_err(|error| error.at(place.clone()))?);
            }
            let sixes = addresses.iter().filter(|one| one.ipv6.is_some()).count();
            if sixes > 1 || search.len() - sixes > 1 || search.is_empty() {
                return Err(wrong(
                    place,
                    "`dynamic_address` takes one subnet of each family",
                ));
            }
        }
        let local = !hypervisor.is_remote();
        let (xml, has_own_bridge) = match &self.configuration {
            None => (NetworkXml::nat(), true),
            Some(path) => read(path, local)?,
        };
        if let (Some(_), Some(addresses)) = (&self.configuration, &self.dynamic_address) {
            let other = match (has_own_bridge, xml.has_addresses()) {
                (true, false) => None,
                (true, true) => Some("the network XML has an <ip> of its own"),
                (false, _) => {
                    Some("the network XML is one of the host's, which gives the addresses")
                }
            };
            if let Some(other) = other {
                return Err(wrong(addresses.place(), other).advice("keep one of the two"));
            }
        }
        Ok(NetworkPlan::Own(Box::new(Own {
            xml,
            search,
            has_own_bridge,
            local,
        })))
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
        if let Some(space) = &self.address_space
            && !matches!(mode, Some(Mode::Isolated | Mode::Shared | Mode::Nat))
        {
            return Err(wrong(
                space.place(),
                "`address_space` belongs to the modes `isolated`, `shared` and `nat`",
            )
            .advice("`dynamic_address` says itself where it looks"));
        }
        Ok(())
    }

    fn plan_mode(
        &self,
        mode: &Located<Mode>,
        hypervisor: &Hypervisor,
        agent: &AgentSettings,
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
                    search: vec![self.search(NAT_PREFIX)?],
                    has_own_bridge: true,
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
                let shared = **mode == Mode::Shared;
                let prefix = if shared {
                    shared::PREFIX
                } else {
                    walled::OWN_PREFIX
                };
                let search = self.search(prefix)?;
                walled::check_rights().map_err(|error| error.at(place.clone()))?;
                Ok(NetworkPlan::Walled(Walled {
                    shared,
                    verified: self.verify.as_ref().is_none_or(|verify| **verify),
                    agent: (agent.transport == AgentTransport::Tcp).then_some(agent.port),
                    search,
                }))
            }
        }
    }

    /// Where a mode looks for a subnet with this length of a prefix.
    fn search(&self, prefix: u8) -> Result<Search> {
        match &self.address_space {
            Some(written) => address_space(written, prefix),
            None => Ok(Search::private(prefix)),
        }
    }
}

fn wrong(place: &Place, message: &'static str) -> Error {
    Error::configuration(place.clone(), message)
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
        Hypervisor::Uri(uri) if !Driver::of(uri).has_networks => Err(wrong(
            place,
            "no network can be made for a sandbox on this hypervisor",
        )
        .advice(
            "set `network` to {\"mode\": \"none\"}, or write the interface into the domain's XML",
        )),
        Hypervisor::Uri(uri) if is_session(uri) => Err(wrong(
            place,
            "a user's own daemon has no networks: it knows the mode `none` only",
        )
        .advice(advice)),
        Hypervisor::Uri(_) => Ok(()),
    }
}

/// A user's network, and whether libvirt makes its bridge. `local` is whether the daemon is on this host, where it can
/// be seen whether there is what the network names.
fn read(path: &ConfigPath, local: bool) -> Result<(NetworkXml, bool)> {
    let bytes = crate::host::read_xml(path, "a libvirt network XML")?;
    let wrong = |error| xml(error, path.path(), path.place());
    let network = NetworkXml::parse_bytes(&bytes).map_err(wrong)?;
    let (devices, is_open_vswitch) = match network.carrier().map_err(wrong)? {
        Carrier::OwnBridge => return Ok((network, true)),
        Carrier::Host {
            devices,
            is_open_vswitch,
        } => (devices, is_open_vswitch),
    };
    if local && is_open_vswitch {
        crate::host::require_program("ovs-vsctl", "openvswitch-switch")
            .map_err(|error| error.at(path.place().clone()))?;
    }
    for (name, position) in devices.into_iter().filter(|_| local) {
        if !crate::host::has_device(&name) {
            let problem =
                format!("the network is to use {name:?}, and this host has no such device");
            let advice = "make it, or name another one: `ip -brief link` lists them";
            return Err(wrong(XmlError::Conflict { position, problem }).advice(advice));
        }
    }
    Ok((network, false))
}

#[cfg(test)]
mod tests;

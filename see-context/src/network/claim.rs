//! Starting a network in a subnet and on a bridge that nobody else has.
//!
//! Whoever may use the system daemon, a member of the group `libvirt`, makes networks without being root, so
//! there is no folder in which all users of this host could keep reservations safely: what one can write
//! another could forge, replace by a link, or lock for ever. libvirt cannot be the arbiter either: it looks
//! whether a subnet is free before it starts a network, and two that start at the same moment both find it so.
//!
//! So nothing is reserved. A subnet is picked at random among those that are free, the network is started, and
//! then everything is looked at again: of two that overlap, whoever looks last sees the other and gives way.
//! Seeing each other, both may; they pick anew. That holds between processes, users and other programs, and
//! nobody can forge or block it. Lest many that start at once give way to each other until one gives up, they
//! take turns: an abstract socket of a fixed name, which belongs to the network namespace as subnets do, dies
//! with its owner, and has no file. The turn is mere politeness: who holds it for ever costs each
//! allocation [`POLITE`], and nothing else.
//!
//! The name of a bridge is settled by the kernel, which makes it or refuses; the next name is tried then.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

use async_trait::async_trait;
use see_core::{Error, ErrorKind, Result, StopToken};
use see_libvirt::xml::{DhcpNetwork, Lent, NetworkXml};
use see_libvirt::{Connection, Network};
use tokio::time::Instant;

use super::collector::{Removal, after_failed_network, remove};
use super::firewall;
use super::netlink::route;
use super::space::Search;
use super::subnet::{self, Subnet};
use super::taken::{self, Own, Taken};
use crate::error::libvirt;

/// How often others may be quicker.
const ATTEMPTS: u32 = 16;
/// The longest wait for the others' turns.
const POLITE: Duration = Duration::from_secs(5);
/// How often the turn is asked for.
const ASK: Duration = Duration::from_millis(10);
/// The name of the turn.
const TURN: &[u8] = b"see/networks";

/// A network that is wanted.
pub(super) struct Draft<'a> {
    /// Its name.
    pub(super) name: &'a str,
    /// Its UUID; libvirt chooses one where it is left out.
    pub(super) uuid: Option<&'a str>,
    /// Its label.
    pub(super) label: &'a str,
    /// Its XML, before name, bridge and addresses.
    pub(super) xml: &'a NetworkXml,
    /// Names for its bridge, the best first.
    pub(super) bridges: Vec<String>,
    /// Where subnets are looked for; empty where the XML says them.
    pub(super) search: &'a [Search],
    /// What its DHCP server gives to whom.
    pub(super) lend: &'a (dyn Fn(Subnet) -> Result<Lent> + Send + Sync),
    /// Whether the daemon shares this host's devices and routes.
    pub(super) local: bool,
    /// Where the bridge is written down.
    pub(super) notes: &'a dyn Notes,
}

/// Where it is written down which bridge a network is about to get, so that it is known again when its daemon dies
/// while it makes it.
#[async_trait]
pub(super) trait Notes: Send + Sync {
    /// Writes it down; an earlier one of this network does not exist any more.
    async fn write(&self, bridge: &Bridge) -> Result<()>;
}

/// A bridge of a network, as it can be told from others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bridge {
    pub(super) name: String,
    /// Its hardware address.
    pub(super) mac: String,
}

/// What is closed before a network starts.
#[async_trait]
pub(super) trait Shutter: Send + Sync {
    /// Closes this bridge, and nothing that was closed before for this network.
    async fn shut(&self, bridge: &str, subnet: Subnet) -> Result<()>;
}

/// A network that runs.
#[derive(Debug)]
pub(super) struct Claimed {
    pub(super) network: Network,
    pub(super) bridge: Bridge,
    /// In the order in which they were searched for.
    pub(super) subnets: Vec<Subnet>,
}

/// Starts a network. Where this fails, it does not run.
pub(super) async fn start(
    draft: &Draft<'_>,
    connection: &Connection,
    stop: &StopToken,
    shutter: Option<&dyn Shutter>,
) -> Result<Claimed> {
    let _turn = Turn::take(stop, POLITE).await?;
    let mut refused: Vec<String> = Vec::new();
    let mut attempt = 0;
    loop {
        stop.check("create the network")?;
        attempt += 1;
        let bridge = free_bridge(draft, &refused).await?;
        let taken = taken::look(connection, draft.local, None).await?;
        let (xml, subnets) = fill_in(draft, &bridge, &taken)?;
        draft.notes.write(&bridge).await?;
        if let (Some(shutter), Some(subnet)) = (shutter, subnets.first()) {
            shutter.shut(&bridge.name, *subnet).await?;
        }
        // A transient network is gone when it stops, also by the daemon's end.
        let network = match connection.create_network(&xml.to_string()).await {
            Ok(network) => network,
            Err(error) => {
                after_failed_network(connection, draft.name, &bridge.name).await;
                let clash = match told(&error.to_string(), &bridge) {
                    // In other words than we know: where somebody was quicker, that can be seen.
                    None => seen(draft, connection, &bridge, &subnets).await,
                    told => told,
                };
                let error = firewall::explain(libvirt(error)).during("create the network");
                match clash.filter(|_| attempt < ATTEMPTS) {
                    Some(Clash::Bridge) => refused.push(bridge.name),
                    Some(Clash::Subnet) => {}
                    None => return Err(error),
                }
                continue;
            }
        };
        let own = Own {
            network: draft.name,
            bridge: &bridge.name,
        };
        let found = match taken::look(connection, draft.local, Some(own)).await {
            Ok(now) => overlap(&subnets, &now),
            Err(error) => {
                give_way(&network).await?;
                return Err(error);
            }
        };
        let Some(found) = found else {
            return Ok(Claimed {
                network,
                bridge,
                subnets,
            });
        };
        give_way(&network).await?;
        if draft.search.is_empty() || attempt == ATTEMPTS {
            return Err(in_use(&found));
        }
    }
}

/// What somebody else has of a network that could not be made.
enum Clash {
    Bridge,
    Subnet,
}

/// Whether libvirt says that somebody was quicker. It may stand in a network of its own, whose devices only it sees.
fn told(error: &str, bridge: &Bridge) -> Option<Clash> {
    let is_clash = error.contains("already in use") || error.contains("File exists");
    is_clash.then(|| match error.contains(&bridge.name) {
        true => Clash::Bridge,
        false => Clash::Subnet,
    })
}

/// Looks whether somebody was quicker. What cannot be seen is no clash.
async fn seen(
    draft: &Draft<'_>,
    connection: &Connection,
    bridge: &Bridge,
    subnets: &[Subnet],
) -> Option<Clash> {
    let (name, mac) = (&bridge.name, &bridge.mac);
    if draft.local {
        match route::device(name).await.ok()? {
            // A piece of this very network stays written down: no other bridge is tried.
            Some(device) if device.mac.as_ref() == Some(mac) => return None,
            Some(_) => return Some(Clash::Bridge),
            None => {}
        }
    }
    for network in connection.networks().await.ok()? {
        let is_other = network.name() != draft.name;
        if is_other && network.bridge().await.is_ok_and(|other| other == *name) {
            return Some(Clash::Bridge);
        }
    }
    let own = Own {
        network: draft.name,
        bridge: name,
    };
    let now = taken::look(connection, draft.local, Some(own)).await.ok()?;
    overlap(subnets, &now).map(|_| Clash::Subnet)
}

/// Removes a network again.
///
/// # Errors
/// When nobody knows what became of it: its bridge stays written down then, and no other one is tried.
async fn give_way(network: &Network) -> Result<()> {
    let unsure = |error: Option<Error>| {
        let message = "a network that gives way to another may be left";
        let unsure = Error::new(ErrorKind::Unavailable, message).subject(network.name());
        match error {
            Some(error) => unsure.caused_by(error),
            None => unsure,
        }
    };
    match remove(network).await {
        Ok(Removal::Orderly) => Ok(()),
        Ok(Removal::Unknown) => Err(unsure(None)),
        Err(error) => Err(unsure(Some(error))),
    }
}

/// The XML on this bridge and, where subnets are looked for, in free ones; and its subnets.
fn fill_in(
    draft: &Draft<'_>,
    bridge: &Bridge,
    taken: &[Taken],
) -> Result<(NetworkXml, Vec<Subnet>)> {
    let mut xml = draft.xml.clone();
    match draft.uuid {
        Some(uuid) => xml.set_identity(draft.name, uuid),
        None => xml.set_name(draft.name),
    }
    xml.set_label(draft.label);
    xml.set_bridge(&bridge.name);
    xml.set_mac(&bridge.mac);
    if draft.search.is_empty() {
        let subnets: Vec<Subnet> = xml
            .subnets()
            .into_iter()
            .filter_map(|(address, prefix)| Subnet::containing(address, prefix))
            .collect();
        return match overlap(&subnets, taken) {
            Some(found) => Err(in_use(&found)),
            None => Ok((xml, subnets)),
        };
    }
    let mut taken = taken.to_vec();
    let mut subnets = Vec::new();
    let mut networks = Vec::new();
    for wanted in draft.search {
        let subnet = wanted.pick(&taken)?;
        taken.push(Taken {
            subnet,
            by: "this network".to_owned(),
        });
        subnets.push(subnet);
        networks.push(DhcpNetwork {
            gateway: host(subnet, 1)?,
            prefix: subnet.prefix(),
            lent: (draft.lend)(subnet)?,
        });
    }
    xml.set_addresses(&networks)
        .map_err(|error| Error::new(ErrorKind::Configuration, error.to_string()))?;
    Ok((xml, subnets))
}

fn overlap(subnets: &[Subnet], taken: &[Taken]) -> Option<Taken> {
    taken
        .iter()
        .find(|taken| subnets.iter().any(|ours| ours.overlaps(taken.subnet)))
        .cloned()
}

fn in_use(taken: &Taken) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "the network's addresses are in use: {} has {}",
            taken.by, taken.subnet
        ),
    )
}

/// A bridge whose name no device has and that was not refused.
async fn free_bridge(draft: &Draft<'_>, refused: &[String]) -> Result<Bridge> {
    for name in &draft.bridges {
        if refused.contains(name) || (draft.local && route::device(name).await?.is_some()) {
            continue;
        }
        return Ok(Bridge {
            name: name.clone(),
            mac: draft.xml.mac().unwrap_or_else(hardware_address),
        });
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!("the bridge {} exists already", draft.bridges.join(", ")),
    )
    .subject(draft.name))
}

/// The address `offset` behind a subnet's first.
pub(super) fn host(subnet: Subnet, offset: u32) -> Result<std::net::IpAddr> {
    subnet
        .host(offset)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "a subnet without hosts was picked"))
}

/// Device names of a prefix and `digits` hexadecimal digits of an identifier: the first ones, as python-see
/// had it, or others where a device has that name.
pub(super) fn device_names(prefix: &str, identifier: &str, digits: usize) -> Vec<String> {
    let all: String = identifier.chars().filter(char::is_ascii_hexdigit).collect();
    let last = all.len().saturating_sub(digits);
    (0..=last)
        .step_by(digits.max(1))
        .chain(1..=last)
        .filter_map(|start| Some(format!("{prefix}{}", all.get(start..start + digits)?)))
        .collect()
}

/// A hardware address of the kind that libvirt and QEMU give.
pub(super) fn hardware_address() -> String {
    let [.., a, b, c] = subnet::random().to_be_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

/// The turn of those who start networks on this host; see the module's head.
#[derive(Debug)]
struct Turn {
    /// Held, not used. Without one it is out of turn.
    _socket: Option<UnixListener>,
}

impl Turn {
    /// Waits for it, and does without after `patience`.
    async fn take(stop: &StopToken, patience: Duration) -> Result<Self> {
        let end = Instant::now() + patience;
        let Ok(address) = SocketAddr::from_abstract_name(TURN) else {
            return Ok(Self { _socket: None });
        };
        loop {
            match UnixListener::bind_addr(&address) {
                Ok(listener) => {
                    return Ok(Self {
                        _socket: Some(listener),
                    });
                }
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(error) => {
                    tracing::debug!(%error, "networks are started out of turn");
                    return Ok(Self { _socket: None });
                }
            }
            if Instant::now() >= end {
                tracing::debug!("others start networks for long: this one does not wait");
                return Ok(Self { _socket: None });
            }
            stop.or("wait for the turn", tokio::time::sleep(ASK))
                .await?;
        }
    }
}

#[cfg(test)]
mod tests;

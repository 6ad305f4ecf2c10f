//! The network of a sandbox: none, one of its own, or a seat on the shared one.
//!
//! | mode | the guest reaches | what is made | who may |
//! |---|---|---|---|
//! | `none` | nothing | nothing | everybody |
//! | `isolated` | DHCP, and answers the agent's host | a network, two nftables tables | root |
//! | `shared` | the same | an nftables table and a seat; the first one makes the network | root |
//! | `nat` | the world and the host | a network | whoever may use the daemon |
//! | `configuration`, `dynamic_address` | as the XML says, else as `nat` | a network | the same |
//!
//! What `isolated` and `shared` promise is kept by rules of our own, which libvirt's do not replace: a network of
//! libvirt's without forwarding still lets its guests reach every service of the host. Loading rules needs root,
//! so these modes refuse everybody else before anything is made.

mod claim;
mod closed;
mod configuration;
mod firewall;
mod isolation;
mod lease;
mod lock;
mod netlink;
mod nft;
mod rules;
mod shared;
mod space;
pub(crate) mod subnet;
mod taken;
mod wall;
mod walled;

use async_trait::async_trait;
use see_core::Result;
use see_core::ledger::{Details, Entry, Resource};
use see_libvirt::Network;
use see_libvirt::xml::{Lent, NetworkPort, NetworkXml};

use self::claim::{Bridge, Claimed, Draft, Notes, Shutter};
use self::space::Search;
use self::subnet::Subnet;
use crate::allocation::{Entries, Making, Part, Site, refused};
use crate::collect;
use crate::error::libvirt;

pub(crate) use self::configuration::{NetworkConfiguration, NetworkPlan};
pub(crate) use self::firewall::why_no_lease;
pub(crate) use self::lease::Lender;
pub(crate) use self::shared::Seats;
pub(crate) use self::wall::Walls;

/// The kind of the ledger's entries for a network.
pub(crate) const NETWORK: &str = "libvirt.network";

/// The network of a sandbox, as planned.
#[async_trait]
impl Part for NetworkPlan {
    fn intents(&self, site: &Site) -> Result<Vec<Resource>> {
        Ok(match self {
            Self::AsWritten | Self::None => Vec::new(),
            Self::Own(_) => vec![intent(site)],
            Self::Walled(walled) => walled.intents(site),
        })
    }

    async fn make(&self, mut entries: Entries, making: &mut Making<'_>) -> Result<()> {
        // Another machine of the same XML may be on the same network.
        let [first, second, third, ..] = *making.identifier.as_bytes();
        making.domain.set_hardware_addresses([first, second, third]);
        match self {
            Self::AsWritten => {}
            Self::None => {
                making.domain.remove_interfaces();
            }
            Self::Own(own) if !own.has_own_bridge => {
                let network = connect(&own.xml, entries.next()?, making).await?;
                making.domain.connect_network(&NetworkPort {
                    network: network.name().to_owned(),
                    ..NetworkPort::default()
                });
            }
            Self::Own(own) => {
                let wanted = Wanted {
                    xml: &own.xml,
                    search: &own.search,
                    lend: &range,
                    local: own.local,
                };
                let claimed = create(&wanted, None, entries.next()?, making).await?;
                making.abilities.has_dhcp_here = own.local;
                making.domain.connect_network(&NetworkPort {
                    network: claimed.network.name().to_owned(),
                    ..NetworkPort::default()
                });
            }
            Self::Walled(walled) => walled.make(entries, making).await?,
        }
        Ok(())
    }
}

/// A network of the sandbox's own, to be written down.
fn intent(site: &Site) -> Resource {
    let name = site.identifier.to_string();
    Resource::new(NETWORK, name, &site.hypervisor)
}

/// How a network went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    /// Its daemon took it down.
    Orderly,
    /// Its daemon knows none: it went before, or the daemon died while it made it or took it down, and left pieces.
    Unknown,
}

/// Ends a network and removes its definition; one that is gone is no error.
pub(crate) async fn remove(network: &Network) -> Result<Removal> {
    let removal = match network.destroy().await {
        Err(error) if error.is_no_network() => Removal::Unknown,
        Err(error) if error.is_invalid_state() => Removal::Orderly,
        other => other.map(|()| Removal::Orderly).map_err(libvirt)?,
    };
    match network.undefine().await {
        Err(error) if error.is_no_network() || error.is_invalid_state() => Ok(removal),
        other => other.map(|()| removal).map_err(libvirt),
    }
}

/// What a network of a sandbox's own is to be like.
struct Wanted<'a> {
    xml: &'a NetworkXml,
    search: &'a [Search],
    lend: &'a (dyn Fn(Subnet) -> Result<Lent> + Send + Sync),
    local: bool,
}

/// Makes a network of the sandbox's own and starts it.
async fn create(
    wanted: &Wanted<'_>,
    shutter: Option<&dyn Shutter>,
    entry: Entry,
    making: &mut Making<'_>,
) -> Result<Claimed> {
    let connection = making.connection()?.clone();
    let identifier = making.identifier.to_string();
    let draft = Draft {
        name: &identifier,
        uuid: Some(&identifier),
        label: &identifier,
        xml: wanted.xml,
        bridges: claim::device_names("virbr-", &identifier, 8),
        search: wanted.search,
        lend: wanted.lend,
        local: wanted.local,
        notes: &entry,
    };
    let claimed = match claim::start(&draft, &connection, making.stop, shutter).await {
        Ok(claimed) => claimed,
        Err(error) => return Err(refused(entry, error).await),
    };
    record(&claimed.network, identity(&claimed.bridge), &entry).await?;
    Ok(claimed)
}

/// Makes a network that is a name for something of the host's: nothing is made on the host.
async fn connect(xml: &NetworkXml, entry: Entry, making: &mut Making<'_>) -> Result<Network> {
    let connection = making.connection()?.clone();
    let identifier = making.identifier.to_string();
    let mut xml = xml.clone();
    xml.set_identity(&identifier, &identifier);
    xml.set_label(&identifier);
    let network = match connection.create_network(&xml.to_string()).await {
        Ok(network) => network,
        Err(error) => {
            let error = firewall::explain(libvirt(error)).during("create the network");
            return Err(refused(entry, error).await);
        }
    };
    record(&network, Details::new(), &entry).await?;
    Ok(network)
}

/// Writes down a network that runs.
async fn record(network: &Network, mut identity: Details, entry: &Entry) -> Result<()> {
    identity.insert("uuid".to_owned(), network.uuid().to_string().into());
    entry.created(identity).await
}

/// What tells a bridge from others.
fn identity(bridge: &Bridge) -> Details {
    let mut identity = Details::new();
    identity.insert(collect::BRIDGE.to_owned(), bridge.name.clone().into());
    identity.insert(collect::MAC.to_owned(), bridge.mac.clone().into());
    identity
}

#[async_trait]
impl Notes for Entry {
    async fn write(&self, bridge: &Bridge) -> Result<()> {
        self.created(identity(bridge)).await
    }
}

/// The most addresses in a range; libvirt takes fewer than 65 535, which one it does not say.
const LONGEST_RANGE: u32 = 65_000;

/// Everything behind the gateway, as far as libvirt lends it.
fn range(subnet: Subnet) -> Result<Lent> {
    let last = match subnet.host(2 + LONGEST_RANGE) {
        // One more than that, so the last host comes later still.
        Some(_) => claim::host(subnet, 1 + LONGEST_RANGE)?,
        None => subnet.last_host(),
    };
    Ok(Lent::Range(claim::host(subnet, 2)?, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dhcp_serves_everything_behind_the_gateway() {
        let subnet = Subnet::containing([10, 1, 2, 0].into(), 24).unwrap();
        let expected = Lent::Range([10, 1, 2, 2].into(), [10, 1, 2, 254].into());
        assert_eq!(range(subnet).unwrap(), expected);
        let large = Subnet::containing([10, 0, 0, 0].into(), 15).unwrap();
        let expected = Lent::Range([10, 0, 0, 2].into(), [10, 0, 253, 233].into());
        assert_eq!(range(large).unwrap(), expected);
    }
}

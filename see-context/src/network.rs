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
mod collector;
mod configuration;
mod firewall;
mod isolation;
mod lease;
mod lock;
mod netlink;
mod nft;
mod placed;
mod rules;
mod shared;
mod space;
mod subnet;
mod taken;
mod wall;
mod walled;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use see_core::ledger::{Details, Entry, Resource};
use see_core::{Isolation, Result};
use see_libvirt::xml::{DomainXml, Lent, NetworkPort, NetworkXml};
use see_libvirt::{Connection, Network};

use self::claim::{Bridge, Claimed, Draft, Notes, Shutter};
use self::space::Search;
use self::subnet::Subnet;
use crate::allocation::{Site, exactly, refused};
use crate::error::libvirt;
use crate::residue::bridge;

pub(crate) use self::collector::Networks;
pub(crate) use self::configuration::{NetworkConfiguration, NetworkPlan};
pub(crate) use self::firewall::why_no_lease;
use self::lease::Lender;
pub(crate) use self::shared::Seats;
pub(crate) use self::wall::Walls;

/// The kind of the ledger's entries for a network.
const NETWORK: &str = "libvirt.network";
/// The kind of the ledger's entries for an environment's tables.
const WALL: &str = "nftables.tables";

/// How a guest is connected, once what it is connected to is there.
#[derive(Default)]
pub(crate) struct Attachment {
    /// The port of the domain's interface; `None` where the interfaces stay as they are.
    port: Option<NetworkPort>,
    /// Who lends it its address, where that is not found out by its domain.
    pub(crate) lender: Option<Lender>,
    /// Whether its address comes from a DHCP server on this host.
    pub(crate) has_dhcp_here: bool,
    /// The firewall around its port.
    pub(crate) isolation: Option<Arc<dyn Isolation>>,
}

impl fmt::Debug for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attachment")
            .field("port", &self.port)
            .field("lender", &self.lender)
            .field("isolation", &self.isolation.is_some())
            .finish_non_exhaustive()
    }
}

impl Attachment {
    /// To a network of libvirt's.
    fn to(network: &Network) -> Self {
        Self {
            port: Some(NetworkPort {
                network: network.name().to_owned(),
                ..NetworkPort::default()
            }),
            ..Self::default()
        }
    }
}

impl NetworkPlan {
    /// What [`Self::make`] makes on the host.
    pub(crate) fn intents(&self, site: &Site<'_>) -> Vec<Resource> {
        match self {
            Self::AsWritten | Self::None => Vec::new(),
            Self::Own(_) => vec![intent(site)],
            Self::Walled(walled) => walled.intents(site),
        }
    }

    /// Makes what the guest of this domain is connected to.
    pub(crate) async fn make(
        &self,
        entries: Vec<Entry>,
        domain: &DomainXml,
        connection: &Connection,
        site: &Site<'_>,
    ) -> Result<Attachment> {
        match self {
            Self::AsWritten | Self::None => Ok(Attachment::default()),
            Self::Own(own) if !own.has_own_bridge => {
                let [entry] = exactly(entries)?;
                let network = connect(&own.xml, entry, connection).await?;
                Ok(Attachment::to(&network))
            }
            Self::Own(own) => {
                let [entry] = exactly(entries)?;
                let wanted = Wanted {
                    xml: &own.xml,
                    search: &own.search,
                    lend: &range,
                    local: own.local,
                };
                let claimed = create(&wanted, None, entry, (connection, site)).await?;
                Ok(Attachment {
                    has_dhcp_here: own.local,
                    ..Attachment::to(&claimed.network)
                })
            }
            Self::Walled(walled) => walled.make(entries, domain, connection, site).await,
        }
    }

    /// Connects the domain's interface.
    pub(crate) fn fill_in(&self, domain: &mut DomainXml, attachment: &Attachment) {
        if matches!(self, Self::None) {
            domain.remove_interfaces();
        }
        if let Some(port) = &attachment.port {
            domain.connect_network(port);
        }
    }
}

/// A network of the sandbox's own, to be written down.
fn intent(site: &Site<'_>) -> Resource {
    let name = site.identifier.to_string();
    Resource::new(NETWORK, name, &site.location)
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
    (connection, site): (&Connection, &Site<'_>),
) -> Result<Claimed> {
    let identifier = site.identifier.to_string();
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
    let claimed = match claim::start(&draft, connection, site.stop, shutter).await {
        Ok(claimed) => claimed,
        Err(error) => return Err(refused(entry, error).await),
    };
    record(&claimed.network, identity(&claimed.bridge), &entry).await?;
    Ok(claimed)
}

/// Makes a network that is a name for something of the host's: nothing is made on the host.
async fn connect(xml: &NetworkXml, entry: Entry, connection: &Connection) -> Result<Network> {
    let identifier = entry.identifier().to_string();
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
    identity.insert(bridge::BRIDGE.to_owned(), bridge.name.clone().into());
    identity.insert(bridge::MAC.to_owned(), bridge.mac.clone().into());
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

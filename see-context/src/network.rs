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
mod isolation;
mod lease;
mod netlink;
mod nft;
mod rules;
mod shared;
pub(crate) mod subnet;
mod taken;
mod wall;
mod walled;

use async_trait::async_trait;
use see_core::Result;
use see_core::ledger::{Details, Entry, Resource};
use see_libvirt::Network;
use see_libvirt::xml::{Lent, NetworkPort, NetworkXml};

use self::claim::{Claimed, Draft, Shutter};
use self::subnet::Subnet;
use crate::allocation::{Entries, Holding, Making, Part, Site, refused};
use crate::error::libvirt;

pub(crate) use self::configuration::{DynamicAddress, NetworkConfiguration, NetworkPlan};
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
        match self {
            Self::AsWritten => {}
            Self::None => {
                making.domain.remove_interfaces();
            }
            Self::Own(own) => {
                let wanted = Wanted {
                    xml: &own.xml,
                    search: &own.addresses,
                    lend: &range,
                    local: own.local,
                };
                let claimed = create(&wanted, None, entries.next()?, making).await?;
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

/// A network that was made for a sandbox.
#[derive(Debug)]
struct Made(Network);

#[async_trait]
impl Holding for Made {
    async fn remove(&mut self) -> Result<()> {
        remove(&self.0)
            .await
            .map_err(|error| error.subject(self.0.name()))
    }
}

/// Ends a network and removes its definition; one that is gone is no error.
pub(crate) async fn remove(network: &Network) -> Result<()> {
    match network.destroy().await {
        Err(error) if error.is_no_network() || error.is_invalid_state() => {}
        other => other.map_err(libvirt)?,
    }
    match network.undefine().await {
        Err(error) if error.is_no_network() || error.is_invalid_state() => Ok(()),
        other => other.map_err(libvirt),
    }
}

/// What a network of a sandbox's own is to be like.
struct Wanted<'a> {
    xml: &'a NetworkXml,
    search: &'a [DynamicAddress],
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
    };
    let claimed = match claim::start(&draft, &connection, making.stop, shutter).await {
        Ok(claimed) => claimed,
        Err(error) => return Err(refused(entry, error).await),
    };
    let mut identity = Details::new();
    let uuid = claimed.network.uuid().to_string();
    identity.insert("uuid".to_owned(), uuid.into());
    identity.insert("bridge".to_owned(), claimed.bridge.clone().into());
    let recorded = entry.created(identity).await;
    making.hold_as(entry, Made(claimed.network.clone()));
    recorded?;
    Ok(claimed)
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

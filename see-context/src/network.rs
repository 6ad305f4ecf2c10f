//! The network of a sandbox: none, or one of its own on the system daemon.

mod configuration;
pub(crate) mod subnet;
mod taken;

use async_trait::async_trait;
use see_core::ledger::{Details, Entry, Resource};
use see_core::{Error, ErrorKind, Result, StopToken};
use see_libvirt::xml::{DhcpNetwork, NetworkXml};
use see_libvirt::{Connection, Network};

use crate::allocation::{Entries, Holding, Making, Part, Site, refused};
use crate::error::libvirt;

pub(crate) use self::configuration::{DynamicAddress, NetworkConfiguration, NetworkPlan};
use self::subnet::FreeSubnets;

/// The kind of the ledger's entries for a network.
pub(crate) const NETWORK: &str = "libvirt.network";

/// How many subnets are tried when others take them at the same moment.
const ATTEMPTS: u64 = 8;

/// The network of a sandbox, as planned.
#[async_trait]
impl Part for NetworkPlan {
    fn intents(&self, site: &Site) -> Result<Vec<Resource>> {
        Ok(match self {
            Self::AsWritten | Self::None => Vec::new(),
            Self::Own { .. } => {
                let name = site.identifier.to_string();
                vec![Resource::new(NETWORK, name, &site.hypervisor)]
            }
        })
    }

    async fn make(&self, mut entries: Entries, making: &mut Making<'_>) -> Result<()> {
        match self {
            Self::AsWritten => {}
            Self::None => {
                making.domain.remove_interfaces();
            }
            Self::Own { xml, addresses } => {
                let entry = entries.next()?;
                create(xml, addresses.as_ref(), entry, making).await?;
                let name = making.identifier.to_string();
                making.domain.connect_network(&name, false);
            }
        }
        Ok(())
    }
}

/// A network that was made for a sandbox.
#[derive(Debug)]
struct Own(Network);

#[async_trait]
impl Holding for Own {
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

/// Makes a network of the sandbox's own and starts it.
async fn create(
    plan: &NetworkXml,
    addresses: Option<&DynamicAddress>,
    entry: Entry,
    making: &mut Making<'_>,
) -> Result<()> {
    let connection = making.connection()?.clone();
    let identifier = making.identifier.to_string();
    let mut xml = plan.clone();
    xml.set_identity(&identifier, &identifier);
    xml.set_label(&identifier);
    let bridge = free_bridge(&identifier)?;
    xml.set_bridge(&bridge);
    let made = match addresses {
        None => start(&connection, &xml).await,
        Some(addresses) => with_addresses(&xml, addresses, &connection, making.stop).await,
    };
    let network = match made {
        Ok(network) => network,
        Err(error) => return Err(refused(entry, error).await),
    };
    let mut identity = Details::new();
    identity.insert("uuid".to_owned(), network.uuid().to_string().into());
    identity.insert("bridge".to_owned(), bridge.into());
    let recorded = entry.created(identity).await;
    making.hold_as(entry, Own(network));
    recorded
}

async fn with_addresses(
    xml: &NetworkXml,
    wanted: &DynamicAddress,
    connection: &Connection,
    stop: &StopToken,
) -> Result<Network> {
    let within = wanted.within()?;
    let mut attempt = 0;
    loop {
        stop.check("create the network")?;
        let taken = taken::subnets(connection).await?;
        let free = FreeSubnets::new(within, wanted.subnet_prefix, &taken)
            .ok_or_else(|| Error::new(ErrorKind::Configuration, "no subnet of that size fits"))?;
        let subnet = free.pick(random()).ok_or_else(|| {
            Error::new(
                ErrorKind::Exhausted,
                format!(
                    "every subnet of {} bits in {} is in use",
                    wanted.subnet_prefix,
                    free.within()
                ),
            )
            .advice("give `dynamic_address` a larger network, or end other sandboxes")
        })?;
        let mut xml = xml.clone();
        xml.set_addresses(&dhcp(subnet)?)
            .map_err(|error| Error::new(ErrorKind::Configuration, error.to_string()))?;
        match start(connection, &xml).await {
            // Somebody took an address of it since the look.
            Err(error) if error.chain().contains("is already in use") && attempt < ATTEMPTS => {
                attempt += 1;
            }
            other => return other,
        }
    }
}

fn dhcp(subnet: subnet::Subnet) -> Result<DhcpNetwork> {
    let host = |offset| {
        subnet
            .host(offset)
            .ok_or_else(|| Error::new(ErrorKind::Internal, "a subnet without hosts was picked"))
    };
    Ok(DhcpNetwork {
        gateway: host(1)?,
        prefix: subnet.prefix(),
        first: host(2)?,
        last: subnet.last_host(),
    })
}

/// A transient network is gone when it stops, also by the daemon's end.
async fn start(connection: &Connection, xml: &NetworkXml) -> Result<Network> {
    connection
        .create_network(&xml.to_string())
        .await
        .map_err(|error| libvirt(error).during("create the network"))
}

/// `virbr-` and eight digits of the identifier: the first eight, as python-see had it, or others
/// where a device has that name.
fn free_bridge(identifier: &str) -> Result<String> {
    let digits: String = identifier.chars().filter(char::is_ascii_hexdigit).collect();
    (0..digits.len().saturating_sub(7))
        .step_by(8)
        .map(|start| format!("virbr-{}", &digits[start..start + 8]))
        .find(|name| !std::path::Path::new("/sys/class/net").join(name).exists())
        .ok_or_else(|| {
            Error::new(
                ErrorKind::AlreadyExists,
                "the bridge names of this identifier are all taken",
            )
            .subject(identifier)
        })
}

/// A number that differs from process to process and call to call.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::time::Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bridge_name_fits_an_interface_and_starts_with_the_identifier() {
        let name = free_bridge("0123abcd-4567-4567-89ab-cdef01234567").unwrap();
        assert_eq!(name, "virbr-0123abcd");
        assert!(name.len() <= 15);
    }

    #[test]
    fn dhcp_serves_everything_behind_the_gateway() {
        let subnet = subnet::Subnet::containing([10, 1, 2, 0].into(), 24).unwrap();
        let dhcp = dhcp(subnet).unwrap();
        assert_eq!(dhcp.gateway.to_string(), "10.1.2.1");
        assert_eq!(dhcp.first.to_string(), "10.1.2.2");
        assert_eq!(dhcp.last.to_string(), "10.1.2.254");
    }
}

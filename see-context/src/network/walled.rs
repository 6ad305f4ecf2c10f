//! A guest behind walls: `isolated` and `shared`.

use std::time::Duration;

use see_core::ledger::Resource;
use see_core::{Error, ErrorKind, Identifier, Result};
use see_libvirt::xml::{Lent, NetworkPort, NetworkXml};

use super::claim;
use super::configuration::DynamicAddress;
use super::isolation::Isolated;
use super::lease::Lender;
use super::rules::{self, GuestPort};
use super::subnet::Subnet;
use super::wall::{self, OwnFloor, Raised};
use super::{Wanted, create, netlink, nft, shared};
use crate::allocation::{Entries, Making, Site};

/// The host's address and the guest's.
const OWN_PREFIX: u8 = 30;
/// How long the only guest has its address.
const LEASE: Duration = Duration::from_secs(3600);
/// The beginning of the names of guests' ports; a device's name has at most 15 characters.
const DEVICE: &str = "see";

/// What is planned for a guest behind walls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Walled {
    /// On the shared network, or one of its own.
    pub(super) shared: bool,
    /// Whether the guest has to prove its isolation.
    pub(super) verified: bool,
    /// The TCP port on which the agent is asked.
    pub(super) agent: Option<u16>,
}

impl Walled {
    pub(super) fn intents(&self, site: &Site) -> Vec<Resource> {
        let network = match self.shared {
            true => shared::intent(site.identifier, &site.hypervisor),
            false => super::intent(site),
        };
        // Collected in reverse: what might still change the rules, the network, its walls.
        vec![
            wall::intent(site.identifier),
            network,
            Resource::process("nft"),
        ]
    }

    pub(super) async fn make(&self, mut entries: Entries, making: &mut Making<'_>) -> Result<()> {
        let (tables, network, loader) = (entries.next()?, entries.next()?, entries.next()?);
        // From here on, tables may stand.
        making.hold_as(tables, Raised(making.identifier));
        let mark = loader.mark();
        let mark = (mark.0, mark.1.as_str());
        let identifier = making.identifier;
        let device = free_device(identifier)?;
        let (port, name, bridge, seat) = match self.shared {
            true => {
                let connection = making.connection()?.clone();
                let taken = shared::sit_down(&connection, &network, self.agent, mark, making.stop);
                let taken = taken.await;
                // Whether it failed before or after the seat was taken, it is looked for.
                making.hold_as(
                    network,
                    shared::Seated {
                        connection,
                        identifier,
                    },
                );
                let taken = taken?;
                making.abilities.lender = Some(Lender {
                    network: taken.network.clone(),
                    mac: taken.mac.clone(),
                    stale: taken.stale,
                });
                let port = GuestPort {
                    device,
                    mac: taken.mac,
                    address: taken.seat.address,
                    gateway: taken.gateway,
                    agent: self.agent,
                };
                let name = taken.network.name().to_owned();
                (port, name, taken.bridge, Some(taken.seat))
            }
            false => {
                let mac = own_mac(making);
                let floor = OwnFloor {
                    identifier,
                    agent: self.agent,
                    mark,
                };
                let mut xml = NetworkXml::isolated();
                xml.set_no_dns();
                let wanted = Wanted {
                    xml: &xml,
                    search: &[DynamicAddress::usual(OWN_PREFIX)],
                    lend: &|subnet| lend(subnet, &mac),
                    local: true,
                };
                let claimed = create(&wanted, Some(&floor), network, making).await?;
                let subnet = own_subnet(&claimed.network).await?;
                let port = GuestPort {
                    device,
                    address: claim::host(subnet, 2)?,
                    gateway: claim::host(subnet, 1)?,
                    mac,
                    agent: self.agent,
                };
                let name = claimed.network.name().to_owned();
                (port, name, claimed.bridge.name, None)
            }
        };
        let Some(found) = netlink::devices()?.remove(&bridge) else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the bridge {bridge} is not among this host's devices"),
            )
            .advice(
                "the daemon has another network namespace, whose firewall cannot be reached: \
                 run beside it, or use the mode `nat`",
            ));
        };
        netlink::set_group_forward(&found, rules::LLDP).map_err(|error| error.subject(&bridge))?;
        wall::raise(identifier, &port, mark).await?;
        loader.gone().await?;
        making.domain.connect_network(&NetworkPort {
            network: name,
            mac: Some(port.mac.clone()),
            device: Some(port.device.clone()),
            isolated: true,
        });
        let isolated = Isolated::remember(identifier, self.verified, port, bridge, seat).await?;
        making.abilities.isolation = Some(std::sync::Arc::new(isolated));
        Ok(())
    }
}

/// A guest alone on its network.
fn lend(subnet: Subnet, mac: &str) -> Result<Lent> {
    let host = (mac.to_owned(), claim::host(subnet, 2)?);
    Ok(Lent::Hosts(vec![host], LEASE))
}

async fn own_subnet(network: &see_libvirt::Network) -> Result<Subnet> {
    let text = network.xml().await.map_err(crate::error::libvirt)?;
    NetworkXml::parse(&text)
        .ok()
        .and_then(|xml| xml.subnets().first().copied())
        .and_then(|(address, prefix)| Subnet::containing(address, prefix))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::Hypervisor,
                "libvirt made another network than it was asked for",
            )
        })
}

/// The hardware address in the domain's XML, or one of QEMU's prefix.
fn own_mac(making: &Making<'_>) -> String {
    let written = making
        .domain
        .interfaces()
        .into_iter()
        .find_map(|interface| interface.mac);
    written
        .filter(|mac| mac.len() == 17 && mac.bytes().all(|b| b == b':' || b.is_ascii_hexdigit()))
        .map_or_else(claim::hardware_address, |mac| mac.to_ascii_lowercase())
}

/// A name for the guest's port that no device has.
fn free_device(identifier: Identifier) -> Result<String> {
    let devices = netlink::devices()?;
    claim::device_names(DEVICE, &identifier.to_string(), 12)
        .into_iter()
        .find(|name| !devices.contains_key(name))
        .ok_or_else(|| {
            Error::new(
                ErrorKind::AlreadyExists,
                "the port names of this identifier are all taken",
            )
            .subject(identifier)
        })
}

/// Whether this process may load firewall rules, and has the program for it.
///
/// # Errors
/// [`ErrorKind::Unavailable`] without the program, [`ErrorKind::PermissionDenied`] without the right.
pub(super) fn check_rights() -> Result<()> {
    /// The capability to administer the network, as a bit.
    const NET_ADMIN: u32 = 12;
    nft::program()?;
    let status = std::fs::read_to_string("/proc/self/status")
        .map_err(|error| Error::io("this process's rights cannot be read", error))?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .unwrap_or(0);
    if effective >> NET_ADMIN & 1 == 1 && rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::PermissionDenied,
        "this mode loads firewall rules, which needs root: libvirt's own leave the host open",
    )
    .advice("run as root, or use the mode `none` or `nat`"))
}

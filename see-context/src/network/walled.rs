//! A guest behind walls: `isolated` and `shared`.

use std::sync::Arc;
use std::time::Duration;

use see_core::ledger::{Entry, Resource};
use see_core::{Error, ErrorKind, Identifier, Result};
use see_libvirt::Connection;
use see_libvirt::xml::{DomainXml, Lent, NetworkPort};

use super::isolation::Isolated;
use super::lease::Lender;
use super::netlink::route;
use super::placed::{Placed, closed_network};
use super::rules;
use super::space::Search;
use super::subnet::Subnet;
use super::wall::{self, Alone, Guest};
use super::{Attachment, Wanted, claim, create, nft, shared};
use crate::allocation::{Site, exactly, refused};

/// The host's address and the guest's.
pub(super) const OWN_PREFIX: u8 = 30;
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
    /// Where the network's addresses come from.
    pub(super) search: Search,
}

impl Walled {
    pub(super) fn intents(&self, site: &Site<'_>) -> Vec<Resource> {
        let network = match self.shared {
            true => shared::intent(site.identifier, &site.location),
            false => super::intent(site),
        };
        // Collected in reverse: what might still change the rules, the network, its walls.
        vec![
            wall::intent(site.identifier),
            network,
            Resource::process("nft"),
        ]
    }

    pub(super) async fn make(
        &self,
        entries: Vec<Entry>,
        domain: &DomainXml,
        connection: &Connection,
        site: &Site<'_>,
    ) -> Result<Attachment> {
        let [tables, network, loader] = exactly(entries)?;
        let mark = loader.mark();
        let identifier = site.identifier;
        if let Err(error) = wall::check_none(identifier).await {
            return Err(refused(tables, error).await);
        }
        let device = free_device(identifier).await?;
        let guest = Guest {
            identifier,
            device: &device,
            agent: self.agent,
            mark: (mark.0, mark.1.as_str()),
        };
        let placed = match self.shared {
            true => shared::sit_down(connection, &network, &guest, &self.search, site.stop).await?,
            false => {
                self.alone(guest, network, domain, (connection, site))
                    .await?
            }
        };
        loader.gone().await?;
        let Placed {
            lender,
            seat,
            port,
            bridge,
        } = placed;
        let Some(found) = route::device(&bridge).await? else {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("the bridge {bridge} is not among this host's devices"),
            )
            .advice(
                "the daemon has another network namespace, whose firewall cannot be reached: \
                 run beside it, or use the mode `nat`",
            ));
        };
        route::set_group_forward(&found, rules::LLDP).await?;
        let connected = NetworkPort {
            network: lender.network.name().to_owned(),
            mac: Some(port.mac.clone()),
            device: Some(port.device.clone()),
            isolated: true,
        };
        let seat = (seat, self.shared);
        let isolated = Isolated::remember(identifier, self.verified, port, bridge, seat).await?;
        Ok(Attachment {
            port: Some(connected),
            lender: Some(lender),
            has_dhcp_here: true,
            isolation: Some(Arc::new(isolated)),
        })
    }

    /// On a network of its own.
    async fn alone(
        &self,
        guest: Guest<'_>,
        entry: Entry,
        domain: &DomainXml,
        on: (&Connection, &Site<'_>),
    ) -> Result<Placed> {
        let mac = own_mac(domain);
        let alone = Alone { guest, mac: &mac };
        let wanted = Wanted {
            xml: &closed_network(),
            search: std::slice::from_ref(&self.search),
            lend: &|subnet| lend(subnet, &mac),
            local: true,
        };
        let claimed = create(&wanted, Some(&alone), entry, on).await?;
        let subnet = claimed.subnets.first().copied();
        let unasked = || Error::new(ErrorKind::Internal, "a network without a subnet was made");
        let port = alone.port(subnet.ok_or_else(unasked)?)?;
        Ok(Placed {
            lender: Lender {
                network: claimed.network,
                mac: port.mac.clone(),
                address: port.address,
                stale: None,
            },
            seat: guest.seat(port.address),
            port,
            bridge: claimed.bridge.name,
        })
    }
}

/// A guest alone on its network.
fn lend(subnet: Subnet, mac: &str) -> Result<Lent> {
    let host = (mac.to_owned(), claim::host(subnet, 2)?);
    Ok(Lent::Hosts(vec![host], LEASE))
}

/// The hardware address in the domain's XML, or one of QEMU's prefix.
fn own_mac(domain: &DomainXml) -> String {
    let written = domain
        .interfaces()
        .into_iter()
        .find_map(|interface| interface.mac);
    written
        .filter(|mac| mac.len() == 17 && mac.bytes().all(|b| b == b':' || b.is_ascii_hexdigit()))
        .map_or_else(claim::hardware_address, |mac| mac.to_ascii_lowercase())
}

/// A name for the guest's port that no device has.
async fn free_device(identifier: Identifier) -> Result<String> {
    for name in claim::device_names(DEVICE, &identifier.to_string(), 12) {
        if route::device(&name).await?.is_none() {
            return Ok(name);
        }
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        "the port names of this identifier are all taken",
    )
    .subject(identifier))
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

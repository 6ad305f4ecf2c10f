//! The shared network: one for the host, on which every guest has a seat.
//!
//! A seat is an address of the network, with the hardware address that the network's DHCP server keeps it for. A
//! guest on a seat is known to the firewall before it starts. For a sandbox nothing is made in libvirt: it takes
//! an element in the set of seats in the network's floor, labelled with its environment, and gives it back.
//! The set is in the kernel: it is the one truth about who sits where for all processes and users, it cannot be
//! written without the rights that the mode needs anyway, and it is gone with the network at the host's next boot.
//!
//! The first who sits down makes floor and network, the last who leaves removes them. Both happen under a lock on
//! a file in `/run/see`, which belongs to root: nobody else can hold it, replace it or put a link in its place. A
//! crash leaves a seat taken, which the ledger knows; its collection leaves it.

use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use see_core::ledger::{CollectRequest, Collected, Collector, Details, Entry, Resource};
use see_core::{Error, ErrorKind, Identifier, Result, StopToken};
use see_libvirt::xml::{Lent, NetworkXml};
use see_libvirt::{Connection, Network};

use super::claim::{self, Draft, Shutter};
use super::collector::{Removal, after_network, remove};
use super::lease::Lender;
use super::lock::Lock;
use super::netlink::route;
use super::netlink::tables::{self, Table};
use super::nft::{self, Family, UNMARKED};
use super::placed::{Placed, closed_network};
use super::rules::{self, Seat};
use super::space::Search;
use super::subnet::{self, Subnet};
use super::wall::{self, Guest};
use super::{NETWORK, WALL, identity};
use crate::error::libvirt;
use crate::hypervisor;

/// The kind of the ledger's entries for a seat.
const SEAT: &str = "libvirt.seat";
/// The name of the network, and of its floor.
pub(super) const NAME: &str = "see-shared";
/// The label of both.
const LABEL: &str = "shared";
/// The network's bridge.
const BRIDGE: &str = "virbr-see";
/// The length of the network's prefix: 509 seats.
pub(super) const PREFIX: u8 = 23;
/// How long an address is lent; the guest asks again after half of it. Short, so that a seat's last lease is
/// soon forgotten.
const LEASE: Duration = Duration::from_secs(600);

/// What is written down of a seat.
pub(super) fn intent(identifier: Identifier, uri: &str) -> Resource {
    Resource::new(SEAT, identifier.to_string(), uri)
}

/// Takes a seat and raises the guest's wall, and makes the network where this is the first one.
pub(super) async fn sit_down(
    connection: &Connection,
    entry: &Entry,
    guest: &Guest<'_>,
    search: &Search,
    stop: &StopToken,
) -> Result<Placed> {
    let lock = Lock::take(Some(stop)).await?;
    let network = network(connection).await?;
    let floor = floor().await?;
    let placed = match (network, floor) {
        (Some(network), Some(floor)) => join(network, &floor, guest, search).await?,
        (network, _) => {
            clear(network, &lock, connection.uri(), entry.identifier()).await?;
            found(connection, &lock, guest, search, stop).await?
        }
    };
    drop(lock);
    let mut identity = Details::new();
    identity.insert("address".to_owned(), placed.seat.address.to_string().into());
    entry.created(identity).await?;
    Ok(placed)
}

/// Takes a seat of the network that is there.
async fn join(
    network: Network,
    floor: &Table,
    guest: &Guest<'_>,
    search: &Search,
) -> Result<Placed> {
    let xml = xml(&network).await?;
    let unusable = || {
        Error::new(
            ErrorKind::AlreadyExists,
            format!("there is a network {NAME} that is not as it is made"),
        )
        .advice(format!(
            "end the sandboxes on it and remove it: `virsh net-destroy {NAME}`"
        ))
    };
    let bridge = xml.bridge().ok_or_else(unusable)?;
    let (gateway, prefix) = xml.subnets().first().copied().ok_or_else(unusable)?;
    let subnet = Subnet::containing(gateway, prefix).ok_or_else(unusable)?;
    if !search.contains(subnet) {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!("the shared network is there already, at {subnet}, outside of `network.address_space`"),
        )
        .advice("leave `address_space` out, or end the sandboxes on the shared network first"));
    }
    let occupied: Vec<_> = floor.seats.iter().map(|seat| seat.address).collect();
    let leases = network.dhcp_leases(None).await.map_err(libvirt)?;
    let mut free: Vec<_> = xml
        .dhcp_hosts()
        .into_iter()
        .filter(|(_, address)| !occupied.contains(address))
        .map(|(mac, address)| {
            let lease = leases.iter().find(|lease| lease.address == address);
            (mac, address, lease.and_then(|lease| lease.expires))
        })
        .collect();
    if free.is_empty() {
        return Err(Error::new(
            ErrorKind::Exhausted,
            format!(
                "all {} seats on the shared network are taken",
                occupied.len()
            ),
        )
        .advice("end other sandboxes, or use the mode `isolated`"));
    }
    // Seats that were long empty come first.
    free.sort_by_key(|(_, _, lease)| *lease);
    let fresh = free.iter().filter(|(_, _, lease)| lease.is_none()).count();
    let index = match u64::try_from(fresh)
        .ok()
        .and_then(|fresh| subnet::random().checked_rem(fresh))
    {
        Some(index) => usize::try_from(index).unwrap_or(0),
        None => 0,
    };
    let (mac, address, stale) = free.swap_remove(index);
    let seat = guest.seat(address);
    let port = guest.port(&mac, address, gateway);
    guest
        .raise(&port, vec![rules::take_seat(NAME, &seat)])
        .await?;
    Ok(Placed {
        lender: Lender {
            network,
            mac,
            address,
            stale,
        },
        seat,
        port,
        bridge,
    })
}

/// Makes floor and network, with a seat taken.
async fn found(
    connection: &Connection,
    lock: &Lock,
    guest: &Guest<'_>,
    search: &Search,
    stop: &StopToken,
) -> Result<Placed> {
    let base = subnet::random();
    let draft = Draft {
        name: NAME,
        uuid: None,
        label: LABEL,
        xml: &closed_network(),
        bridges: std::iter::once(BRIDGE.to_owned())
            .chain((0..8).map(|number| format!("{BRIDGE}{number}")))
            .collect(),
        search: std::slice::from_ref(search),
        lend: &|subnet| lend(subnet, base),
        local: true,
        notes: lock,
    };
    let first = First { guest, base };
    let claimed = match claim::start(&draft, connection, stop, Some(&first)).await {
        Ok(claimed) => claimed,
        Err(error) => {
            // The floor of a network that there is not.
            if let Err(error) = remove_floor().await {
                tracing::warn!(%error, "the shared network's floor stays");
            }
            return Err(error);
        }
    };
    let subnet = claimed.subnets.first().copied();
    let unasked = || Error::new(ErrorKind::Internal, "a network without a subnet was made");
    let (gateway, mac, address) = first.place(subnet.ok_or_else(unasked)?)?;
    Ok(Placed {
        port: guest.port(&mac, address, gateway),
        lender: Lender {
            network: claimed.network,
            mac,
            address,
            stale: None,
        },
        seat: guest.seat(address),
        bridge: claimed.bridge.name,
    })
}

/// A hardware address for each address behind the gateway.
fn lend(subnet: Subnet, base: u64) -> Result<Lent> {
    let count = (1_u32 << (32 - PREFIX)) - 3;
    let hosts = (0..count)
        .map(|seat| Ok((mac(base, seat), claim::host(subnet, seat + 2)?)))
        .collect::<Result<Vec<_>>>()?;
    Ok(Lent::Hosts(hosts, LEASE))
}

/// QEMU's prefix, fifteen bits of the network's, nine of the seat's.
fn mac(base: u64, seat: u32) -> String {
    let low = (base << 9 | u64::from(seat)) & 0xff_ffff;
    let [.., a, b, c] = low.to_be_bytes();
    format!("52:54:00:{a:02x}:{b:02x}:{c:02x}")
}

/// Makes the floor before the network, with the first seat in it, and the wall of who has it.
struct First<'a> {
    guest: &'a Guest<'a>,
    /// What the hardware addresses are made of.
    base: u64,
}

impl First<'_> {
    /// The gateway, and the first seat's hardware address and address.
    fn place(&self, subnet: Subnet) -> Result<(IpAddr, String, IpAddr)> {
        let (gateway, address) = (claim::host(subnet, 1)?, claim::host(subnet, 2)?);
        Ok((gateway, mac(self.base, 0), address))
    }
}

#[async_trait]
impl Shutter for First<'_> {
    async fn shut(&self, bridge: &str, subnet: Subnet) -> Result<()> {
        let (gateway, mac, address) = self.place(subnet)?;
        let seat = self.guest.seat(address);
        // What stood there has no network any more.
        let floor = rules::floor(NAME, &format!("see:{LABEL}"), bridge, gateway, &seat);
        let port = self.guest.port(&mac, address, gateway);
        self.guest.raise(&port, floor).await
    }
}

/// Gives the environment's seat back, and removes network and floor where it was the last one. Whether it had one.
async fn leave(connection: &Connection, identifier: Identifier, dry_run: bool) -> Result<bool> {
    let lock = Lock::take(None).await?;
    let label = wall::label(identifier);
    let floor = floor().await?;
    let has_floor = floor.is_some();
    let (own, others): (Vec<Seat>, Vec<Seat>) = floor
        .map(|floor| floor.seats)
        .unwrap_or_default()
        .into_iter()
        .partition(|seat| seat.label == label);
    if dry_run {
        return Ok(!own.is_empty());
    }
    if !others.is_empty() {
        if !own.is_empty() {
            let commands = own.iter().map(|seat| rules::leave_seat(NAME, seat));
            nft::apply(commands.collect(), UNMARKED).await?;
        }
    } else {
        // Also where only a piece is left of what a crash interrupted.
        let network = network(connection).await?;
        clear(network, &lock, connection.uri(), identifier).await?;
        if has_floor {
            remove_floor().await?;
        }
    }
    drop(lock);
    Ok(!own.is_empty())
}

/// Removes the network, on which nobody sits, and what a daemon left of it that died while it made or removed it.
async fn clear(
    network: Option<Network>,
    lock: &Lock,
    uri: &str,
    identifier: Identifier,
) -> Result<()> {
    let removal = match network {
        Some(network) => {
            check_empty(&network).await?;
            remove(&network).await?
        }
        None => Removal::Unknown,
    };
    if let Some(bridge) = lock.bridge()? {
        let resource = Resource::new(NETWORK, NAME, uri);
        let mut known = CollectRequest::new(identifier, resource);
        known.identity = Some(identity(&bridge));
        after_network(&known, removal).await?;
        lock.forget()?;
    }
    Ok(())
}

async fn check_empty(network: &Network) -> Result<()> {
    let bridge = network.bridge().await.map_err(libvirt)?;
    let Some(bridge) = route::device(&bridge).await? else {
        return Ok(());
    };
    let mut devices = route::devices().await?.into_iter();
    // libvirt's own keeps the bridge's hardware address.
    let is_guests = |device: &route::Device| {
        device.bridge == Some(bridge.index) && !device.name.ends_with("-nic")
    };
    match devices.find(is_guests).map(|device| device.name) {
        None => Ok(()),
        Some(port) => Err(Error::new(
            ErrorKind::Isolation,
            format!(
                "the network {NAME} has a guest on {port}, and its firewall rules do not know it"
            ),
        )
        .advice(format!(
            "end that guest, and remove the network: `virsh net-destroy {NAME}`"
        ))),
    }
}

async fn remove_floor() -> Result<()> {
    nft::apply(rules::remove(Family::Inet, NAME), UNMARKED).await
}

/// The shared network, where it is there.
async fn network(connection: &Connection) -> Result<Option<Network>> {
    let network = match connection.network(NAME).await {
        Ok(network) => network,
        Err(error) if error.is_no_network() => return Ok(None),
        Err(error) => return Err(libvirt(error)),
    };
    if xml(&network).await?.label().as_deref() == Some(LABEL) {
        return Ok(Some(network));
    }
    Err(Error::new(
        ErrorKind::AlreadyExists,
        format!("there is a network {NAME} without our label"),
    )
    .advice("give it another name: it is taken for the shared network of sandboxes"))
}

async fn xml(network: &Network) -> Result<NetworkXml> {
    let text = network.xml().await.map_err(libvirt)?;
    NetworkXml::parse(&text).map_err(|error| {
        Error::new(ErrorKind::Hypervisor, "a network's XML cannot be read").caused_by(error)
    })
}

/// The floor, where it is there.
async fn floor() -> Result<Option<Table>> {
    tables::table(Family::Inet, NAME).await
}

/// Up to `count` guests behind walls on this host, others than the one at `own`; those on the shared network first.
pub(super) async fn others(own: IpAddr, count: usize) -> Result<Vec<Seat>> {
    let names = tables::names(Family::Inet).await?;
    let mut names: Vec<String> = names
        .into_iter()
        .filter(|name| wall::is_table(name) || name == NAME)
        .collect();
    names.sort_by_key(|name| name != NAME);
    let mut found = Vec::new();
    for name in names {
        // It may go away while it is looked at.
        let table = tables::table(Family::Inet, &name).await?;
        let seats = table.into_iter().flat_map(|table| table.seats);
        found.extend(seats.filter(|seat| seat.address != own));
        if found.len() >= count {
            break;
        }
    }
    found.truncate(count);
    Ok(found)
}

/// Gives seats back.
#[derive(Debug)]
pub(crate) struct Seats;

#[async_trait]
impl Collector for Seats {
    fn kind(&self) -> &str {
        SEAT
    }

    /// Its firewall.
    fn needs(&self, earlier: &Resource) -> bool {
        earlier.kind == WALL
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        let connection = hypervisor::open(request).await?;
        let had = leave(&connection, request.identifier, request.dry_run).await?;
        Ok(match had {
            true => Collected::Removed,
            false => Collected::AlreadyGone,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_seat_has_a_hardware_address_of_its_own() {
        let subnet = Subnet::containing([10, 7, 6, 0].into(), PREFIX).unwrap();
        let Lent::Hosts(hosts, _) = lend(subnet, 0x7abc).unwrap() else {
            panic!("no hosts");
        };
        assert_eq!(hosts.len(), 509);
        assert_eq!(hosts[0].1, std::net::IpAddr::from([10, 7, 6, 2]));
        assert_eq!(hosts[508].1, std::net::IpAddr::from([10, 7, 7, 254]));
        let macs: std::collections::BTreeSet<_> = hosts.iter().map(|(mac, _)| mac).collect();
        assert_eq!(macs.len(), 509);
    }
}

//! The tables of one environment, as a resource: raised before what they close, removed after it.

use async_trait::async_trait;
use see_core::ledger::{CollectRequest, Collected, Collector, Resource};
use see_core::{Error, ErrorKind, Identifier, Result};
use serde_json::Value;

use super::WALL;
use super::claim::Shutter;
use super::netlink::tables::{self, Table};
use super::nft::{self, Family, UNMARKED};
use super::rules::{self, GuestPort, Seat};
use super::subnet::Subnet;

/// The families in which an environment may have a table.
const FAMILIES: [Family; 2] = [Family::Bridge, Family::Inet];

/// What is written down of them.
pub(super) fn intent(identifier: Identifier) -> Resource {
    Resource::new(WALL, identifier.to_string(), "")
}

/// The name of an environment's tables.
pub(super) fn table(identifier: Identifier) -> String {
    format!("see-{identifier}")
}

/// Whether a table is named as an environment's are.
pub(super) fn is_table(name: &str) -> bool {
    name.strip_prefix("see-")
        .is_some_and(|rest| rest.parse::<Identifier>().is_ok())
}

/// The label of an environment's rules and seats.
pub(super) fn label(identifier: Identifier) -> String {
    format!("see:{identifier}")
}

/// A guest that is to stand behind walls, before it is known in which subnet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guest<'a> {
    pub(super) identifier: Identifier,
    /// The host's device that is to be its port.
    pub(super) device: &'a str,
    /// The TCP port on which its agent is asked.
    pub(super) agent: Option<u16>,
    /// The mark of the process that loads its rules.
    pub(super) mark: (&'a str, &'a str),
}

impl Guest<'_> {
    /// Its place on a network, with this hardware address.
    pub(super) fn port(
        &self,
        mac: &str,
        address: std::net::IpAddr,
        gateway: std::net::IpAddr,
    ) -> GuestPort {
        GuestPort {
            device: self.device.to_owned(),
            mac: mac.to_owned(),
            address,
            gateway,
            agent: self.agent,
        }
    }

    /// Its seat on a network.
    pub(super) fn seat(&self, address: std::net::IpAddr) -> Seat {
        Seat {
            address,
            agent: self.agent,
            label: label(self.identifier),
        }
    }

    /// Loads the wall around its port, and these commands, as one transaction.
    pub(super) async fn raise(&self, port: &GuestPort, mut commands: Vec<Value>) -> Result<()> {
        let name = table(self.identifier);
        commands.extend(rules::wall(&name, &label(self.identifier), port));
        nft::apply(commands, self.mark).await
    }
}

/// The walls of a guest that is alone on its network, where it has the second address.
#[derive(Debug)]
pub(super) struct Alone<'a> {
    pub(super) guest: Guest<'a>,
    pub(super) mac: &'a str,
}

impl Alone<'_> {
    /// The guest's place in this subnet.
    pub(super) fn port(&self, subnet: Subnet) -> Result<GuestPort> {
        let (gateway, address) = (
            super::claim::host(subnet, 1)?,
            super::claim::host(subnet, 2)?,
        );
        Ok(self.guest.port(self.mac, address, gateway))
    }
}

#[async_trait]
impl Shutter for Alone<'_> {
    async fn shut(&self, bridge: &str, subnet: Subnet) -> Result<()> {
        let port = self.port(subnet)?;
        let (name, label) = (table(self.guest.identifier), label(self.guest.identifier));
        let seat = self.guest.seat(port.address);
        let floor = rules::floor(&name, &label, bridge, port.gateway, &seat);
        self.guest.raise(&port, floor).await
    }
}

/// Refuses an environment of whose name there are tables already: they would be replaced.
pub(super) async fn check_none(identifier: Identifier) -> Result<()> {
    match found(identifier).await?.is_empty() {
        true => Ok(()),
        false => Err(Error::new(
            ErrorKind::AlreadyExists,
            "there is a table of nftables with the environment's name",
        )
        .subject(table(identifier))),
    }
}

/// The tables of an environment's name.
async fn found(identifier: Identifier) -> Result<Vec<(Family, Table)>> {
    let name = table(identifier);
    let mut found = Vec::new();
    for family in FAMILIES {
        if let Some(table) = tables::table(family, &name).await? {
            found.push((family, table));
        }
    }
    Ok(found)
}

/// Removes these tables of an environment's, as one transaction.
async fn remove(identifier: Identifier, found: &[(Family, Table)]) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let name = table(identifier);
    let commands = found
        .iter()
        .flat_map(|(family, _)| rules::remove(*family, &name));
    nft::apply(commands.collect(), UNMARKED).await
}

/// Removes tables whose rules carry the environment's label.
#[derive(Debug)]
pub(crate) struct Walls;

#[async_trait]
impl Collector for Walls {
    fn kind(&self) -> &str {
        WALL
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        let found = found(request.identifier).await?;
        if found.is_empty() {
            return Ok(Collected::AlreadyGone);
        }
        let label = label(request.identifier);
        if !found.iter().all(|(_, table)| table.is_labelled(&label)) {
            return Ok(Collected::Refused(
                "its rules have no label of ours".to_owned(),
            ));
        }
        if !request.dry_run {
            remove(request.identifier, &found).await?;
        }
        Ok(Collected::Removed)
    }
}

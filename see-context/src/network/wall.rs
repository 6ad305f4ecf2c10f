//! The tables of one environment, as a resource: raised before what they close, removed after it.

use async_trait::async_trait;
use see_core::ledger::{CollectRequest, Collected, Collector, Resource};
use see_core::{ErrorKind, Identifier, Result};
use serde_json::Value;

use super::claim::Shutter;
use super::nft::{self, Family};
use super::rules::{self, GuestPort, Seat};
use super::subnet::Subnet;
use crate::allocation::Holding;

/// The kind of the ledger's entries for an environment's tables.
const WALL: &str = "nftables.tables";

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

/// Raises the wall around a guest's port.
pub(super) async fn raise(
    identifier: Identifier,
    port: &GuestPort,
    mark: (&str, &str),
) -> Result<()> {
    let commands = rules::wall(&table(identifier), &label(identifier), port);
    nft::apply(commands, mark).await
}

/// The floor of a network of the environment's own, whose guest has the second address.
pub(super) struct OwnFloor<'a> {
    pub(super) identifier: Identifier,
    pub(super) agent: Option<u16>,
    pub(super) mark: (&'a str, &'a str),
}

#[async_trait]
impl Shutter for OwnFloor<'_> {
    async fn shut(&self, bridge: &str, subnet: Subnet) -> Result<()> {
        let label = label(self.identifier);
        let seat = Seat {
            address: super::claim::host(subnet, 2)?,
            agent: self.agent,
            label: label.clone(),
        };
        // Its name has the environment's identifier, which is used once: an earlier one is this allocation's.
        let (name, gateway) = (table(self.identifier), super::claim::host(subnet, 1)?);
        let commands = rules::floor(&name, &label, bridge, gateway, &seat, true);
        nft::apply(commands, self.mark).await
    }
}

/// The tables of an environment that stand.
#[derive(Debug)]
pub(super) struct Raised(pub(super) Identifier);

#[async_trait]
impl Holding for Raised {
    async fn remove(&mut self) -> Result<()> {
        for (family, listing) in found(self.0).await? {
            debug_assert!(rules::is_labelled(&listing, &label(self.0)));
            raze(family, self.0).await?;
        }
        Ok(())
    }
}

/// The tables of an environment's name, with what is in them.
async fn found(identifier: Identifier) -> Result<Vec<(Family, Vec<Value>)>> {
    let name = table(identifier);
    let mut found = Vec::new();
    for family in [Family::Bridge, Family::Inet] {
        if !nft::tables(family).await?.contains(&name) {
            continue;
        }
        match nft::list(family, &name).await {
            Ok(listing) => found.push((family, listing)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

async fn raze(family: Family, identifier: Identifier) -> Result<()> {
    let command = rules::raze(family, &table(identifier));
    match nft::apply(vec![command], ("LC_ALL", "C")).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
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
        if !found
            .iter()
            .all(|(_, listing)| rules::is_labelled(listing, &label))
        {
            return Ok(Collected::Refused(
                "its rules have no label of ours".to_owned(),
            ));
        }
        if !request.dry_run {
            for (family, _) in found {
                raze(family, request.identifier).await?;
            }
        }
        Ok(Collected::Removed)
    }
}

//! What a guest behind walls is kept from, and whether the walls still stand.

use std::path::Path;

use async_trait::async_trait;
use see_core::{Closed, Error, ErrorKind, Identifier, Isolation, Result};

use super::netlink::route;
use super::netlink::tables::{self, Changes, Table};
use super::nft::Family;
use super::rules::{self, GuestPort, Seat};
use super::{closed, shared, wall};

/// The walls around one guest, as they were built.
#[derive(Debug)]
pub(super) struct Isolated {
    verified: bool,
    port: GuestPort,
    bridge: String,
    /// The name of the environment's own tables.
    table: String,
    /// The wall around its port.
    wall: Table,
    /// Its network's floor, which others may sit on, too.
    floor: Table,
    /// This guest's seat there.
    seat: Seat,
    /// Whether the network is the shared one.
    shared: bool,
    changes: Changes,
}

impl Isolated {
    /// Remembers the walls as they stand. Whatever changes from then on is noticed.
    pub(super) async fn remember(
        identifier: Identifier,
        verified: bool,
        port: GuestPort,
        bridge: String,
        (seat, shared): (Seat, bool),
    ) -> Result<Self> {
        let changes = Changes::listen()?;
        let table = wall::table(identifier);
        let floor = if shared { shared::NAME } else { &table };
        Ok(Self {
            verified,
            port,
            bridge,
            wall: stands(Family::Bridge, &table).await?,
            floor: stands(Family::Inet, floor).await?,
            table,
            seat,
            shared,
            changes,
        })
    }

    fn floor_name(&self) -> &str {
        match self.shared {
            true => shared::NAME,
            false => &self.table,
        }
    }

    /// The guest's port, once there is one, is where it belongs.
    async fn check_port(&self) -> Result<()> {
        // A machine that is off has none. One that is not up carries nothing: libvirt makes a container's first, then
        // connects it, and switches it on last.
        let port = route::device(&self.port.device).await?;
        let Some(port) = port.filter(|port| port.is_up) else {
            return Ok(());
        };
        let bridge = route::device(&self.bridge).await?;
        let index = bridge.as_ref().map(|bridge| bridge.index);
        if index.is_none() || port.bridge != index {
            return Err(broken(format!(
                "the guest's port {} is not on the bridge {}",
                self.port.device, self.bridge
            )));
        }
        let mask = bridge.and_then(|bridge| bridge.group_forward);
        if mask != Some(rules::LLDP) {
            let found = mask.map_or_else(|| "unknown".to_owned(), |mask| format!("{mask:#x}"));
            return Err(broken(format!(
                "group_fwd_mask of the bridge {} is {found}, expected {:#x}",
                self.bridge,
                rules::LLDP
            )));
        }
        if self.shared && !port.is_isolated {
            return Err(broken(format!(
                "the guest's port {} is not isolated from others",
                self.port.device
            )));
        }
        Ok(())
    }
}

fn broken(what: String) -> Error {
    Error::new(ErrorKind::Isolation, what)
        .advice("somebody changed it on this host: what the run found is not to be trusted")
}

fn gone(what: &str) -> Error {
    broken(format!("the guest's firewall rules are gone: {what}"))
}

/// A table that was just made.
async fn stands(family: Family, name: &str) -> Result<Table> {
    let table = tables::table(family, name).await?;
    table.ok_or_else(|| gone(&format!("the table {name}")))
}

#[async_trait]
impl Isolation for Isolated {
    fn is_verified(&self) -> bool {
        self.verified
    }

    async fn closed(&self) -> Result<Vec<Closed>> {
        let others = shared::others(self.port.address, closed::OTHERS).await?;
        closed::list(&self.port, &others, Path::new("/proc/self/net")).await
    }

    async fn check(&self) -> Result<()> {
        self.check_port().await?;
        for (family, name, before) in [
            (Family::Bridge, self.table.as_str(), &self.wall),
            (Family::Inet, self.floor_name(), &self.floor),
        ] {
            let now = stands(family, name).await?;
            if family == Family::Inet && !now.seats.contains(&self.seat) {
                return Err(gone("its seat on the network"));
            }
            // Others come to the shared network and leave it.
            let others_sat_down = !self.shared && now.seats != before.seats;
            let changed = match others_sat_down {
                true => Some("a seat is new".to_owned()),
                false => before.difference(&now),
            };
            if let Some(found) = changed {
                return Err(broken(format!(
                    "the guest's firewall rules changed: {found}"
                )));
            }
        }
        Ok(())
    }

    async fn changed(&self) {
        let tables = [self.table.as_str(), self.floor_name()];
        if let Err(error) = self.changes.of(&tables).await {
            tracing::warn!(%error, "the kernel does not tell of changed firewall rules any more");
            // They are still looked at now and then.
            std::future::pending().await
        }
    }
}

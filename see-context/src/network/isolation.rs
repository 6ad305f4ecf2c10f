//! What a guest behind walls is kept from, and whether the walls still stand.

use std::path::Path;

use async_trait::async_trait;
use see_core::{Closed, Error, ErrorKind, Identifier, Isolation, Result};
use serde_json::Value;

use super::nft::{self, Family};
use super::rules::{self, GuestPort, Seat};
use super::{closed, netlink, shared, wall};

/// The walls around one guest, as they were built.
#[derive(Debug)]
pub(super) struct Isolated {
    verified: bool,
    port: GuestPort,
    bridge: String,
    /// The name of the environment's own tables.
    table: String,
    /// The wall, and the floor of a network of the environment's own.
    own: Vec<Value>,
    /// The shared network's floor without its seats, and this guest's seat.
    shared: Option<(Vec<Value>, Seat)>,
}

impl Isolated {
    /// Remembers the walls as they stand.
    pub(super) async fn remember(
        identifier: Identifier,
        verified: bool,
        port: GuestPort,
        bridge: String,
        seat: Option<Seat>,
    ) -> Result<Self> {
        let mut isolated = Self {
            verified,
            port,
            bridge,
            table: wall::table(identifier),
            own: Vec::new(),
            shared: None,
        };
        if let Some(seat) = seat {
            let floor = shared::floor().await?.ok_or_else(|| gone("its floor"))?;
            isolated.shared = Some((rules::without_seats(floor), seat));
        }
        isolated.own = isolated.listing().await?;
        Ok(isolated)
    }

    /// The environment's own tables.
    async fn listing(&self) -> Result<Vec<Value>> {
        let mut listing = nft::list(Family::Bridge, &self.table).await?;
        if self.shared.is_none() {
            listing.extend(nft::list(Family::Inet, &self.table).await?);
        }
        Ok(listing)
    }

    /// The guest's port, once there is one, is where it belongs.
    fn check_port(&self) -> Result<()> {
        let devices = netlink::devices()?;
        // A machine that is off has none. One that is not up carries nothing: libvirt makes a container's first, then
        // connects it, and switches it on last.
        let port = devices.get(&self.port.device);
        let Some(port) = port.filter(|port| port.is_up) else {
            return Ok(());
        };
        let bridge = devices.get(&self.bridge);
        let index = bridge.map(|bridge| bridge.index);
        if index.is_none() || port.bridge != index {
            return Err(broken(format!(
                "the guest's port {} is not on the bridge {}",
                self.port.device, self.bridge
            )));
        }
        if bridge.and_then(|bridge| bridge.group_forward) != Some(rules::LLDP) {
            return Err(broken(format!(
                "the bridge {} takes other frames of link protocols for ordinary ones than it was told to",
                self.bridge
            )));
        }
        if self.shared.is_some() && !port.is_isolated {
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

/// The first thing that is in one listing and not in the other, in words.
fn difference(before: &[Value], now: &[Value]) -> Option<String> {
    let missing = before.iter().find(|object| !now.contains(object));
    let added = now.iter().find(|object| !before.contains(object));
    let shown = |object: &Value| object.to_string().chars().take(200).collect::<String>();
    match (missing, added) {
        (None, None) if before == now => None,
        (None, None) => Some("their order changed".to_owned()),
        (Some(object), _) => Some(format!("missing is {}", shown(object))),
        (None, Some(object)) => Some(format!("new is {}", shown(object))),
    }
}

fn compare(before: &[Value], now: &[Value]) -> Result<()> {
    match difference(before, now) {
        None => Ok(()),
        Some(found) => Err(broken(format!(
            "the guest's firewall rules changed: {found}"
        ))),
    }
}

#[async_trait]
impl Isolation for Isolated {
    fn is_verified(&self) -> bool {
        self.verified
    }

    async fn closed(&self) -> Result<Vec<Closed>> {
        let others = shared::others(self.port.address, closed::OTHERS).await?;
        closed::list(&self.port, &others, Path::new("/proc/self/net"))
    }

    async fn check(&self) -> Result<()> {
        self.check_port()?;
        let now = match self.listing().await {
            Ok(now) => now,
            Err(error) if error.kind() == ErrorKind::NotFound => return Err(gone("its tables")),
            Err(error) => return Err(error),
        };
        compare(&self.own, &now)?;
        let Some((before, seat)) = &self.shared else {
            return Ok(());
        };
        let floor = shared::floor().await?.ok_or_else(|| gone("its floor"))?;
        if !rules::seats(&floor).contains(seat) {
            return Err(gone("its seat on the shared network"));
        }
        compare(before, &rules::without_seats(floor))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rules_that_changed_went_or_came_are_named() {
        let before = vec![json!({ "rule": 1 }), json!({ "rule": 2 })];
        let say = |now: Vec<Value>| difference(&before, &now);
        assert_eq!(say(before.clone()), None);
        assert!(say(vec![json!({ "rule": 1 })]).unwrap().contains("missing"));
        let more = vec![
            json!({ "rule": 1 }),
            json!({ "rule": 2 }),
            json!({ "rule": 3 }),
        ];
        assert!(say(more).unwrap().contains("new is {\"rule\":3}"));
        let turned = vec![json!({ "rule": 2 }), json!({ "rule": 1 })];
        assert!(say(turned).unwrap().contains("order"));
    }
}

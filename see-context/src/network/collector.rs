//! Removing networks.
//!
//! A network is removed only when the label in its metadata names the environment. A daemon that dies while it makes a
//! network or takes it down forgets it: then its pieces are removed, by what was written down of its bridge.

mod look;

use async_trait::async_trait;
use see_core::ledger::{CollectRequest, Collected, Collector, Looked, Resource};
use see_core::{Error, ErrorKind, Result};
use see_libvirt::{Connection, Network};

use super::{NETWORK, WALL};
use crate::error::{blocking, libvirt};
use crate::hypervisor;
use crate::label::stranger;
use crate::residue::{self, bridge, traces_of};

/// How a network went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Removal {
    /// Its daemon took it down.
    Orderly,
    /// Its daemon knows none: it went before, or the daemon died while it made it or took it down, and left pieces.
    Unknown,
}

/// Ends a network and removes its definition; one that is gone is no error.
pub(super) async fn remove(network: &Network) -> Result<Removal> {
    let removal = match network.destroy().await {
        Err(error) if error.is_no_network() => Removal::Unknown,
        Err(error) if error.is_invalid_state() => Removal::Orderly,
        other => other.map(|()| Removal::Orderly).map_err(libvirt)?,
    };
    match network.undefine().await {
        Err(error) if error.is_no_network() || error.is_invalid_state() => Ok(removal),
        other => other.map(|()| removal).map_err(libvirt),
    }
}

/// Removes the pieces of a network that its daemon does not know: one that died while it made it or took it down.
async fn forgotten_network(request: &CollectRequest) -> Result<Collected> {
    let request = request.clone();
    blocking("remove a forgotten network", move || {
        bridge::collect(&request)
    })
    .await
}

/// Removes what is left of a network after libvirt was told to remove it.
///
/// # Errors
/// When something stays that another collection has to remove.
pub(super) async fn after_network(request: &CollectRequest, removal: Removal) -> Result<()> {
    match removal {
        Removal::Orderly => {
            let request = request.clone();
            let cleared = blocking("remove a network's files", move || {
                bridge::clear_traces(&request)
            });
            residue::note(cleared.await);
            Ok(())
        }
        Removal::Unknown => match forgotten_network(request).await? {
            Collected::Refused(reason) => Err(Error::new(ErrorKind::PermissionDenied, reason)),
            Collected::Removed | Collected::AlreadyGone => Ok(()),
        },
    }
}

/// Removes the files that libvirt leaves of a network which it could not start.
pub(super) async fn after_failed_network(connection: &Connection, name: &str, bridge: &str) {
    // One that somebody else has under this name keeps its files.
    match connection.network(name).await {
        Err(error) if error.is_no_network() => {}
        _ => return,
    }
    let (location, name) = (connection.uri().to_owned(), name.to_owned());
    let bridge = bridge.to_owned();
    let cleared = blocking("remove a network's files", move || {
        match traces_of(&location) {
            Some(traces) if !bridge::has_server(&name)? => {
                traces.clear_network(&name, Some(&bridge)).map(drop)
            }
            _ => Ok(()),
        }
    });
    residue::note(cleared.await);
}

/// Removes networks of sandboxes, and what a daemon leaves of them.
#[derive(Debug)]
pub(crate) struct Networks;

#[async_trait]
impl Collector for Networks {
    fn kind(&self) -> &str {
        NETWORK
    }

    /// Its firewall.
    fn needs(&self, earlier: &Resource) -> bool {
        earlier.kind == WALL
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        let connection = hypervisor::open(request).await?;
        let network = match connection.network(&request.resource.name).await {
            Ok(network) => network,
            Err(error) if error.is_no_network() => return forgotten_network(request).await,
            Err(error) => return Err(libvirt(error)),
        };
        let text = match network.xml().await {
            Ok(text) => text,
            Err(error) if error.is_no_network() => return Ok(Collected::AlreadyGone),
            Err(error) => return Err(libvirt(error)),
        };
        if let Some(reason) = stranger(request, &text) {
            return Ok(Collected::Refused(reason));
        }
        if !request.dry_run {
            let removal = remove(&network).await?;
            after_network(request, removal).await?;
        }
        Ok(Collected::Removed)
    }

    async fn look(&self, request: &CollectRequest) -> Vec<Looked> {
        look::look(request).await
    }
}

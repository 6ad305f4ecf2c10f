//! The ledger's collectors for what this crate makes: domains, networks, firewall rules,
//! pools, and the embedded driver's roots.
//!
//! A domain or network of a daemon is removed only when the label in its metadata names the
//! environment. The embedded driver of a dead process cannot be opened here, since libvirt knows
//! one root in the life of a process: its emulator is found by the UUID on its command line, and
//! ended by itself. That of this very process is asked as a daemon is.

mod bridge;
pub(crate) mod emulator;
mod groups;
mod look;
mod places;
mod root;
mod traces;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use see_core::ledger::{CollectRequest, Collected, Collector, Looked};
use see_core::{Error, ErrorKind, Result};
use see_libvirt::xml::{Document, label_in};
use see_libvirt::{Ability, Connection};
use uuid::Uuid;

use self::traces::Traces;
use crate::allocation::DOMAIN;
use crate::driver::{Driver, Runner, is_session};
use crate::embedded::{self, ROOT};
use crate::error::{blocking, libvirt};
use crate::machine::remove_domain;
use crate::network::{self, NETWORK, Removal};
use crate::storage::pool::{self, POOL};
use crate::storage::volumes::{self, VOLUMES};

pub(crate) use self::bridge::{BRIDGE, MAC};

/// Every collector of this crate.
pub(crate) fn all() -> [Arc<dyn Collector>; 7] {
    [
        Arc::new(Domains),
        Arc::new(Networks),
        Arc::new(Pools),
        Arc::new(RemoteVolumes),
        Arc::new(Roots),
        Arc::new(network::Seats),
        Arc::new(network::Walls),
    ]
}

#[derive(Debug)]
struct Domains;

#[derive(Debug)]
struct Networks;

#[derive(Debug)]
struct Pools;

#[derive(Debug)]
struct RemoteVolumes;

#[derive(Debug)]
struct Roots;

#[async_trait]
impl Collector for Domains {
    fn kind(&self) -> &str {
        DOMAIN
    }

    /// Its disks, its network, and that network's firewall.
    fn needs_what_came_before(&self) -> bool {
        true
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        let location = &request.resource.location;
        let connection = if location.starts_with('/') {
            // What runs in this very process only libvirt may end: it would note the end in the root that is removed.
            match Connection::embedded_on(Path::new(location)) {
                Some(connection) => connection.within(time_left(request)),
                None => return forgotten(request).await,
            }
        } else {
            open(request).await?
        };
        let domain = match connection.domain_by_name(&request.resource.name).await {
            Ok(domain) => domain,
            Err(error) if error.is_no_domain() => return forgotten(request).await,
            Err(error) => return Err(libvirt(error)),
        };
        let text = match domain.xml().await {
            Ok(text) => text,
            Err(error) if error.is_no_domain() => return Ok(Collected::AlreadyGone),
            Err(error) => return Err(libvirt(error)),
        };
        let reason = if connection.may(Ability::Metadata) {
            stranger(request, &text)
        } else {
            another(request, domain.uuid())
        };
        if let Some(reason) = reason {
            return Ok(Collected::Refused(reason));
        }
        if !request.dry_run {
            let ended = remove_domain(&domain).await?;
            // Of a container whose controller died libvirt leaves the processes.
            match ended || Driver::of(location).runner == Runner::Emulator {
                true => after_domain(location, &request.resource.name).await?,
                false => drop(forgotten(request).await?),
            }
        }
        Ok(Collected::Removed)
    }

    async fn look(&self, request: &CollectRequest) -> Vec<Looked> {
        look::domain(request).await
    }
}

/// Removes the files that libvirt keeps of a domain which is gone. What stays of them costs nothing but its names.
///
/// # Errors
/// When processes of the domain live on.
pub(crate) async fn after_domain(location: &str, name: &str) -> Result<()> {
    let (location, name) = (location.to_owned(), name.to_owned());
    let cleared = blocking("remove a domain's files", move || {
        match traces_of(&location) {
            Some(traces) => traces.clear_domain(&location, &name),
            None => Ok(()),
        }
    });
    match cleared.await {
        Err(error) if error.kind() == ErrorKind::Timeout => Err(error),
        cleared => {
            note(cleared);
            Ok(())
        }
    }
}

/// The file in which libvirt keeps what it and the emulator say of a domain; `None` on another host.
pub(crate) fn log_of(location: &str, name: &str) -> Option<PathBuf> {
    let is_here = location.starts_with('/') || bridge::is_local(location);
    let folder = places::logs(location).filter(|_| is_here)?;
    Some(Path::new("/").join(folder).join(format!("{name}.log")))
}

/// The end of that file, of at most `limit` bytes; `None` where there is none.
pub(crate) fn log_tail(location: &str, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    match (Traces::of(location), places::logs(location)) {
        (Ok(traces), Some(folder)) => traces.log_tail(&folder, name, limit),
        _ => Ok(None),
    }
}

/// The number of the process that runs a domain, as libvirt noted it; `None` where it runs none.
///
/// # Errors
/// When this user may not read libvirt's notes.
pub(crate) fn pid_of(location: &str, name: &str) -> Result<Option<u32>> {
    match (Traces::of(location), places::state(location)) {
        (Ok(traces), Some(folder)) => traces.pid_in(&folder, name),
        _ => Err(Error::new(
            ErrorKind::PermissionDenied,
            "libvirt's notes of running machines are not to be read",
        )),
    }
}

/// The file system of the hypervisor at a location of the ledger's, where it is on this host and its files are this
/// user's to remove.
fn traces_of(location: &str) -> Option<Traces> {
    let is_here = location.starts_with('/') || bridge::is_local(location);
    let may = is_here && is_of_this_user(location);
    may.then(|| Traces::of(location).ok()).flatten()
}

/// Whether what a hypervisor keeps belongs to this user: everything to root, and an own daemon's to its user.
fn is_of_this_user(location: &str) -> bool {
    rustix::process::geteuid().is_root() || location.starts_with('/') || is_session(location)
}

/// Whether the hypervisor behind a URI keeps files of its domains that are known here.
fn has_files_here(location: &str) -> bool {
    Driver::of(location).has_known_files
}

/// Says what could not be cleared up.
fn note(cleared: Result<()>) {
    if let Err(error) = cleared {
        tracing::warn!(%error, "libvirt left files of its own");
    }
}

/// Ends an emulator or a container that libvirt does not know: its daemon died while it started it, or the process
/// that had the embedded driver is gone.
async fn forgotten(request: &CollectRequest) -> Result<Collected> {
    let (location, name) = (&request.resource.location, &request.resource.name);
    if location.starts_with('/') {
        // The files go with the root.
        let request = request.clone();
        return blocking("end the emulator", move || emulator::collect(&request)).await;
    }
    let ended = {
        let request = request.clone();
        blocking("end a forgotten machine", move || {
            let (location, name) = (&request.resource.location, &request.resource.name);
            // Of a container nobody else may be left to tell which processes are its own, and they may be frozen.
            let is_root = rustix::process::geteuid().is_root();
            let had_groups = match traces_of(location).filter(|_| is_root && !request.dry_run) {
                Some(traces) => traces.clear_groups(Driver::of(location).scheme, name)?,
                None => false,
            };
            match emulator::collect_forgotten(&request)? {
                Collected::AlreadyGone if had_groups => Ok(Collected::Removed),
                ended => Ok(ended),
            }
        })
        .await?
    };
    if !request.dry_run {
        after_domain(location, name).await?;
    }
    Ok(ended)
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
pub(crate) async fn after_network(request: &CollectRequest, removal: Removal) -> Result<()> {
    match removal {
        Removal::Orderly => {
            let request = request.clone();
            let cleared = blocking("remove a network's files", move || {
                bridge::clear_traces(&request)
            });
            note(cleared.await);
            Ok(())
        }
        Removal::Unknown => match forgotten_network(request).await? {
            Collected::Refused(reason) => Err(Error::new(ErrorKind::PermissionDenied, reason)),
            Collected::Removed | Collected::AlreadyGone => Ok(()),
        },
    }
}

/// Removes the files that libvirt leaves of a network which it could not start.
pub(crate) async fn after_failed_network(connection: &Connection, name: &str, bridge: &str) {
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
    note(cleared.await);
}

#[async_trait]
impl Collector for Networks {
    fn kind(&self) -> &str {
        NETWORK
    }

    /// Its firewall.
    fn needs_what_came_before(&self) -> bool {
        true
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        let connection = open(request).await?;
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
            let removal = network::remove(&network).await?;
            after_network(request, removal).await?;
        }
        Ok(Collected::Removed)
    }

    async fn look(&self, request: &CollectRequest) -> Vec<Looked> {
        look::network(request).await
    }
}

#[async_trait]
impl Collector for Pools {
    fn kind(&self) -> &str {
        POOL
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        pool::collect(request, &open(request).await?).await
    }
}

#[async_trait]
impl Collector for RemoteVolumes {
    fn kind(&self) -> &str {
        VOLUMES
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        volumes::collect(request, &open(request).await?).await
    }
}

#[async_trait]
impl Collector for Roots {
    fn kind(&self) -> &str {
        ROOT
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        let _gate = embedded::gate().await;
        let request = request.clone();
        blocking("remove the embedded driver's root", move || {
            root::collect(&request)
        })
        .await
    }

    /// Others of this process may live there, so that only what is this environment's counts.
    async fn look(&self, request: &CollectRequest) -> Vec<Looked> {
        let request = request.clone();
        let looked = blocking("look at the embedded driver's root", move || {
            Ok(root::look(&request))
        });
        vec![looked.await.unwrap_or_else(root::look_failed)]
    }
}

pub(crate) async fn open(request: &CollectRequest) -> Result<Connection> {
    let left = time_left(request);
    let connection = Connection::shared(&request.resource.location, left)
        .await
        .map_err(libvirt)?;
    Ok(connection.within(left))
}

/// What a call of libvirt's may take.
fn time_left(request: &CollectRequest) -> Duration {
    let left = request.deadline.saturating_duration_since(Instant::now());
    left.max(Duration::from_secs(1))
}

/// Why a domain or network is not the environment's; `None` when its label says that it is.
fn stranger(request: &CollectRequest, xml: &str) -> Option<String> {
    let document = match Document::parse(xml) {
        Ok(document) => document,
        Err(error) => return Some(format!("its XML cannot be read: {error}")),
    };
    match label_in(document.root()) {
        Some(label) if label == request.identifier.to_string() => None,
        Some(label) => Some(format!(
            "it is labelled as {}'s",
            label.chars().take(64).collect::<String>().escape_debug()
        )),
        None => Some("it has no label of ours".to_owned()),
    }
}

/// Why a domain that cannot be labelled is not the environment's. The UUID that was written down once it was
/// made must agree, or the one that it was to get where its maker ended in between.
fn another(request: &CollectRequest, uuid: Uuid) -> Option<String> {
    let found = uuid.to_string();
    let recorded = match &request.identity {
        Some(identity) => identity.get("uuid").and_then(|uuid| uuid.as_str()),
        None => None,
    };
    let planned = request.identifier.to_string();
    let wanted = match (&request.identity, recorded) {
        (None, _) => planned.as_str(),
        (Some(_), Some(recorded)) => recorded,
        (Some(_), None) => return Some("the ledger has no UUID to tell it by".to_owned()),
    };
    (found != wanted).then(|| format!("its UUID is {found}, and the ledger's is {wanted}"))
}

/// A deadline that passed.
pub(crate) fn late(request: &CollectRequest, what: &str) -> Error {
    Error::new(ErrorKind::Timeout, format!("{what} did not end in time"))
        .subject(&request.resource.name)
}

#[cfg(test)]
mod tests {
    use see_core::Identifier;
    use see_core::ledger::{Details, Resource};
    use see_libvirt::xml::DomainXml;

    use super::*;

    #[test]
    fn a_domain_or_network_with_another_environments_label_or_none_is_a_strangers() {
        const BARE: &str = "<domain><name>a</name><devices/></domain>";
        let identifier = Identifier::random();
        let resource = Resource::new(DOMAIN, identifier.to_string(), "qemu:///system");
        let request = CollectRequest::new(identifier, resource);
        let labelled = |label: &str| {
            let mut domain = DomainXml::parse(BARE).unwrap();
            domain.set_label(label);
            domain.to_string()
        };
        assert_eq!(stranger(&request, &labelled(&identifier.to_string())), None);
        let other = Identifier::random().to_string();
        let reason = stranger(&request, &labelled(&other)).unwrap();
        assert!(reason.contains(&other), "{reason}");
        assert!(stranger(&request, BARE).is_some());
        assert!(stranger(&request, "<domain><name>a").is_some());
    }

    #[test]
    fn a_domain_without_a_label_is_told_by_the_uuid_in_the_ledger() {
        let identifier = Identifier::random();
        let planned: Uuid = identifier.to_string().parse().unwrap();
        let stranger = Uuid::new_v4();
        let resource = Resource::new(DOMAIN, identifier.to_string(), "vbox:///session");
        let mut request = CollectRequest::new(identifier, resource);
        // Its maker ended before it could write down what it made.
        assert_eq!(another(&request, planned), None);
        assert!(another(&request, stranger).is_some());

        let recorded = Uuid::new_v4();
        let mut identity = Details::new();
        identity.insert("uuid".to_owned(), recorded.to_string().into());
        request.identity = Some(identity);
        assert_eq!(another(&request, recorded), None);
        let reason = another(&request, planned).unwrap();
        assert!(reason.contains(&recorded.to_string()), "{reason}");

        request.identity = Some(Details::new());
        assert!(another(&request, planned).is_some());
    }
}

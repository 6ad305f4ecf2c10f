//! Where machines run: a daemon by its URI, or libvirt's driver in this process.

mod remote;

use std::time::{Duration, Instant};

use see_core::config::{ConfigPath, Configuration, Located};
use see_core::ledger::{CollectRequest, Resource};
use see_core::{Allocation, Error, ErrorKind, Result};
use see_libvirt::xml::DomainXml;
use see_libvirt::{Connection, is_on_this_host};

use crate::allocation::Site;
use crate::driver::{Driver, is_session};
use crate::embedded;
use crate::error::libvirt;
use crate::host::read_xml;

/// The longest wait for a hypervisor to take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// Where machines run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Hypervisor {
    /// In this process and its children, without a daemon. QEMU only.
    Embedded,
    /// In a daemon.
    Uri(String),
}

/// What the hypervisor does to the owners of files that it hands to QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owners {
    /// Nothing: QEMU runs with this user's rights.
    Kept,
    /// QEMU runs on another account, which is given every file that is not excepted.
    Changed,
}

impl Hypervisor {
    /// Whether a daemon runs the machines: only it has networks and storage pools.
    pub(crate) fn is_daemon(&self) -> bool {
        matches!(self, Self::Uri(_))
    }

    /// What libvirt's driver for it can do.
    pub(crate) fn driver(&self) -> &'static Driver {
        match self {
            Self::Embedded => Driver::of("qemu"),
            Self::Uri(uri) => Driver::of(uri),
        }
    }

    /// Whether it is on another host, whose files and networks are not this one's.
    pub(crate) fn is_remote(&self) -> bool {
        match self {
            Self::Embedded => false,
            Self::Uri(uri) => !is_on_this_host(uri),
        }
    }

    /// Whether this process can use the sockets that QEMU makes: not those of another host, nor those of the
    /// system's daemon, which are root's.
    pub(crate) fn shares_sockets(&self) -> bool {
        let is_root = || rustix::process::geteuid().is_root();
        !self.is_remote() && (self.owners() == Owners::Kept || is_root())
    }

    /// Only the system's daemon, which is root, has another account for QEMU. The embedded
    /// driver is told not to use it.
    pub(crate) fn owners(&self) -> Owners {
        match self {
            Self::Uri(uri) if !is_session(uri) => Owners::Changed,
            _ => Owners::Kept,
        }
    }

    /// The place of an allocation on it.
    pub(crate) fn site<'a>(&self, allocation: &'a Allocation) -> Result<Site<'a>> {
        let location = match self {
            Self::Uri(uri) => uri.clone(),
            Self::Embedded => embedded::intent(allocation.identifier)?.name,
        };
        Ok(Site::new(allocation, location))
    }

    /// What [`embedded::open`] makes, where it is that.
    pub(crate) fn intents(&self, site: &Site<'_>) -> Result<Vec<Resource>> {
        match self {
            Self::Embedded => Ok(vec![embedded::intent(site.identifier)?]),
            Self::Uri(_) => Ok(Vec::new()),
        }
    }

    /// The connection to a daemon, as [`reach`]; none to the embedded driver, which is opened when something is made
    /// there.
    pub(crate) async fn check(
        &self,
        asked: Option<&Located<String>>,
        advice: &str,
    ) -> Result<Option<Connection>> {
        match self {
            Self::Embedded => Ok(None),
            Self::Uri(uri) => reach(uri, asked, advice).await.map(Some),
        }
    }
}

/// Checks that a daemon takes a connection, and gives it. `asked` is where the configuration names it.
pub(crate) async fn reach(
    uri: &str,
    asked: Option<&Located<String>>,
    advice: &str,
) -> Result<Connection> {
    remote::refuse_password(uri).map_err(|error| match asked {
        Some(asked) => error.at(asked.place().clone()),
        None => error,
    })?;
    let connection = Connection::shared(uri, CONNECT_LIMIT).await;
    connection.map_err(|error| {
        let remote = remote::advice(uri, &error);
        unreachable(libvirt(error), asked, remote.as_deref(), advice)
    })
}

/// The type in the domain's XML that a context names; `None` where there is none to be read, which whoever
/// takes the context tells.
pub(crate) fn written_type(context: &Configuration) -> Option<String> {
    let path = context.get("domain")?.get("configuration")?;
    let path: ConfigPath = path.deserialize().ok()?;
    let bytes = read_xml(&path, "a libvirt domain XML").ok()?;
    DomainXml::parse_bytes(&bytes).ok()?.hypervisor_type()
}

/// Refuses limits that were asked for where nobody could tell that they are reached.
pub(crate) fn refuse_limits(
    limits: Option<&Configuration>,
    keys: &[&str],
    why: &str,
) -> Result<()> {
    let asked = keys.iter().find_map(|key| Some((key, limits?.get(key)?)));
    match asked {
        None => Ok(()),
        Some((key, limit)) => Err(Error::configuration(
            limit.place(),
            format!("the limit `{key}` cannot be kept, {why}"),
        )
        .advice("leave it out")),
    }
}

fn unreachable(
    error: Error,
    asked: Option<&Located<String>>,
    remote: Option<&str>,
    advice: &str,
) -> Error {
    let kind = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::Timeout => error.kind(),
        _ => ErrorKind::Configuration,
    };
    let advice = match (remote, kind) {
        (Some(advice), _) => advice,
        (None, ErrorKind::PermissionDenied) => {
            "this user may not use it: join the group `libvirt`, or use `embedded`"
        }
        (None, _) => advice,
    };
    let text = Error::new(kind, "there is no such hypervisor, or it does not answer")
        .advice(advice)
        .caused_by(error);
    match asked {
        Some(uri) => text.subject(uri).at(uri.place().clone()),
        None => text,
    }
}

/// The connection to the hypervisor that a resource is on, for its collector.
pub(crate) async fn open(request: &CollectRequest) -> Result<Connection> {
    let left = time_left(request);
    let connection = Connection::shared_already(&request.resource.location, left)
        .await
        .map_err(libvirt)?;
    Ok(connection.within(left))
}

/// What a call of libvirt's may take.
pub(crate) fn time_left(request: &CollectRequest) -> Duration {
    let left = request.deadline.saturating_duration_since(Instant::now());
    left.max(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use see_core::ledger::Ledger;
    use see_core::{Identifier, Stop};

    use super::*;

    #[tokio::test]
    async fn a_folder_that_has_the_name_of_the_embedded_drivers_root_stops_the_allocation_and_stays()
     {
        let ledger = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(ledger.path().join("ledger")).await.unwrap();
        let identifier = Identifier::random();
        let path = PathBuf::from(embedded::intent(identifier).unwrap().name);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("thesis"), "a stranger's").unwrap();
        let stop = Stop::new();
        let record = ledger.begin(identifier, "test").await.unwrap();
        let allocation = Allocation::new(record, stop.token());
        let site = Hypervisor::Embedded.site(&allocation).unwrap();
        let planned = Hypervisor::Embedded.intents(&site).unwrap();
        let [entries] = site.intend([planned]).await.unwrap();
        let refused = embedded::open(entries, &site).await;
        let refused = refused.unwrap_err();
        let kept = fs::read_to_string(path.join("thesis"));
        fs::remove_dir_all(&path).unwrap();
        assert_eq!(kept.unwrap(), "a stranger's");
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused:?}");
        assert!(allocation.record.holdings().is_empty());
        // The next one of this process tries another name.
        let next = embedded::intent(Identifier::random()).unwrap().name;
        assert_ne!(PathBuf::from(next), path);
    }
}

//! Making a sandbox of parts.
//!
//! A backend reads its configuration and lists what its machines consist of: a disk, a network, a channel to
//! the agent. Each is a [`Part`] in a module of its own, which says what it will make, makes it and fills in the
//! domain's XML. [`allocate`] writes all of it down at once, lets the parts work in their order, defines the domain,
//! and gives out a [`Machine`]. What was made, also where a step fails, the collectors of its kinds remove.

mod definition;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use see_core::config::Place;
use see_core::ledger::{Entry, Resource};
use see_core::{
    Allocation, Error, ErrorKind, GuestChannel, Identifier, Isolation, Result, Sandbox, StopToken,
};
use see_libvirt::Connection;
use see_libvirt::xml::DomainXml;
use tokio::task::AbortHandle;

use self::definition::Definition;
use crate::driver::Driver;
use crate::hypervisor::Hypervisor;
use crate::machine::{Machine, Made, Native, Source};
use crate::network::Lender;

pub(crate) use self::definition::DOMAIN;

/// One thing that a sandbox consists of.
#[async_trait]
pub(crate) trait Part: fmt::Debug + Send + Sync {
    /// Everything that [`make`](Self::make) makes on the host, in the order of making. Nothing is made yet.
    fn intents(&self, site: &Site) -> Result<Vec<Resource>>;

    /// Makes it, and fills in the domain's XML.
    ///
    /// `entries` are those of the intents, in their order. Where this fails, their collectors find out what is there;
    /// where nothing can be, [`refused`] strikes an entry off.
    async fn make(&self, entries: Entries, making: &mut Making<'_>) -> Result<()>;
}

/// Where an allocation takes place.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// The environment, which everything is named after.
    pub(crate) identifier: Identifier,
    /// What finds the hypervisor again: its URI, or the embedded driver's folder.
    pub(crate) hypervisor: String,
}

/// The ledger's entries for one part, in the order of its intents.
#[derive(Debug)]
pub(crate) struct Entries(std::vec::IntoIter<Entry>);

impl Entries {
    /// All that are left.
    pub(crate) fn rest(self) -> impl Iterator<Item = Entry> {
        self.0
    }

    /// The next one.
    pub(crate) fn next(&mut self) -> Result<Entry> {
        self.0.next().ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "a part makes more than it meant to make",
            )
        })
    }
}

/// What a backend's machines are made of.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    /// What libvirt's driver can do.
    pub(crate) driver: &'static Driver,
    /// Where they run.
    pub(crate) hypervisor: &'a Hypervisor,
    /// The domain, before the parts fill it in.
    pub(crate) domain: DomainXml,
    /// Where the user asked for this domain; none for a built-in one.
    pub(crate) domain_at: Option<Place>,
    /// What they consist of, in the order of making: each may use what those before it made.
    pub(crate) parts: Vec<Box<dyn Part>>,
}

/// An allocation under way.
#[derive(Debug)]
pub(crate) struct Making<'a> {
    /// The environment, which everything is named after.
    pub(crate) identifier: Identifier,
    /// Looked at between long steps.
    pub(crate) stop: &'a StopToken,
    /// The domain so far.
    pub(crate) domain: DomainXml,
    /// What the sandbox is able to do.
    pub(crate) abilities: Abilities,
    /// What finds the hypervisor again.
    location: String,
    connection: Option<Connection>,
    run_folder: Option<PathBuf>,
    owner: Option<(u32, u32)>,
    native: Option<Native>,
}

/// What the parts of a sandbox make it able to do.
#[derive(Default)]
pub(crate) struct Abilities {
    /// The way to the agent that needs no network.
    pub(crate) channel: Option<Arc<dyn GuestChannel>>,
    /// The file that the guest's console is written to.
    pub(crate) console: Option<PathBuf>,
    /// The files and folders of this host that grow as the guest writes.
    pub(crate) disks: Vec<PathBuf>,
    /// The volumes of another host that grow as the guest writes.
    pub(crate) volumes: Vec<see_libvirt::Volume>,
    /// Who lends it its address, where that is not found out by its domain.
    pub(crate) lender: Option<Lender>,
    /// Whether its address comes from a DHCP server on this host.
    pub(crate) has_dhcp_here: bool,
    /// The walls around its network.
    pub(crate) isolation: Option<Arc<dyn Isolation>>,
    /// Paths that the hypervisor opens, for advice when it is refused.
    pub(crate) opened: Vec<PathBuf>,
    /// What goes on as long as there is the sandbox, or its allocation.
    pub(crate) tasks: Vec<Task>,
}

/// A task that ends with its owner, whatever becomes of that.
#[derive(Debug)]
pub(crate) struct Task(AbortHandle);

impl Task {
    /// Begins it. Needs a tokio runtime.
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Abilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Abilities")
            .field("channel", &self.channel.is_some())
            .field("console", &self.console)
            .field("disks", &self.disks)
            .field("volumes", &self.volumes)
            .field("lender", &self.lender)
            .field("isolation", &self.isolation.is_some())
            .finish_non_exhaustive()
    }
}

impl Making<'_> {
    /// The connection to the hypervisor.
    pub(crate) fn connection(&self) -> Result<&Connection> {
        self.connection
            .as_ref()
            .ok_or_else(|| out_of_order("the connection"))
    }

    /// The hypervisor was reached.
    pub(crate) fn connected(&mut self, connection: Connection) {
        self.connection = Some(connection);
    }

    /// The folder for small things, such as sockets: short, and closed to other users.
    pub(crate) fn run_folder(&self) -> Result<&Path> {
        self.run_folder
            .as_deref()
            .ok_or_else(|| out_of_order("the run folder"))
    }

    /// The folder for small things is there.
    pub(crate) fn runs_in(&mut self, folder: PathBuf) {
        self.run_folder = Some(folder);
    }

    /// The user and group of the host that what the guest owns belongs to.
    pub(crate) fn owner(&self) -> Result<(u32, u32)> {
        self.owner.ok_or_else(|| out_of_order("the guest's users"))
    }

    /// What the guest owns belongs to this user and group of the host.
    pub(crate) fn owned_by(&mut self, owner: (u32, u32)) {
        self.owner = Some(owner);
    }

    /// Makes the folder of an entry.
    pub(crate) async fn make_folder(&self, entry: Entry) -> Result<PathBuf> {
        match entry.create_folder().await {
            Ok(folder) => Ok(folder),
            // Somebody else's.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(refused(entry, error).await)
            }
            Err(error) => Err(error),
        }
    }
}

fn out_of_order(what: &str) -> Error {
    Error::new(
        ErrorKind::Internal,
        format!("a part needs {what}, and comes before it"),
    )
}

/// Strikes an entry off whose thing was refused, so that a stranger of the same name is left alone. Where the
/// answer may have been lost, the entry is left to its collector.
pub(crate) async fn refused(entry: Entry, error: Error) -> Error {
    let unknown = matches!(
        error.kind(),
        ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Internal
    );
    if !unknown && let Err(error) = entry.gone().await {
        tracing::warn!(%error, "the ledger keeps something that was never made");
    }
    error
}

/// Makes a whole sandbox.
pub(crate) async fn allocate(plan: Plan<'_>, allocation: &Allocation) -> Result<Arc<dyn Sandbox>> {
    allocation.stop.check("allocate")?;
    let site = Site {
        identifier: allocation.identifier,
        hypervisor: plan.hypervisor.location(allocation.identifier)?,
    };
    let definition = Definition {
        asked_at: plan.domain_at,
    };
    let parts: Vec<&dyn Part> = std::iter::once(plan.hypervisor as &dyn Part)
        .chain(plan.parts.iter().map(|part| &**part))
        .chain(std::iter::once(&definition as &dyn Part))
        .collect();

    // One write for everything whose name is known beforehand, which is everything.
    let mut counts = Vec::new();
    let mut planned = Vec::new();
    for part in &parts {
        let intents = part.intents(&site)?;
        counts.push(intents.len());
        planned.extend(intents);
    }
    let mut entries = allocation.record.intend(planned).await?.into_iter();

    let mut making = Making {
        identifier: allocation.identifier,
        stop: &allocation.stop,
        domain: plan.domain,
        abilities: Abilities::default(),
        location: site.hypervisor,
        connection: None,
        run_folder: None,
        owner: None,
        native: None,
    };
    for (part, count) in parts.into_iter().zip(counts) {
        let own: Vec<Entry> = entries.by_ref().take(count).collect();
        part.make(Entries(own.into_iter()), &mut making).await?;
    }
    Ok(Arc::new(making.finish(plan.driver).await?))
}

impl Making<'_> {
    async fn finish(self, driver: &'static Driver) -> Result<Machine> {
        let native = self.native.ok_or_else(|| out_of_order("the domain"))?;
        Ok(Machine::new(Made {
            identifier: self.identifier,
            driver,
            changes: Source::of(&native).await?,
            native,
            location: self.location,
            has_network: !self.domain.interfaces().is_empty(),
            abilities: self.abilities,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_goes_on_beside_an_allocation_ends_with_it_where_it_fails() {
        let (held, ended) = tokio::sync::oneshot::channel::<()>();
        let mut abilities = Abilities::default();
        abilities.tasks.push(Task::spawn(async move {
            let _held = held;
            std::future::pending().await
        }));
        drop(abilities);
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        assert!(ended.expect("the task has ended").is_err());
    }
}

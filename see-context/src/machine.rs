//! A machine that is a libvirt domain: what QEMU, LXC and VirtualBox have in common.

mod abilities;
mod container;
mod orders;
mod usage;
mod watch;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use see_core::config::Place;
use see_core::ledger::Entry;
use see_core::{
    Address, Console, Error, GuestChannel, HypervisorLog, Isolation, Meter, Picture, Result,
    SandboxState, Screenshot,
};
use see_libvirt::xml::{Document, DomainXml};
use see_libvirt::{Connection, Domain, DomainState, DomainStatus};

pub(crate) use self::abilities::{Abilities, Task};
use self::container::Container;
use self::usage::Gauge;
use self::watch::{Source, Watch};
use crate::allocation::Site;
use crate::domain;
use crate::driver::{Driver, Runner};
use crate::error::{blocking, libvirt};
use crate::host::first_closed;
use crate::network::why_no_lease;
use crate::residue;

/// The largest picture that is taken of a screen.
const LARGEST_PICTURE: usize = 64 << 20;

/// libvirt's objects behind a machine: what [`native`](see_core::Driver::native) gives for every backend here.
#[derive(Debug, Clone)]
pub struct Native {
    /// The connection to the hypervisor.
    pub connection: Connection,
    /// The domain.
    pub domain: Domain,
}

/// The driver of a machine that is a libvirt domain.
#[derive(Debug)]
pub(crate) struct Machine {
    driver: &'static Driver,
    native: Native,
    /// Where the machine restarts by libvirt's help, and that has to be seen to.
    container: Option<Arc<Container>>,
    watch: Watch,
    gauge: Arc<Gauge>,
    has_network: bool,
    abilities: Abilities,
    console: Option<ConsoleLog>,
    log: Option<DomainLog>,
}

/// A machine that only has to be defined: everything that it uses is there.
#[derive(Debug)]
pub(crate) struct Complete<'a> {
    /// What libvirt's driver can do.
    pub(crate) driver: &'static Driver,
    pub(crate) connection: Connection,
    /// The domain, filled in.
    pub(crate) domain: DomainXml,
    /// Where the user asked for this domain; none for a built-in one.
    pub(crate) asked_at: Option<&'a Place>,
    pub(crate) abilities: Abilities,
}

#[derive(Debug)]
struct ConsoleLog(PathBuf);

impl Console for ConsoleLog {
    fn log(&self) -> &Path {
        &self.0
    }
}

/// What libvirt and the emulator say of the machine.
#[derive(Debug)]
struct DomainLog {
    location: String,
    name: String,
    path: PathBuf,
}

#[async_trait]
impl HypervisorLog for DomainLog {
    fn path(&self) -> &Path {
        &self.path
    }

    async fn tail(&self, limit: u64) -> Result<Option<Vec<u8>>> {
        let (location, name) = (self.location.clone(), self.name.clone());
        blocking("read the hypervisor's log", move || {
            residue::log_tail(&location, &name, limit)
        })
        .await
    }
}

impl Machine {
    /// Defines the domain, and takes it over. Needs a tokio runtime, on which its events are read.
    pub(crate) async fn define(
        complete: Complete<'_>,
        entries: Vec<Entry>,
        site: Site<'_>,
    ) -> Result<Box<dyn see_core::Driver>> {
        let Complete {
            driver,
            connection,
            domain: xml,
            asked_at,
            abilities,
        } = complete;
        let domain = domain::define(&xml, entries, &connection, (&site, asked_at)).await?;
        let native = Native { connection, domain };
        let location = site.location;
        let source = Source::of(&native).await?;
        let is_container = driver.runner == Runner::Controller;
        let container = is_container.then(|| Arc::new(Container::new(native.domain.clone())));
        let name = native.domain.name().to_owned();
        let gauge = Arc::new(Gauge::new(&native, &location));
        let log = residue::log_of(&location, &name);
        Ok(Box::new(Self {
            log: log.map(|path| DomainLog {
                location,
                name,
                path,
            }),
            driver,
            gauge,
            native,
            watch: Watch::start(source, site.changes.clone(), container.clone()),
            container,
            has_network: !xml.interfaces().is_empty(),
            console: abilities.console.clone().map(ConsoleLog),
            abilities,
        }))
    }

    /// What an action came to; where changes are asked for, they are asked for now.
    fn told(&self, operation: &'static str, done: Result<(), see_libvirt::Error>) -> Result<()> {
        self.watch.look();
        done.map_err(|error| libvirt(error).during(operation))
    }

    /// Says which path keeps the emulator out, where that is why it did not start.
    fn advise(&self, error: Error) -> Error {
        let text = error.chain();
        if !text.contains("Permission denied") {
            return error;
        }
        let culprit = self.abilities.opened.iter().find(|path| {
            let name = path.to_string_lossy();
            text.contains(&*name)
        });
        match culprit.and_then(|path| first_closed(path)) {
            Some(closed) => error.advice(format!(
                "the hypervisor runs QEMU on another account, which must be let through {}",
                closed.display()
            )),
            None => error,
        }
    }
}

/// Whether the hypervisor keeps what is left of a machine that crashed, as its XML may ask for.
async fn stays_crashed(domain: &Domain) -> Result<bool> {
    let xml = domain.xml().await.map_err(libvirt)?;
    let on_crash = Document::parse(&xml).ok();
    let on_crash = on_crash.and_then(|xml| Some(xml.root().child("on_crash")?.text()));
    Ok(on_crash.is_some_and(|action| action == "preserve"))
}

/// Cuts the power; whether there was any.
async fn end(domain: &Domain) -> Result<bool, see_libvirt::Error> {
    match domain.destroy().await {
        Ok(()) => Ok(true),
        // Not every driver tells by its error that there was nothing to end.
        Err(error) if !domain.is_active().await.unwrap_or(true) => {
            tracing::debug!(%error, "the machine is off already");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[async_trait]
impl see_core::Driver for Machine {
    async fn state(&self) -> Result<SandboxState> {
        let domain = &self.native.domain;
        let status = domain.status().await.map_err(libvirt)?;
        match state_of(status) {
            // libvirt tells a crash before it ends the hypervisor's process; until then nothing can be started.
            SandboxState::Crashed
                if domain.is_active().await.map_err(libvirt)? && !stays_crashed(domain).await? =>
            {
                Ok(SandboxState::ShuttingDown)
            }
            state => Ok(state),
        }
    }

    async fn start(&self) -> Result<()> {
        let (domain, orders) = (&self.native.domain, self.watch.orders());
        let started = match &self.container {
            Some(container) => container.start(&orders).await,
            None => container::start_once(domain, &orders).await,
        };
        let started = self.told("start", started);
        started.map_err(|error| self.advise(error))
    }

    async fn destroy(&self) -> Result<()> {
        let orders = self.watch.orders();
        let ended = match &self.container {
            Some(container) => container.end(&orders).await,
            None => {
                orders.cut();
                end(&self.native.domain).await.map(drop)
            }
        };
        self.told("destroy", ended)
    }

    async fn suspend(&self) -> Result<()> {
        self.told("suspend", self.native.domain.suspend().await)
    }

    async fn resume(&self) -> Result<()> {
        self.told("resume", self.native.domain.resume().await)
    }

    async fn shutdown(&self) -> Result<()> {
        let asked = self.native.domain.shutdown(self.driver.shutdown).await;
        self.told("shutdown", asked)
    }

    async fn reboot(&self) -> Result<()> {
        let asked = self.native.domain.reboot(self.driver.reboot).await;
        self.told("reboot", asked)
    }

    async fn addresses(&self) -> Result<Vec<Address>> {
        if !self.has_network {
            return Ok(Vec::new());
        }
        if let Some(lender) = &self.abilities.network.lender {
            return lender.addresses().await;
        }
        let found = match self.native.domain.interface_addresses().await {
            Ok(found) => found,
            // A domain that does not run has no interfaces yet.
            Err(error) if error.is_invalid_state() => return Ok(Vec::new()),
            Err(error) => return Err(libvirt(error)),
        };
        Ok(found
            .into_iter()
            .filter_map(|interface| Some((interface.mac?, interface.addresses)))
            .flat_map(|(mac, addresses)| {
                addresses.into_iter().map(move |(ip, _)| Address {
                    mac: mac.clone(),
                    ip,
                })
            })
            .collect())
    }

    async fn why_no_address(&self) -> Option<String> {
        match self.abilities.network.has_dhcp_here {
            true => why_no_lease().await,
            false => None,
        }
    }

    fn has_network(&self) -> bool {
        self.has_network
    }

    async fn release(&self) -> Result<()> {
        // The watch's task may be starting it again: that is not cut off, but ends by itself.
        if let Some(container) = &self.container {
            container.release().await;
        }
        self.watch.end();
        for task in &self.abilities.tasks {
            task.end();
        }
        Ok(())
    }

    fn screenshot(&self) -> Option<&dyn Screenshot> {
        self.driver.has_screen.then_some(self as _)
    }

    fn guest_channel(&self) -> Option<&dyn GuestChannel> {
        self.abilities.channel.as_deref()
    }

    fn disks(&self) -> Vec<PathBuf> {
        self.abilities.disks.clone()
    }

    fn isolation(&self) -> Option<&dyn Isolation> {
        self.abilities.network.isolation.as_deref()
    }

    fn meter(&self) -> Option<&dyn Meter> {
        Some(self)
    }

    fn console(&self) -> Option<&dyn Console> {
        self.console.as_ref().map(|console| console as _)
    }

    fn hypervisor_log(&self) -> Option<&dyn HypervisorLog> {
        self.log.as_ref().map(|log| log as _)
    }

    fn native(&self) -> Option<&dyn Any> {
        Some(&self.native)
    }
}

#[async_trait]
impl Screenshot for Machine {
    async fn take(&self) -> Result<Picture> {
        let taken = self.native.domain.screenshot(0, LARGEST_PICTURE).await;
        let picture = taken.map_err(|error| libvirt(error).during("take a screenshot"))?;
        Ok(Picture {
            mime_type: picture.mime_type,
            bytes: picture.bytes,
        })
    }
}

/// libvirt's state in the framework's words.
fn state_of(status: DomainStatus) -> SandboxState {
    match status.state {
        _ if status.hypervisor_crashed() => SandboxState::Crashed,
        DomainState::Running | DomainState::Blocked => SandboxState::Running,
        DomainState::Paused => SandboxState::Paused,
        DomainState::Shutdown => SandboxState::ShuttingDown,
        DomainState::Crashed => SandboxState::Crashed,
        DomainState::PmSuspended => SandboxState::Suspended,
        // Without a state there is no guest.
        _ => SandboxState::Shutoff,
    }
}

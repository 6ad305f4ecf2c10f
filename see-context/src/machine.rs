//! A sandbox that is a libvirt domain: what QEMU, LXC and VirtualBox have in common.

mod channel;
mod watch;

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use see_core::ledger::{Collectors, Entry};
use see_core::{
    Address, Console, Error, ErrorKind, GuestChannel, Identifier, Picture, Result, Sandbox,
    SandboxChange, SandboxState, Screenshot,
};
use see_libvirt::{AddressSource, Connection, Domain, DomainState, ShutdownMode, StartOptions};
use tokio::sync::{Mutex, mpsc};

use crate::error::libvirt;

pub(crate) use self::channel::Channel;
use self::watch::Watch;

/// The largest picture that is taken of a screen.
const LARGEST_PICTURE: usize = 64 << 20;
/// The time for removing one thing.
const REMOVAL: Duration = Duration::from_secs(30);

/// libvirt's objects behind a sandbox: what [`Sandbox::native`] gives for every backend here.
#[derive(Debug, Clone)]
pub struct Native {
    /// The connection to the hypervisor.
    pub connection: Connection,
    /// The domain.
    pub domain: Domain,
}

/// A sandbox that is a libvirt domain.
#[derive(Debug)]
pub(crate) struct Machine {
    identifier: Identifier,
    native: Native,
    /// The machine's power is changed by one command at a time. The work itself holds the lock.
    commands: Arc<Mutex<()>>,
    watch: Watch,
    channel: Option<Channel>,
    console: Option<ConsoleLog>,
    has_network: bool,
    /// Paths that the emulator opens, for advice when it is refused. The first is the sandbox's own disk.
    opened: Vec<PathBuf>,
    holdings: Mutex<Holdings>,
}

/// What was made for a sandbox and is written down, in the order of making.
#[derive(Debug, Default)]
pub(crate) struct Holdings {
    pub(crate) domain: Option<Entry>,
    pub(crate) network: Option<(see_libvirt::Network, Entry)>,
    pub(crate) pool: Option<(see_libvirt::StoragePool, Entry)>,
    /// Files, folders and whatever else its collector removes by itself.
    pub(crate) others: Vec<Entry>,
    /// The embedded driver's root, which the last sandbox of the process removes.
    pub(crate) root: Option<(PathBuf, Entry)>,
}

/// What a machine is made of, once its domain is defined.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) identifier: Identifier,
    pub(crate) native: Native,
    pub(crate) events: see_libvirt::DomainEvents,
    pub(crate) channel: Option<Channel>,
    pub(crate) console: Option<PathBuf>,
    pub(crate) has_network: bool,
    pub(crate) opened: Vec<PathBuf>,
    pub(crate) holdings: Holdings,
}

#[derive(Debug)]
struct ConsoleLog(PathBuf);

impl Console for ConsoleLog {
    fn log(&self) -> &Path {
        &self.0
    }
}

impl Machine {
    /// Takes over a defined domain. Needs a tokio runtime, on which its events are read.
    pub(crate) fn new(parts: Parts) -> Self {
        Self {
            identifier: parts.identifier,
            native: parts.native,
            commands: Arc::default(),
            watch: Watch::start(parts.events),
            channel: parts.channel,
            console: parts.console.map(ConsoleLog),
            has_network: parts.has_network,
            opened: parts.opened,
            holdings: Mutex::new(parts.holdings),
        }
    }

    /// Runs a command behind those that were given before; it ends even when this future is
    /// dropped.
    async fn command<F, Fut>(&self, operation: &'static str, command: F) -> Result<()>
    where
        F: FnOnce(Domain) -> Fut + Send + 'static,
        Fut: Future<Output = Result<(), see_libvirt::Error>> + Send,
    {
        let (commands, domain) = (Arc::clone(&self.commands), self.native.domain.clone());
        let work = tokio::spawn(async move {
            let _turn = commands.lock().await;
            command(domain).await
        });
        match work.await {
            Ok(done) => done.map_err(|error| libvirt(error).during(operation)),
            Err(error) => Err(Error::new(ErrorKind::Internal, "the command was cut off")
                .during(operation)
                .caused_by(error)),
        }
    }

    /// Says which path keeps the emulator out, where that is why it did not start.
    fn advise(&self, error: Error) -> Error {
        let text = error.chain();
        if !text.contains("Permission denied") {
            return error;
        }
        let culprit = self.opened.iter().find(|path| {
            let name = path.to_string_lossy();
            text.contains(&*name)
        });
        match culprit.and_then(|path| crate::storage::first_closed(path)) {
            Some(closed) => error.advice(format!(
                "the hypervisor runs QEMU on another account, which must be let through {}",
                closed.display()
            )),
            None => error,
        }
    }
}

/// Ends a domain and removes its definition; one that is gone is no error.
pub(crate) async fn remove_domain(domain: &Domain) -> Result<()> {
    let gone = |result: Result<(), see_libvirt::Error>| match result {
        Err(error) if error.is_no_domain() || error.is_invalid_state() => Ok(()),
        other => other.map_err(libvirt),
    };
    gone(domain.destroy().await)?;
    match domain.undefine().await {
        // A transient domain went with its run.
        Err(error) if error.is_invalid_state() || error.is_no_domain() => Ok(()),
        other => other.map_err(libvirt),
    }
}

/// Ends a network and removes its definition; one that is gone is no error.
pub(crate) async fn remove_network(network: &see_libvirt::Network) -> Result<()> {
    match network.destroy().await {
        Err(error) if error.is_no_network() || error.is_invalid_state() => {}
        other => other.map_err(libvirt)?,
    }
    match network.undefine().await {
        Err(error) if error.is_no_network() || error.is_invalid_state() => Ok(()),
        other => other.map_err(libvirt),
    }
}

impl Holdings {
    /// Removes everything but the domain itself. What is removed is forgotten, so that another
    /// call goes on where this one stopped.
    pub(crate) async fn remove(&mut self) -> Result<()> {
        let mut first = None;
        if let Some((network, entry)) = self.network.take() {
            match remove_network(&network).await {
                Ok(()) => note(&mut first, entry.gone().await),
                Err(error) => {
                    note(&mut first, Err(error.subject(network.name())));
                    self.network = Some((network, entry));
                }
            }
        }
        if let Some((pool, entry)) = self.pool.take() {
            match crate::storage::pool::remove(&pool).await {
                Ok(()) => note(&mut first, entry.gone().await),
                Err(error) => {
                    note(&mut first, Err(error.subject(pool.name())));
                    self.pool = Some((pool, entry));
                }
            }
        }
        let core = Collectors::core();
        while let Some(entry) = self.others.pop() {
            note(&mut first, entry.remove(&core, REMOVAL).await);
        }
        if let Some((path, entry)) = self.root.take() {
            note(&mut first, crate::embedded::leave(entry, &path).await);
        }
        first.map_or(Ok(()), Err)
    }
}

/// Keeps the first error; later ones are often its consequences.
fn note(first: &mut Option<Error>, result: Result<()>) {
    if let Err(error) = result {
        match first {
            None => *first = Some(error),
            Some(_) => tracing::warn!(%error, "something else could not be removed either"),
        }
    }
}

#[async_trait]
impl Sandbox for Machine {
    fn identifier(&self) -> Identifier {
        self.identifier
    }

    async fn state(&self) -> Result<SandboxState> {
        let status = self.native.domain.status().await.map_err(libvirt)?;
        Ok(state_of(status.state))
    }

    async fn start(&self) -> Result<()> {
        let started = self
            .command("start", |domain| async move {
                domain.start(StartOptions::default()).await
            })
            .await;
        started.map_err(|error| self.advise(error))
    }

    async fn destroy(&self) -> Result<()> {
        self.command("destroy", |domain| async move {
            match domain.destroy().await {
                Err(error) if error.is_invalid_state() => Ok(()),
                other => other,
            }
        })
        .await
    }

    async fn suspend(&self) -> Result<()> {
        self.command("suspend", |domain| async move { domain.suspend().await })
            .await
    }

    async fn resume(&self) -> Result<()> {
        self.command("resume", |domain| async move { domain.resume().await })
            .await
    }

    async fn shutdown(&self) -> Result<()> {
        self.command("shutdown", |domain| async move {
            domain.shutdown(ShutdownMode::Acpi).await
        })
        .await
    }

    async fn reboot(&self) -> Result<()> {
        self.command("reboot", |domain| async move {
            domain.reboot(ShutdownMode::Acpi).await
        })
        .await
    }

    async fn addresses(&self) -> Result<Vec<Address>> {
        if !self.has_network {
            return Ok(Vec::new());
        }
        let found = match self
            .native
            .domain
            .interface_addresses(AddressSource::Lease)
            .await
        {
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

    fn has_network(&self) -> bool {
        self.has_network
    }

    fn watch(&self) -> mpsc::Receiver<SandboxChange> {
        self.watch.subscribe()
    }

    async fn release(&self) -> Result<()> {
        let mut holdings = self.holdings.lock().await;
        // A command under way ends first; no later one finds a domain.
        let _turn = self.commands.lock().await;
        if let Some(entry) = holdings.domain.take() {
            if let Err(error) = remove_domain(&self.native.domain).await {
                holdings.domain = Some(entry);
                return Err(error.during("release"));
            }
            entry.gone().await?;
        }
        self.watch.end();
        holdings
            .remove()
            .await
            .map_err(|error| error.during("release"))
    }

    fn screenshot(&self) -> Option<&dyn Screenshot> {
        Some(self)
    }

    fn guest_channel(&self) -> Option<&dyn GuestChannel> {
        self.channel.as_ref().map(|channel| channel as _)
    }

    fn disks(&self) -> Vec<PathBuf> {
        self.opened.first().cloned().into_iter().collect()
    }

    fn console(&self) -> Option<&dyn Console> {
        self.console.as_ref().map(|console| console as _)
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
pub(crate) fn state_of(state: DomainState) -> SandboxState {
    match state {
        DomainState::Running | DomainState::Blocked => SandboxState::Running,
        DomainState::Paused => SandboxState::Paused,
        DomainState::Shutdown => SandboxState::ShuttingDown,
        DomainState::Crashed => SandboxState::Crashed,
        DomainState::PmSuspended => SandboxState::Suspended,
        // Without a state there is no guest.
        _ => SandboxState::Shutoff,
    }
}

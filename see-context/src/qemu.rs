//! QEMU: whole machines, over libvirt's embedded driver or its daemon.

mod configuration;
mod domain;
mod template;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use see_core::config::Configuration;
use see_core::ledger::{Details, Entry, Resource};
use see_core::{
    AgentTransport, Allocation, Backend, Error, ErrorKind, Identifier, ImageSource, Preparation,
    Result, Sandbox,
};
use see_libvirt::xml::DomainXml;
use see_libvirt::{Connection, Domain};

use crate::embedded;
use crate::error::libvirt;
use crate::host::{has_program, short_folder};
use crate::machine::{Channel, Holdings, Machine, Native, Parts, remove_domain};
use crate::network::{self, NetworkPlan};
use crate::storage::{self, Owners, Storage};

pub use self::configuration::{
    Acceleration, Clone, Disk, DomainSection, Network, QemuConfiguration,
};
use self::configuration::{Hypervisor, recognises};

/// The kind of the ledger's entries for a domain.
pub(crate) const DOMAIN: &str = "libvirt.domain";

/// The longest wait for a hypervisor to take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// The emulator that the built-in template runs.
const EMULATOR: &str = "qemu-system-x86_64";

/// The backend `qemu`.
///
/// [`Sandbox::native`] gives a [`Native`](crate::Native).
#[derive(Debug)]
pub struct Qemu {
    hypervisor: Hypervisor,
    domain: DomainXml,
    image: ImageSource,
    storage: Storage,
    network: NetworkPlan,
    agent: AgentTransport,
}

#[async_trait]
impl Backend for Qemu {
    const NAME: &'static str = "qemu";
    const ALIASES: &'static [&'static str] = &[
        "see.resources.qemu.QEMUResources",
        "see.context.resources.qemu.QEMUResources",
    ];
    type Configuration = QemuConfiguration;

    fn recognises(context: &Configuration) -> bool {
        recognises(context)
    }

    async fn prepare(
        configuration: QemuConfiguration,
        preparation: &Preparation<'_>,
    ) -> Result<Self> {
        let hypervisor = configuration.hypervisor()?;
        let image = preparation.image(&configuration.disk.image)?;
        let daemon = hypervisor.is_daemon();
        let network = match configuration.network {
            None => NetworkPlan::AsWritten,
            Some(ref section) => section.plan(daemon)?,
        };
        let domain = domain::prepare(&configuration, &hypervisor, &network).await?;
        let storage = configuration.storage(hypervisor.owners())?;
        if !has_program(storage::QEMU_IMG) {
            return Err(missing(storage::QEMU_IMG, "qemu-utils"));
        }
        match &hypervisor {
            Hypervisor::Embedded => {
                if !has_program(EMULATOR) {
                    return Err(missing(EMULATOR, "qemu-system-x86"));
                }
            }
            Hypervisor::Uri(uri) => {
                Connection::open(uri, CONNECT_LIMIT)
                    .await
                    .map_err(|error| unreachable_hypervisor(error, &configuration))?;
            }
        }
        Ok(Self {
            hypervisor,
            domain,
            image,
            storage,
            network,
            agent: configuration.agent.transport,
        })
    }

    async fn allocate(&self, allocation: &Allocation) -> Result<Arc<dyn Sandbox>> {
        allocation.stop.check("allocate")?;
        let image = self.image.image(&allocation.stop).await?;
        storage::check_image(&image)?;
        allocation.stop.check("allocate")?;
        let mut making = Making::default();
        match self.make(allocation, &image, &mut making).await {
            Ok(machine) => Ok(Arc::new(machine)),
            Err(error) => {
                making.undo().await;
                Err(error)
            }
        }
    }
}

/// What was made so far, so that a failure can be undone.
#[derive(Default)]
struct Making {
    domain: Option<Domain>,
    holdings: Holdings,
}

impl Making {
    /// Removes all of it. What cannot be removed stays in the ledger, and is tried again by
    /// whoever asked for the allocation.
    async fn undo(mut self) {
        if let Some(domain) = &self.domain
            && let Err(error) = remove_domain(domain).await
        {
            tracing::warn!(%error, "a failed allocation leaves its domain to the ledger");
            return;
        }
        if let Some(entry) = self.holdings.domain.take()
            && let Err(error) = entry.gone().await
        {
            tracing::warn!(%error, "the ledger keeps a domain that is gone");
        }
        if let Err(error) = self.holdings.remove().await {
            tracing::warn!(%error, "a failed allocation leaves something to the ledger");
        }
    }
}

/// The entries of one allocation, written down together.
struct Entries {
    run: Entry,
    disk: Entry,
    /// The process that makes the disk.
    maker: Entry,
    root: Option<Entry>,
    network: Option<Entry>,
    pool: Option<Entry>,
    domain: Entry,
}

impl Qemu {
    async fn make(
        &self,
        allocation: &Allocation,
        image: &see_core::Image,
        making: &mut Making,
    ) -> Result<Machine> {
        let identifier = allocation.identifier;
        let stop = &allocation.stop;
        let entries = self.write_down(allocation).await?;

        // From here on everything that has an entry is undone by `making`.
        let Entries {
            run,
            disk,
            maker,
            root,
            network,
            pool,
            domain,
        } = entries;
        let run_path = run.create_folder().await;
        making.holdings.others.push(run);
        let run_path = run_path?;
        let source = self.storage.create(&disk, &maker, image, stop).await;
        making.holdings.others.push(disk);
        let source = source?;
        maker.gone().await?;

        stop.check("open the hypervisor")?;
        let connection = match (root, &self.hypervisor) {
            (Some(entry), _) => {
                let entered = embedded::enter(&entry).await;
                let path = PathBuf::from(&entry.resource().name);
                making.holdings.root = Some((path, entry));
                entered?
            }
            (None, Hypervisor::Uri(uri)) => Connection::open(uri, CONNECT_LIMIT)
                .await
                .map_err(libvirt)?,
            (None, Hypervisor::Embedded) => {
                return Err(Error::new(
                    ErrorKind::Internal,
                    "the embedded driver has no entry in the ledger",
                ));
            }
        };

        if let Some(entry) = pool
            && let Some(folder) = source.file.parent()
        {
            let made = storage::pool::create(&entry, &connection, folder).await;
            // An entry without its pool is left to the collector, which finds out.
            making.holdings.pool = Some((made?, entry));
        }

        let mut xml = self.domain.clone();
        let name = identifier.to_string();
        xml.set_identity(&name, &name);
        xml.set_label(&name);
        let opened: Vec<PathBuf> = std::iter::once(source.file.clone())
            .chain(source.backing.iter().map(|backing| backing.file.clone()))
            .collect();
        xml.set_disk(&source)
            .map_err(|error| Error::new(ErrorKind::Configuration, error.to_string()))?;
        match (&self.network, network) {
            (
                NetworkPlan::Own {
                    xml: plan,
                    addresses,
                },
                Some(entry),
            ) => {
                // An entry without its network is left to the collector, which finds out.
                let made =
                    network::create(plan, addresses.as_ref(), &connection, &entry, stop).await?;
                making.holdings.network = Some((made, entry));
                xml.connect_network(&name, false);
            }
            (NetworkPlan::None, _) => {
                xml.remove_interfaces();
            }
            _ => {}
        }
        let channel = (self.agent == AgentTransport::Serial).then(|| run_path.join("agent.sock"));
        if let Some(socket) = &channel {
            xml.set_agent_channel(socket);
        }
        let console = run_path.join("console.log");
        let relabel = self.hypervisor.owners() == Owners::Kept;
        let console = xml.set_console_file(&console, relabel).then_some(console);

        stop.check("define the domain")?;
        let text = xml.to_string();
        making.holdings.domain = Some(domain);
        let defined = connection
            .define_domain(&text)
            .await
            .map_err(|error| libvirt(error).during("define the domain"))?;
        making.domain = Some(defined.clone());
        if let Some(entry) = &making.holdings.domain {
            let mut identity = Details::new();
            identity.insert("uuid".to_owned(), defined.uuid().to_string().into());
            entry.created(identity).await?;
        }
        let events = connection
            .domain_events(defined.uuid())
            .await
            .map_err(libvirt)?;
        Ok(Machine::new(Parts {
            identifier,
            native: Native {
                connection,
                domain: defined,
            },
            events,
            channel: channel.map(Channel::new),
            console,
            has_network: !xml.interfaces().is_empty(),
            opened,
            holdings: std::mem::take(&mut making.holdings),
        }))
    }

    /// One write for everything whose name is known beforehand, which is everything.
    async fn write_down(&self, allocation: &Allocation) -> Result<Entries> {
        let identifier = allocation.identifier;
        let root = match self.hypervisor {
            Hypervisor::Embedded => Some(embedded::intent(identifier)?),
            Hypervisor::Uri(_) => None,
        };
        let location = match (&root, &self.hypervisor) {
            (Some(root), _) => root.name.clone(),
            (None, Hypervisor::Uri(uri)) => uri.clone(),
            (None, Hypervisor::Embedded) => String::new(),
        };
        let network = match (&self.network, &self.hypervisor) {
            (NetworkPlan::Own { .. }, Hypervisor::Uri(uri)) => {
                Some(network::intent(identifier, uri))
            }
            _ => None,
        };
        let pool = match &self.hypervisor {
            Hypervisor::Uri(uri) => self.storage.pool_intent(identifier, uri)?,
            Hypervisor::Embedded => None,
        };
        let (has_root, has_network, has_pool) = (root.is_some(), network.is_some(), pool.is_some());
        let planned: Vec<Resource> = [
            Some(run_intent(identifier)?),
            Some(self.storage.intent(identifier)?),
            Some(Resource::process(storage::QEMU_IMG)),
            root,
            network,
            pool,
            Some(Resource::new(DOMAIN, identifier.to_string(), location)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let mut entries = allocation.record.intend(planned).await?.into_iter();
        let mut next = || {
            entries
                .next()
                .ok_or_else(|| Error::new(ErrorKind::Internal, "the ledger gave too few entries"))
        };
        Ok(Entries {
            run: next()?,
            disk: next()?,
            maker: next()?,
            root: if has_root { Some(next()?) } else { None },
            network: if has_network { Some(next()?) } else { None },
            pool: if has_pool { Some(next()?) } else { None },
            domain: next()?,
        })
    }
}

/// The folder of the agent's socket and the console's log. Its path is short, and nobody but this
/// user and the hypervisor gets in.
fn run_intent(identifier: Identifier) -> Result<Resource> {
    Resource::folder(short_folder()?, format!("see-{identifier}"))
}

fn missing(program: &str, package: &str) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        format!("the program {program} is not installed"),
    )
    .advice(format!(
        "on Debian and Ubuntu it is in the package {package}"
    ))
}

fn unreachable_hypervisor(error: see_libvirt::Error, configuration: &QemuConfiguration) -> Error {
    let error = libvirt(error);
    let kind = match error.kind() {
        ErrorKind::PermissionDenied | ErrorKind::Timeout => error.kind(),
        _ => ErrorKind::Configuration,
    };
    let advice = match kind {
        ErrorKind::PermissionDenied => {
            "this user may not use it: join the group `libvirt`, or use `embedded`"
        }
        _ => "start libvirtd, or use `embedded`, which needs no daemon",
    };
    let text = Error::new(kind, "there is no such hypervisor, or it does not answer")
        .advice(advice)
        .caused_by(error);
    match &configuration.hypervisor {
        Some(uri) => text.subject(uri).at(uri.place().clone()),
        None => text,
    }
}

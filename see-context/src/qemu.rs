//! QEMU: whole machines, over libvirt's embedded driver or its daemon.

mod acceleration;
mod capabilities;
mod configuration;
mod domain;
mod elsewhere;
mod files;
mod template;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use see_core::config::{Configuration, Place};
use see_core::{
    AgentTransport, Allocation, Backend, Error, ErrorKind, GuestChannel, Image, ImageSource,
    Preparation, Result,
};
use see_libvirt::Connection;
use see_libvirt::xml::DomainXml;

use crate::allocation::{Site, both};
use crate::embedded;
use crate::host::require_program;
use crate::hypervisor::Hypervisor;
use crate::machine::{Abilities, Complete, Machine};
use crate::network::NetworkPlan;
use crate::storage::{self, RemoteDisk, SandboxDisk, Storage, Volumes};
use crate::{channel, run_folder};

use self::configuration::recognises;
pub use self::configuration::{
    Acceleration, Clone, Disk, DomainSection, Graphics, Network, QemuConfiguration,
};
use self::files::Files;

/// The backend `qemu`.
///
/// [`native`](see_core::Driver::native) gives a [`Native`](crate::Native).
#[derive(Debug)]
pub struct Qemu {
    hypervisor: Hypervisor,
    /// To the daemon; none to the embedded driver, which is opened when something is made there.
    connection: Option<Connection>,
    domain: DomainXml,
    domain_at: Option<Place>,
    files: Files,
    image: ImageSource,
    storage: DiskPlan,
    network: NetworkPlan,
    agent: AgentTransport,
}

/// Where the disks of sandboxes are made.
#[derive(Debug)]
enum DiskPlan {
    /// On this host, as files.
    Here(Storage),
    /// On the hypervisor's, as volumes.
    There(Volumes),
}

/// The value, or a finding more.
fn keep<T>(findings: &mut Vec<Error>, result: Result<T>) -> Option<T> {
    result.map_err(|error| findings.push(error)).ok()
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
        let remote = hypervisor.is_remote();
        // All that is wrong is told at once, before anybody is asked on another host.
        let mut findings = match remote {
            true => elsewhere::findings(&configuration),
            false => Vec::new(),
        };
        let image = keep(&mut findings, preparation.image(&configuration.disk.image));
        let network = keep(&mut findings, configuration.network(&hypervisor));
        let network = network.unwrap_or(NetworkPlan::AsWritten);
        let storage = if remote {
            configuration.volumes().map(DiskPlan::There)
        } else {
            let storage = configuration.storage(hypervisor.owners());
            storage.map(DiskPlan::Here)
        };
        let storage = keep(&mut findings, storage);
        let prepared = domain::prepare(&configuration, &hypervisor, &network).await;
        let prepared = keep(&mut findings, prepared);
        let (Some(image), Some(storage), Some((mut domain, files)), true) =
            (image, storage, prepared, findings.is_empty())
        else {
            return Err(Error::all(findings)
                .unwrap_or_else(|| Error::new(ErrorKind::Internal, "nothing was found wrong")));
        };
        if !remote {
            require_program(storage::QEMU_IMG, "qemu-utils")?;
        }
        if !hypervisor.is_daemon() {
            acceleration::require_emulator(&domain)?;
        }
        let connection = hypervisor
            .check(
                configuration.hypervisor.as_ref(),
                if remote {
                    "is that host up, and does its libvirtd take connections of this kind?"
                } else {
                    "start libvirtd, or use `embedded`, which needs no daemon"
                },
            )
            .await?;
        acceleration::choose(
            &mut domain,
            &configuration,
            &hypervisor,
            connection.as_ref(),
        )
        .await?;
        if let (Some(connection), Some(section)) = (&connection, &configuration.domain) {
            capabilities::check(&domain, connection, &section.configuration).await?;
        }
        domain.skip_flushes();
        Ok(Self {
            hypervisor,
            connection,
            domain,
            domain_at: configuration
                .domain
                .as_ref()
                .map(|domain| domain.configuration.place().clone()),
            files,
            image,
            storage,
            network,
            agent: configuration.agent().transport,
        })
    }

    async fn allocate(&self, allocation: &Allocation) -> Result<Box<dyn see_core::Driver>> {
        allocation.stop.check("allocate")?;
        let image = self.image.image(&allocation.image_request()).await?;
        let site = self.hypervisor.site(allocation)?;
        match &self.storage {
            DiskPlan::Here(storage) => self.here(storage, image, site).await,
            DiskPlan::There(volumes) => self.there(volumes, image, site).await,
        }
    }
}

impl Qemu {
    /// A machine whose files are on this host.
    async fn here(
        &self,
        storage: &Storage,
        image: Image,
        site: Site<'_>,
    ) -> Result<Box<dyn see_core::Driver>> {
        let disk = SandboxDisk::new(storage.clone(), image)?
            .and_further(&self.files.disks)
            .and_nvram(self.files.nvram.as_ref())
            .and_boot(&self.files.boot);
        let pool = storage.pool().filter(|_| self.connection.is_some());
        let [root, run, disks, pools, network, domain] = site
            .intend([
                self.hypervisor.intents(&site)?,
                run_folder::intents(&site)?,
                disk.intents(&site)?,
                match &pool {
                    Some(pool) => pool.intents(&site)?,
                    None => Vec::new(),
                },
                self.network.intents(&site),
                crate::domain::intents(&site),
            ])
            .await?;
        let daemon = self.connection.as_ref();
        let mut xml = crate::domain::named(&self.domain, site.identifier);

        let files = async {
            let run = run_folder::make(run).await?;
            let disks = disk.make(disks, daemon, &site).await?;
            if let (Some(pool), Some(daemon)) = (&pool, daemon) {
                pool.make(pools, daemon).await?;
            }
            Ok((run, disks))
        };
        let connected = async {
            let connection = match daemon {
                Some(daemon) => daemon.clone(),
                None => embedded::open(root, &site).await?,
            };
            let network = self.network.make(network, &xml, &connection, &site);
            let network = network.await?;
            Ok((connection, network))
        };
        let ((run, disks), (connection, network)) = both(files, connected).await?;

        disks.fill_in(&mut xml)?;
        let console = run_folder::console(&mut xml, &run, self.hypervisor.owners());
        self.network.fill_in(&mut xml, &network);
        let channel = self.channel(&mut xml, Some(&run), &connection, &site);
        let abilities = Abilities {
            channel,
            console,
            disks: disks.written(),
            opened: disks.opened(),
            network,
            ..Abilities::default()
        };
        let complete = self.complete(connection, xml, abilities);
        Machine::define(complete, domain, site).await
    }

    /// A machine on another host.
    async fn there(
        &self,
        volumes: &Volumes,
        image: Image,
        site: Site<'_>,
    ) -> Result<Box<dyn see_core::Driver>> {
        let Some(connection) = self.connection.clone() else {
            let message = "the embedded driver runs machines on this host alone";
            return Err(Error::new(ErrorKind::Internal, message));
        };
        let disk = RemoteDisk::new(volumes.clone(), &image, site.stop).await?;
        let [disks, network, domain] = site
            .intend([
                disk.intents(&connection, &site).await?,
                self.network.intents(&site),
                crate::domain::intents(&site),
            ])
            .await?;
        let mut xml = crate::domain::named(&self.domain, site.identifier);

        let disk = disk.make(disks, &connection, &site);
        let network = self.network.make(network, &xml, &connection, &site);
        let ((volume, source), network) = both(disk, network).await?;

        storage::set_disk(&mut xml, &source)?;
        self.network.fill_in(&mut xml, &network);
        let abilities = Abilities {
            channel: self.channel(&mut xml, None, &connection, &site),
            volumes: vec![volume],
            network,
            ..Abilities::default()
        };
        let complete = self.complete(connection, xml, abilities);
        Machine::define(complete, domain, site).await
    }

    /// The way to the agent that needs no network, where it was asked for.
    fn channel(
        &self,
        domain: &mut DomainXml,
        run_folder: Option<&Path>,
        connection: &Connection,
        site: &Site<'_>,
    ) -> Option<Arc<dyn GuestChannel>> {
        if self.agent != AgentTransport::Serial {
            return None;
        }
        let run_folder = run_folder.filter(|_| self.hypervisor.shares_sockets());
        Some(match run_folder {
            Some(folder) => channel::socket(domain, folder),
            None => channel::stream(domain, connection, site.identifier),
        })
    }

    fn complete(
        &self,
        connection: Connection,
        domain: DomainXml,
        abilities: Abilities,
    ) -> Complete<'_> {
        Complete {
            driver: self.hypervisor.driver(),
            connection,
            domain,
            asked_at: self.domain_at.as_ref(),
            abilities,
        }
    }
}

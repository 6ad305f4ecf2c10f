//! QEMU: whole machines, over libvirt's embedded driver or its daemon.

mod acceleration;
mod capabilities;
mod configuration;
mod domain;
mod elsewhere;
mod files;
mod template;

use std::sync::Arc;

use async_trait::async_trait;
use see_core::config::{Configuration, Place};
use see_core::{
    AgentTransport, Allocation, Backend, Error, ErrorKind, ImageSource, Preparation, Result,
    Sandbox,
};
use see_libvirt::xml::DomainXml;

use crate::allocation::{self, Part, Plan};
use crate::host::require_program;
use crate::hypervisor::Hypervisor;
use crate::network::NetworkPlan;
use crate::parts::{ConsoleFile, RunFolder, SerialPort, StreamPort};
use crate::storage::{self, RemoteDisk, SandboxDisk, Storage, Volumes};

use self::configuration::recognises;
pub use self::configuration::{
    Acceleration, Clone, Disk, DomainSection, Graphics, Network, QemuConfiguration,
};
use self::files::Files;

/// The backend `qemu`.
///
/// [`Sandbox::native`] gives a [`Native`](crate::Native).
#[derive(Debug)]
pub struct Qemu {
    hypervisor: Hypervisor,
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

    async fn allocate(&self, allocation: &Allocation) -> Result<Arc<dyn Sandbox>> {
        allocation.stop.check("allocate")?;
        let image = self.image.image(&allocation.image_request()).await?;
        let mut parts: Vec<Box<dyn Part>> = Vec::new();
        match &self.storage {
            DiskPlan::Here(storage) => {
                let disk = SandboxDisk::new(storage.clone(), image)?
                    .and_further(&self.files.disks)
                    .and_nvram(self.files.nvram.as_ref())
                    .and_boot(&self.files.boot);
                parts.push(Box::new(RunFolder));
                parts.push(Box::new(disk));
                if self.hypervisor.is_daemon()
                    && let Some(pool) = storage.pool()
                {
                    parts.push(Box::new(pool));
                }
                parts.push(Box::new(ConsoleFile {
                    owners: self.hypervisor.owners(),
                }));
            }
            DiskPlan::There(volumes) => {
                let disk = RemoteDisk::new(volumes.clone(), &image, &allocation.stop);
                parts.push(Box::new(disk.await?));
            }
        }
        parts.push(Box::new(self.network.clone()));
        if self.agent == AgentTransport::Serial {
            if self.hypervisor.shares_sockets() {
                parts.push(Box::new(SerialPort));
            } else {
                parts.push(Box::new(StreamPort));
            }
        }
        let plan = Plan {
            driver: self.hypervisor.driver(),
            hypervisor: &self.hypervisor,
            domain: self.domain.clone(),
            domain_at: self.domain_at.clone(),
            parts,
        };
        allocation::allocate(plan, allocation).await
    }
}

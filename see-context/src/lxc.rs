//! LXC: containers, over libvirt's daemon.
//!
//! A container shares the host's kernel: whoever finds a hole in the kernel is on the host. Short of that it is
//! closed in as far as libvirt goes: its users are none of the host's (an `<idmap>` of its own, unless the
//! domain has one), it has a network of its own even where that is empty, its root is a copy, and what it
//! leaves in its host folders is removed without following links.

mod configuration;
mod console;
mod domain;
mod folders;
mod root;
mod runtime;
mod terminal;
mod users;

use std::sync::Arc;

use async_trait::async_trait;
use see_core::config::{Configuration, Place};
use see_core::{
    AgentTransport, Allocation, Backend, Error, ErrorKind, Preparation, Result, Sandbox,
};
use see_libvirt::xml::DomainXml;

use crate::allocation::{self, Part, Plan};
use crate::driver::driver_of;
use crate::hypervisor::{Hypervisor, written_type};
use crate::network::NetworkPlan;
use crate::parts::RunFolder;

pub use self::configuration::{LxcConfiguration, LxcDomainSection, LxcFilesystem};
use self::console::Consoles;
use self::folders::HostFolder;
use self::root::Root;
use self::runtime::RuntimeFiles;

/// The backend `lxc`.
///
/// [`Sandbox::native`] gives a [`Native`](crate::Native).
#[derive(Debug)]
pub struct Lxc {
    hypervisor: Hypervisor,
    domain: DomainXml,
    domain_at: Place,
    root: Root,
    folders: Vec<HostFolder>,
    network: NetworkPlan,
    agent: AgentTransport,
}

#[async_trait]
impl Backend for Lxc {
    const NAME: &'static str = "lxc";
    const ALIASES: &'static [&'static str] = &[
        "see.resources.lxc.LXCResources",
        "see.context.resources.lxc.LXCResources",
    ];
    type Configuration = LxcConfiguration;

    fn recognises(context: &Configuration) -> bool {
        match context.get("hypervisor").and_then(Configuration::as_str) {
            Some(uri) => driver_of(uri) == "lxc",
            None => written_type(context).is_some_and(|kind| kind == "lxc"),
        }
    }

    async fn prepare(
        configuration: LxcConfiguration,
        _preparation: &Preparation<'_>,
    ) -> Result<Self> {
        let hypervisor = configuration.hypervisor()?;
        let network = match &configuration.network {
            None => NetworkPlan::AsWritten,
            Some(section) => section.plan(&hypervisor, &configuration.agent)?,
        };
        let (domain, root) = domain::prepare(&configuration.domain.configuration, &network)?;
        let folders = folders::prepare(&configuration.domain.filesystem)?;
        if !rustix::process::geteuid().is_root() {
            return Err(Error::new(
                ErrorKind::PermissionDenied,
                "a container's files are given to its own users, which needs root",
            )
            .advice("run as root, or use the backend `qemu`"));
        }
        hypervisor
            .check(
                configuration.hypervisor.as_ref(),
                "start libvirtd with its LXC driver (libvirt-daemon-driver-lxc)",
            )
            .await?;
        Ok(Self {
            hypervisor,
            domain,
            domain_at: configuration.domain.configuration.place().clone(),
            root,
            folders,
            network,
            agent: configuration.agent.transport,
        })
    }

    async fn allocate(&self, allocation: &Allocation) -> Result<Arc<dyn Sandbox>> {
        self.root.prepare().await?;
        let mut parts: Vec<Box<dyn Part>> = vec![
            Box::new(RuntimeFiles),
            Box::new(RunFolder),
            Box::new(self.root.clone()),
        ];
        for folder in &self.folders {
            parts.push(Box::new(folder.clone()));
        }
        parts.push(Box::new(self.network.clone()));
        parts.push(Box::new(Consoles {
            agent: self.agent == AgentTransport::Serial,
        }));
        let plan = Plan {
            driver: self.hypervisor.driver(),
            hypervisor: &self.hypervisor,
            domain: self.domain.clone(),
            domain_at: Some(self.domain_at.clone()),
            parts,
        };
        allocation::allocate(plan, allocation).await
    }
}

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

use async_trait::async_trait;
use see_core::config::{Configuration, Place};
use see_core::{AgentTransport, Allocation, Backend, Error, ErrorKind, Preparation, Result};
use see_libvirt::Connection;
use see_libvirt::xml::DomainXml;

use crate::allocation::both;
use crate::driver::driver_of;
use crate::hypervisor::{Hypervisor, reach, written_type};
use crate::machine::{Abilities, Complete, Machine};
use crate::network::NetworkPlan;
use crate::run_folder;

pub use self::configuration::{LxcConfiguration, LxcDomainSection, LxcFilesystem};
use self::folders::HostFolder;
use self::root::Root;

/// The backend `lxc`.
///
/// [`native`](see_core::Driver::native) gives a [`Native`](crate::Native).
#[derive(Debug)]
pub struct Lxc {
    hypervisor: Hypervisor,
    connection: Connection,
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
        let uri = configuration.uri()?;
        let hypervisor = Hypervisor::Uri(uri.clone());
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
        let advice = "start libvirtd with its LXC driver (libvirt-daemon-driver-lxc)";
        let connection = reach(&uri, configuration.hypervisor.as_ref(), advice).await?;
        Ok(Self {
            hypervisor,
            connection,
            domain,
            domain_at: configuration.domain.configuration.place().clone(),
            root,
            folders,
            network,
            agent: configuration.agent.transport,
        })
    }

    async fn allocate(&self, allocation: &Allocation) -> Result<Box<dyn see_core::Driver>> {
        allocation.stop.check("allocate")?;
        self.root.prepare().await?;
        let site = self.hypervisor.site(allocation)?;
        let folders = self.folders.iter().map(|folder| folder.intent(&site));
        let [runtime, run, root, folders, network, domain] = site
            .intend([
                runtime::intents(&site)?,
                run_folder::intents(&site)?,
                self.root.intents(&site)?,
                folders.collect::<Result<_>>()?,
                self.network.intents(&site),
                crate::domain::intents(&site),
            ])
            .await?;
        let connection = self.connection.clone();
        runtime::check_free(runtime).await?;
        let mut xml = crate::domain::named(&self.domain, site.identifier);

        let files = async {
            let run = run_folder::make(run).await?;
            let root = self.root.make(root, &site).await?;
            let mut made = Vec::new();
            for (folder, entry) in self.folders.iter().zip(folders) {
                made.push((folder, folder.make(entry, root.users.root).await?));
            }
            Ok((run, root, made))
        };
        let network = self.network.make(network, &xml, &connection, &site);
        let ((run, root, folders), network) = both(files, network).await?;

        root.fill_in(&mut xml);
        let mut opened = vec![root.folder];
        for (folder, path) in folders {
            folder.fill_in(&mut xml, &path);
            opened.push(path);
        }
        self.network.fill_in(&mut xml, &network);
        let kept = console::kept(&mut xml, &run, &connection, site.identifier).await?;
        let (console, keeping) = kept.unzip();
        let channel = (self.agent == AgentTransport::Serial)
            .then(|| console::for_the_agent(&mut xml, &connection, site.identifier));
        let complete = Complete {
            driver: self.hypervisor.driver(),
            connection,
            domain: xml,
            asked_at: Some(&self.domain_at),
            abilities: Abilities {
                channel,
                console,
                disks: opened.clone(),
                opened,
                network,
                tasks: Vec::from_iter(keeping),
                ..Abilities::default()
            },
        };
        Machine::define(complete, domain, site).await
    }
}

//! Machines of the user's own domain XML on a driver of which SEE uses nothing but what all of libvirt's have: the
//! domain is defined, its disk is a copy or an overlay, its networks are those of the XML. The backends `vbox` and
//! `libvirt` are this with other defaults.

use see_core::config::{ConfigPath, Configuration, Located, Place};
use see_core::{
    AgentSettings, AgentTransport, Allocation, Error, ImageSource, Preparation, Result,
};
use see_libvirt::Connection;
use see_libvirt::xml::{DiskSource, DomainXml, XmlError};
use serde::Deserialize;

use crate::admission;
use crate::allocation::both;
use crate::domain;
use crate::driver::{DiskKind, Driver, driver_of};
use crate::error::xml;
use crate::host::{read_xml, require_program};
use crate::hypervisor::{Hypervisor, Owners, reach, refuse_limits};
use crate::machine::{Abilities, Complete, Machine};
use crate::network::{NetworkConfiguration, NetworkPlan};
use crate::qemu::DomainSection;
use crate::storage::{self, SandboxDisk, Storage};

/// The `context` section of a run file, for the backends `vbox` and `libvirt`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainConfiguration {
    /// A libvirt URI of this host. For `vbox` it may be left out: `vbox:///session`.
    pub hypervisor: Option<Located<String>>,
    /// The machine.
    pub domain: DomainSection,
    /// The disk.
    pub disk: PlainDisk,
    /// What the guest is connected to: `none`, or left out as the domain's XML says.
    pub network: Option<PlainNetwork>,
    /// How the agent in the guest is reached: `tcp` or `none`; no way to a serial port is known.
    pub agent: Option<Located<AgentSettings>>,
    /// What a run may use: [`Limits`](see_core::Limits), which the host reads.
    pub limits: Option<Configuration>,
}

/// The `disk` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainDisk {
    /// The base image: a path, or a provider with its configuration. It is never written.
    pub image: Configuration,
    /// How the sandbox gets a disk of its own.
    pub clone: Option<PlainClone>,
}

/// The `disk.clone` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlainClone {
    /// The folder in which each sandbox gets a folder of its own, named by its identifier. Left
    /// out: the host's folder for large temporary files.
    pub storage_pool_path: Option<ConfigPath>,
    /// An overlay that holds what differs, or a full copy. Left out: the former where the hypervisor takes overlays.
    pub copy_on_write: Option<Located<bool>>,
}

/// The `network` section.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct PlainNetwork(Located<NetworkConfiguration>);

/// A machine that is ready to be made.
#[derive(Debug)]
pub(crate) struct PlainMachine {
    hypervisor: Hypervisor,
    connection: Connection,
    domain: DomainXml,
    domain_at: Place,
    image: ImageSource,
    storage: Storage,
    network: NetworkPlan,
}

impl PlainMachine {
    /// Checks a section; `usual` is the URI where it names none, and `advice` says how to get such a hypervisor.
    pub(crate) async fn prepare(
        configuration: PlainConfiguration,
        preparation: &Preparation<'_>,
        uri: String,
        advice: &str,
    ) -> Result<Self> {
        let hypervisor = Hypervisor::Uri(uri.clone());
        let driver = hypervisor.driver();
        if hypervisor.is_remote() {
            let error = Error::new(
                see_core::ErrorKind::Configuration,
                "the hypervisor is on another host, where this host's images are not",
            );
            return Err(match &configuration.hypervisor {
                Some(uri) => error.subject(uri.escape_debug()).at(uri.place().clone()),
                None => error,
            });
        }
        if !driver.is_tried {
            tracing::warn!(
                "SEE's tests have never run a machine on the driver `{}`",
                driver_of(&uri)
            );
        }
        let image = preparation.image(&configuration.disk.image)?;
        let network = match &configuration.network {
            None => NetworkPlan::AsWritten,
            Some(PlainNetwork(section)) => {
                let agent = configuration.agent.as_deref().cloned().unwrap_or_default();
                (**section)
                    .clone()
                    .plan(&hypervisor, &agent, section.place())?
            }
        };
        configuration.check_agent(driver)?;
        refuse_limits(
            configuration.limits.as_ref(),
            &["memory", "pids"],
            "since it is not known which processes run the machines of this hypervisor",
        )?;
        let path = &configuration.domain.configuration;
        let domain = read(&configuration.domain, driver, &network)?;
        let storage = configuration.storage(driver)?;
        require_program(storage::QEMU_IMG, "qemu-utils")?;
        let connection = reach(&uri, configuration.hypervisor.as_ref(), advice).await?;
        Ok(Self {
            hypervisor,
            connection,
            domain,
            domain_at: path.place().clone(),
            image,
            storage,
            network,
        })
    }

    /// Makes a sandbox.
    pub(crate) async fn allocate(
        &self,
        allocation: &Allocation,
    ) -> Result<Box<dyn see_core::Driver>> {
        allocation.stop.check("allocate")?;
        let image = self.image.image(&allocation.image_request()).await?;
        let disk = SandboxDisk::new(self.storage.clone(), image)?;
        let site = self.hypervisor.site(allocation)?;
        let [disks, network, domain] = site
            .intend([
                disk.intents(&site)?,
                self.network.intents(&site),
                domain::intents(&site),
            ])
            .await?;
        let connection = self.connection.clone();
        let mut xml = domain::named(&self.domain, site.identifier);
        let disks = disk.make(disks, Some(&connection), &site);
        let network = self.network.make(network, &xml, &connection, &site);
        let (disks, network) = both(disks, network).await?;
        disks.fill_in(&mut xml)?;
        self.network.fill_in(&mut xml, &network);
        let complete = Complete {
            driver: self.hypervisor.driver(),
            connection,
            domain: xml,
            asked_at: Some(&self.domain_at),
            abilities: Abilities {
                disks: disks.written(),
                opened: disks.opened(),
                network,
                ..Abilities::default()
            },
        };
        Machine::define(complete, domain, site).await
    }
}

impl PlainConfiguration {
    /// The URI, which has to be of one of these drivers; `usual` where none is named.
    pub(crate) fn uri(
        &self,
        backend: &str,
        takes: fn(&str) -> bool,
        usual: &str,
    ) -> Result<String> {
        let Some(uri) = &self.hypervisor else {
            return Ok(usual.to_owned());
        };
        match uri.contains("://") && takes(driver_of(uri)) {
            true => Ok(uri.as_str().to_owned()),
            false => Err(Error::configuration(
                uri.place().clone(),
                format!(
                    "the backend `{backend}` cannot use the hypervisor `{}`",
                    uri.escape_debug()
                ),
            )
            .advice(format!("such as {usual}"))),
        }
    }

    fn check_agent(&self, driver: &Driver) -> Result<()> {
        match &self.agent {
            Some(agent) if agent.transport == AgentTransport::Serial && !driver.has_agent_port => {
                Err(Error::configuration(
                    agent.place().clone(),
                    "no way to a serial port of this hypervisor's machines is known".to_owned(),
                )
                .advice("set `transport` to \"tcp\" or \"none\""))
            }
            _ => Ok(()),
        }
    }

    fn storage(&self, driver: &Driver) -> Result<Storage> {
        let (parent, asked) = match &self.disk.clone {
            None => (None, None),
            Some(clone) => (
                clone.storage_pool_path.as_ref(),
                clone.copy_on_write.as_ref(),
            ),
        };
        let parent = match parent {
            None => None,
            Some(path) => Some(path.existing_folder("a folder for disks")?),
        };
        let asks_for_overlay = asked.filter(|asked| ***asked);
        match (driver.disk, asks_for_overlay) {
            (DiskKind::Copy(_), Some(asked)) => Err(Error::configuration(
                asked.place().clone(),
                "this hypervisor takes no overlays: its disks are full copies".to_owned(),
            )
            .advice("leave `copy_on_write` out")),
            (DiskKind::Copy(format), None) => {
                Ok(Storage::new(parent, false, Owners::Kept).copied_as(format))
            }
            (DiskKind::Overlay | DiskKind::Folder, _) => {
                let copy_on_write = asked.is_none_or(|asked| **asked);
                Ok(Storage::new(parent, copy_on_write, Owners::Kept))
            }
        }
    }
}

/// Reads the domain's XML, and checks that the image will find its disk.
fn read(section: &DomainSection, driver: &Driver, network: &NetworkPlan) -> Result<DomainXml> {
    let path = &section.configuration;
    let located = |error| xml(error, path.path(), path.place());
    let bytes = read_xml(path, "a libvirt domain XML")?;
    let mut domain = DomainXml::parse_bytes(&bytes).map_err(located)?;
    let found = domain.hypervisor_type().unwrap_or_default();
    if found.is_empty() || !driver.takes(&found) {
        let known = driver.types.first().unwrap_or(&"…");
        return Err(located(XmlError::Conflict {
            position: domain.root().position(),
            problem: format!(
                "the domain is of type `{}`, and the hypervisor's driver is `{}`",
                found.escape_debug(),
                driver.scheme
            ),
        })
        .advice(format!("write <domain type='{known}'>")));
    }
    network.unplug(&mut domain);
    let promise = section.promise(network.promise());
    admission::admit(&mut domain, promise, true, path)?;
    if let Some(disk) = domain.further_disks().map_err(located)?.first() {
        return Err(located(XmlError::Conflict {
            position: disk.position,
            problem: format!(
                "the guest would write to {}: only the image's disk is one of the sandbox's own",
                disk.file.display()
            ),
        })
        .advice("make the disk <readonly/>"));
    }
    domain.protect_media(true);
    let probe = DiskSource {
        file: "/".into(),
        format: String::new(),
        backing: Vec::new(),
        relabel: true,
    };
    domain.clone().set_disk(&probe).map_err(located)?;
    Ok(domain)
}

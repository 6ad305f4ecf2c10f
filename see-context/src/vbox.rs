//! VirtualBox: whole machines of the user's own domain XML, over libvirt's driver for it.
//!
//! That driver tells no events, so machines are asked for their state; it keeps no metadata, so what belongs
//! to an environment is told by the UUID in the ledger; and it gives networks names of VirtualBox's own, so
//! that none can be made for a sandbox. Disks are full copies in VirtualBox's own format, each with a medium
//! UUID of its own: VirtualBox refuses a second medium with the same one.

use std::sync::Arc;

use async_trait::async_trait;
use see_core::config::{ConfigPath, Configuration, Located, Place};
use see_core::{
    AgentSettings, AgentTransport, Allocation, Backend, Error, ImageFormat, ImageSource,
    Preparation, Result, Sandbox,
};
use see_libvirt::ShutdownMode;
use see_libvirt::xml::{DiskSource, DomainXml, XmlError};
use serde::Deserialize;

use crate::admission;
use crate::allocation::{self, Part, Plan};
use crate::error::xml;
use crate::host::{read_xml, require_program};
use crate::hypervisor::{Hypervisor, driver_of, refuse_limits, written_type};
use crate::machine::Driver;
use crate::network::{NetworkConfiguration, NetworkPlan};
use crate::qemu::DomainSection;
use crate::storage::{self, Owners, SandboxDisk, Storage};

/// Its driver takes no choice of how a guest is asked: it presses the power button, or the reset button.
const DRIVER: Driver = Driver {
    shutdown: ShutdownMode::Default,
    reboot: ShutdownMode::Default,
    has_screen: true,
};

/// The driver's scheme, and the type of its domains.
const VBOX: &str = "vbox";

/// Where machines run when the configuration does not say: VirtualBox of this user.
const USUAL: &str = "vbox:///session";

/// The `context` section of a run file, for the backend `vbox`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VboxConfiguration {
    /// A libvirt URI of VirtualBox on this host. `vbox:///session`.
    pub hypervisor: Option<Located<String>>,
    /// The machine.
    pub domain: DomainSection,
    /// The disk.
    pub disk: VboxDisk,
    /// What the guest is connected to: `none`, or left out as the domain's XML says.
    pub network: Option<VboxNetwork>,
    /// How the agent in the guest is reached: `tcp` or `none`, since VirtualBox has no virtio-serial port.
    pub agent: Option<Located<AgentSettings>>,
    /// What a run may use: [`Limits`](see_core::Limits), which the host reads.
    pub limits: Option<Configuration>,
}

/// The `disk` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VboxDisk {
    /// The base image: a path, or a provider with its configuration. It is never written.
    pub image: Configuration,
    /// How the sandbox gets a disk of its own.
    pub clone: Option<VboxClone>,
}

/// The `disk.clone` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VboxClone {
    /// The folder in which each sandbox gets a folder of its own, named by its identifier. Left
    /// out: the host's folder for large temporary files.
    pub storage_pool_path: Option<ConfigPath>,
    /// Only `false`: VirtualBox's disks are full copies.
    pub copy_on_write: Option<Located<bool>>,
}

/// The `network` section.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct VboxNetwork(Located<NetworkConfiguration>);

/// The backend `vbox`.
///
/// [`Sandbox::native`] gives a [`Native`](crate::Native).
#[derive(Debug)]
pub struct Vbox {
    hypervisor: Hypervisor,
    domain: DomainXml,
    domain_at: Place,
    image: ImageSource,
    storage: Storage,
    network: NetworkPlan,
}

#[async_trait]
impl Backend for Vbox {
    const NAME: &'static str = VBOX;
    const ALIASES: &'static [&'static str] = &[
        "see.resources.vbox.VBoxResources",
        "see.context.resources.vbox.VBoxResources",
    ];
    type Configuration = VboxConfiguration;

    fn recognises(context: &Configuration) -> bool {
        match context.get("hypervisor").and_then(Configuration::as_str) {
            Some(uri) => driver_of(uri) == VBOX,
            None => written_type(context).as_deref() == Some(VBOX),
        }
    }

    async fn prepare(
        configuration: VboxConfiguration,
        preparation: &Preparation<'_>,
    ) -> Result<Self> {
        let hypervisor = configuration.hypervisor()?;
        let image = preparation.image(&configuration.disk.image)?;
        let network = configuration.network_plan()?;
        configuration.check_agent()?;
        refuse_limits(
            configuration.limits.as_ref(),
            &["memory", "pids"],
            "since libvirt does not tell what VirtualBox's processes take",
        )?;
        let domain = read(&configuration.domain.configuration, &network)?;
        let storage = configuration.storage()?;
        require_program(storage::QEMU_IMG, "qemu-utils")?;
        hypervisor
            .check(
                configuration.hypervisor.as_ref(),
                "install VirtualBox and libvirt's driver for it (on Debian and Ubuntu: \
                 libvirt-daemon-driver-vbox)",
            )
            .await?;
        Ok(Self {
            hypervisor,
            domain,
            domain_at: configuration.domain.configuration.place().clone(),
            image,
            storage,
            network,
        })
    }

    async fn allocate(&self, allocation: &Allocation) -> Result<Arc<dyn Sandbox>> {
        allocation.stop.check("allocate")?;
        let image = self.image.image(&allocation.image_request()).await?;
        let parts: Vec<Box<dyn Part>> = vec![
            Box::new(SandboxDisk::new(self.storage.clone(), image)?),
            Box::new(self.network.clone()),
        ];
        let plan = Plan {
            driver: &DRIVER,
            hypervisor: &self.hypervisor,
            domain: self.domain.clone(),
            domain_at: Some(self.domain_at.clone()),
            parts,
        };
        allocation::allocate(plan, allocation).await
    }
}

impl VboxConfiguration {
    fn hypervisor(&self) -> Result<Hypervisor> {
        let Some(uri) = &self.hypervisor else {
            return Ok(Hypervisor::Uri(USUAL.to_owned()));
        };
        let wrong = |message: String| {
            Error::configuration(uri.place().clone(), message).advice("such as vbox:///session")
        };
        match uri.split_once("://") {
            Some((scheme, path)) if driver_of(scheme) == VBOX && path.starts_with('/') => {
                Ok(Hypervisor::Uri(uri.as_str().to_owned()))
            }
            Some((scheme, _)) if driver_of(scheme) == VBOX => Err(wrong(format!(
                "the hypervisor `{}` is on another host, where this host's images are not",
                uri.escape_debug()
            ))),
            _ => Err(wrong(format!(
                "the backend `vbox` cannot use the hypervisor `{}`",
                uri.escape_debug()
            ))),
        }
    }

    fn network_plan(&self) -> Result<NetworkPlan> {
        let Some(VboxNetwork(section)) = &self.network else {
            return Ok(NetworkPlan::AsWritten);
        };
        let place = section.place();
        let hypervisor = self.hypervisor()?;
        let agent = self.agent.as_deref().cloned().unwrap_or_default();
        match (**section).clone().plan(&hypervisor, &agent, place)? {
            plan @ (NetworkPlan::AsWritten | NetworkPlan::None) => Ok(plan),
            _ => Err(Error::configuration(
                place.clone(),
                "no network can be made for a sandbox on VirtualBox, which gives networks names \
                 of its own"
                    .to_owned(),
            )
            .advice("set `network` to {\"mode\": \"none\"}, or write the interface into the domain's XML")),
        }
    }

    fn check_agent(&self) -> Result<()> {
        match &self.agent {
            Some(agent) if agent.transport == AgentTransport::Serial => Err(Error::configuration(
                agent.place().clone(),
                "VirtualBox has no virtio-serial port for the agent".to_owned(),
            )
            .advice("set `transport` to \"tcp\" or \"none\"")),
            _ => Ok(()),
        }
    }

    fn storage(&self) -> Result<Storage> {
        let Some(clone) = &self.disk.clone else {
            return Ok(Storage::new(None, false, Owners::Kept).copied_as(ImageFormat::Vdi));
        };
        if let Some(asked) = clone.copy_on_write.as_ref().filter(|asked| ***asked) {
            return Err(Error::configuration(
                asked.place().clone(),
                "VirtualBox takes no overlays of qemu-img's: its disks are full copies".to_owned(),
            )
            .advice("leave `copy_on_write` out"));
        }
        let parent = match &clone.storage_pool_path {
            None => None,
            Some(path) => Some(path.existing_folder("a folder for disks")?),
        };
        Ok(Storage::new(parent, false, Owners::Kept).copied_as(ImageFormat::Vdi))
    }
}

/// Reads the domain's XML, and checks that the image will find its disk.
fn read(path: &ConfigPath, network: &NetworkPlan) -> Result<DomainXml> {
    let located = |error| xml(error, path.path(), path.place());
    let bytes = read_xml(path, "a libvirt domain XML")?;
    let mut domain = DomainXml::parse_bytes(&bytes).map_err(located)?;
    let found = domain.hypervisor_type().unwrap_or_default();
    if found != VBOX {
        return Err(located(XmlError::Conflict {
            position: domain.root().position(),
            problem: format!(
                "the domain is of type `{}`, and the backend is `vbox`",
                found.escape_debug()
            ),
        })
        .advice("write <domain type='vbox'>"));
    }
    network.unplug(&mut domain);
    admission::admit(&mut domain, network.promise(), true, path)?;
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

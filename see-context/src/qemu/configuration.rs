//! The `context` section for QEMU: python-see's keys, and ours.

use std::net::{IpAddr, Ipv4Addr};

use see_core::config::{ConfigPath, Configuration, Located, Size};
use see_core::{AgentSettings, Error, Result};
use see_libvirt::xml::DomainXml;
use serde::Deserialize;

use crate::admission::{self, Promise};
use crate::driver::{driver_of, is_session};
use crate::hypervisor::{Hypervisor, Owners, written_type};
use crate::network::{NetworkConfiguration, NetworkPlan};
use crate::storage::{Storage, Volumes};

/// The `context` section of a run file, for the backend `qemu`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QemuConfiguration {
    /// Where machines run: `embedded` (the default: no daemon, no root), or a libvirt URI of
    /// QEMU, such as `qemu:///system`, or `qemu+ssh://user@host/system` on another host.
    pub hypervisor: Option<Located<String>>,
    /// The machine; left out, the built-in template.
    pub domain: Option<DomainSection>,
    /// The memory of the built-in template. 256 MiB.
    pub memory: Option<Located<Size>>,
    /// The processors of the built-in template. 1.
    pub cpus: Option<Located<u32>>,
    /// Whether KVM is used. `auto`.
    pub acceleration: Option<Located<Acceleration>>,
    /// The disk.
    pub disk: Disk,
    /// What the guest is connected to. Left out: as the domain's XML says; the built-in template
    /// has no network.
    pub network: Option<Network>,
    /// Where the guest's screen is shown to viewers. Left out: the screens of the domain's XML, on this host's
    /// loopback and a port that libvirt chooses.
    pub graphics: Option<Graphics>,
    /// How the agent in the guest is reached. Left out: over a serial port.
    pub agent: Option<Located<AgentSettings>>,
    /// What a run may use: [`Limits`](see_core::Limits), which the host reads.
    pub limits: Option<Configuration>,
}

/// The `domain` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainSection {
    /// A libvirt domain XML. Name, UUID, the disk's image, the network, the agent's channel and,
    /// where it has none, a console are filled in; everything else stays as it is written.
    pub configuration: ConfigPath,
    /// Whether the XML may hand to the hypervisor what SEE does not read: `<qemu:commandline>`, `<qemu:override>`,
    /// `<qemu:capabilities>` and those of other drivers. The guest may then write to any file that the hypervisor may
    /// write to. Never where the network is closed. `false`.
    #[serde(default)]
    pub allow_command_line: bool,
}

impl DomainSection {
    /// What is promised of a machine of this XML on a network that promises this.
    pub(crate) fn promise(&self, network: Promise) -> Promise {
        match (network, self.allow_command_line) {
            (Promise::Open, true) => Promise::Unread,
            (promise, _) => promise,
        }
    }
}

/// What runs the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acceleration {
    /// KVM where a probe shows that it is usable, else emulation. A domain XML of type `qemu` is
    /// always emulated.
    Auto,
    /// KVM, or an error where it is not usable.
    Kvm,
    /// Emulation.
    Tcg,
}

/// The `disk` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    /// The base image: a path, or a provider with its configuration. It is never written.
    pub image: Configuration,
    /// How the sandbox gets a disk of its own.
    pub clone: Option<Clone>,
}

/// The `disk.clone` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clone {
    /// The folder in which each sandbox gets a folder of its own, named by its identifier. Left
    /// out: the host's folder for large temporary files. With a hypervisor on another host: one
    /// there, absolute; left out, libvirt's for images.
    pub storage_pool_path: Option<ConfigPath>,
    /// An overlay that holds what differs (the default), or a full copy.
    #[serde(default = "yes")]
    pub copy_on_write: bool,
}

fn yes() -> bool {
    true
}

/// The `graphics` section: who may look at the guest's screen.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graphics {
    /// The address of the hypervisor's host on which it listens: `127.0.0.1`. Whoever reaches it sees the screen, and
    /// types into the guest.
    pub listen: Option<Located<IpAddr>>,
    /// The TCP port, from 5900 on. Left out: one that libvirt chooses.
    pub port: Option<Located<u16>>,
}

/// The least port of a screen, which stands for display 0.
const FIRST_DISPLAY: u16 = 5900;

impl Graphics {
    /// Fills it in.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](see_core::ErrorKind::Configuration) for a port below 5900.
    pub(super) fn fill_in(&self, domain: &mut DomainXml) -> Result<()> {
        if let Some(port) = self.port.as_ref().filter(|port| ***port < FIRST_DISPLAY) {
            return Err(Error::configuration(
                port.place().clone(),
                format!("found the port {}, screens have 5900 to 65535", **port),
            ));
        }
        let address = self
            .listen
            .as_ref()
            .map_or(Ipv4Addr::LOCALHOST.into(), |listen| **listen);
        let port = self.port.as_ref().map(|port| **port);
        admission::listen(domain, &address.to_string(), port);
        Ok(())
    }
}

/// The `network` section: `mode` (`none`, `isolated`, `shared` or `nat`), or python-see's `configuration`
/// and `dynamic_address`.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Network(Located<NetworkConfiguration>);

impl Network {
    pub(crate) fn plan(
        &self,
        hypervisor: &Hypervisor,
        agent: &AgentSettings,
    ) -> Result<NetworkPlan> {
        (*self.0).clone().plan(hypervisor, agent, self.0.place())
    }
}

/// The word for the driver that needs no daemon.
const EMBEDDED: &str = "embedded";

impl QemuConfiguration {
    pub(super) fn hypervisor(&self) -> Result<Hypervisor> {
        let Some(uri) = &self.hypervisor else {
            return Ok(Hypervisor::Embedded);
        };
        if uri.as_str() == EMBEDDED {
            return Ok(Hypervisor::Embedded);
        }
        let wrong = |message: String| Error::configuration(uri.place().clone(), message);
        let Some((scheme, rest)) = uri.split_once("://") else {
            return Err(wrong(format!(
                "found the hypervisor `{}`, expected `embedded` or a libvirt URI",
                uri.escape_debug()
            ))
            .advice("such as qemu:///system"));
        };
        if driver_of(scheme) != "qemu" {
            return Err(wrong(format!(
                "the backend `qemu` cannot use the hypervisor `{}`",
                uri.escape_debug()
            ))
            .advice("use `embedded` or `qemu:///system`, or another `backend`"));
        }
        if rest.starts_with("/embed") {
            return Err(wrong(
                "the embedded driver's folder is chosen for each process".to_owned(),
            )
            .advice("write `embedded`"));
        }
        Ok(Hypervisor::Uri(uri.as_str().to_owned()))
    }

    /// How the agent in the guest is reached.
    pub(super) fn agent(&self) -> AgentSettings {
        self.agent.as_deref().cloned().unwrap_or_default()
    }

    /// What the guest is connected to.
    pub(super) fn network(&self, hypervisor: &Hypervisor) -> Result<NetworkPlan> {
        match &self.network {
            None => Ok(NetworkPlan::AsWritten),
            Some(section) => section.plan(hypervisor, &self.agent()),
        }
    }

    /// What becomes of the image on another host.
    pub(super) fn volumes(&self) -> Result<Volumes> {
        let clone = self.disk.clone.as_ref();
        let mut volumes = Volumes::default();
        if let Some(clone) = clone {
            volumes.copy_on_write = clone.copy_on_write;
        }
        let Some(path) = clone.and_then(|clone| clone.storage_pool_path.as_ref()) else {
            let own_daemon = self.hypervisor.as_ref().filter(|uri| is_session(uri));
            return own_daemon.map_or(Ok(volumes), |uri| {
                Err(Error::configuration(
                    uri.place().clone(),
                    "a user's own daemon on another host has no usual folder for disks",
                )
                .advice(
                    "set `disk.clone.storage_pool_path` to a folder there that the user may write to, such as \
                     /home/USER/images",
                ))
            });
        };
        if !path.written().starts_with('/') {
            return Err(Error::configuration(
                path.place().clone(),
                format!(
                    "found the relative path `{}` of a folder on the hypervisor's host",
                    path.written().escape_debug()
                ),
            )
            .advice("give an absolute one, such as /var/lib/libvirt/images"));
        }
        volumes.parent = plain(path.written()).ok_or_else(|| {
            Error::configuration(
                path.place().clone(),
                format!(
                    "found `..` in the path `{}` of a folder on the hypervisor's host",
                    path.written().escape_debug()
                ),
            )
            .advice("write the path without it: it is what pools there are known by")
        })?;
        Ok(volumes)
    }

    pub(super) fn storage(&self, owners: Owners) -> Result<Storage> {
        let (pool, copy_on_write) = match &self.disk.clone {
            None => (None, true),
            Some(clone) => (clone.storage_pool_path.as_ref(), clone.copy_on_write),
        };
        let pool = match pool {
            None => None,
            Some(path) => Some(path.existing_folder("a folder for disks")?),
        };
        Ok(Storage::new(pool, copy_on_write, owners))
    }
}

/// Whether a context that names no backend is meant for QEMU: by the URI, else by the type in the
/// domain's XML, else because the built-in template is QEMU's.
pub(super) fn recognises(context: &Configuration) -> bool {
    if let Some(uri) = context.get("hypervisor").and_then(Configuration::as_str) {
        return uri == EMBEDDED || driver_of(uri) == "qemu";
    }
    written_type(context).is_none_or(|kind| kind == "qemu" || kind == "kvm")
}

/// A folder of another host as libvirt writes it, without doubled slashes and `.`; `None` with a `..` in it.
fn plain(path: &str) -> Option<String> {
    let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
    parts
        .map(|part| (part != "..").then(|| format!("/{part}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn a_folder_of_another_host_has_one_spelling() {
        assert_eq!(
            plain("/data//images/./x/"),
            Some("/data/images/x".to_owned())
        );
        assert_eq!(plain("/"), Some(String::new()));
        assert_eq!(plain("/data/../x"), None);
    }
}

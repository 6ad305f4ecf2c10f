//! The `context` section for LXC: python-see's keys, and ours.

use see_core::config::{ConfigPath, Located, OneOrMany};
use see_core::{AgentSettings, Error, Limits, Result};
use serde::Deserialize;

use crate::driver::driver_of;
use crate::qemu::Network;

/// Where containers run unless the configuration says otherwise.
const USUAL: &str = "lxc:///";

/// The `context` section of a run file, for the backend `lxc`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LxcConfiguration {
    /// The libvirt URI of LXC on this host. `lxc:///`.
    pub hypervisor: Option<Located<String>>,
    /// The container.
    pub domain: LxcDomainSection,
    /// What the container is connected to. Left out: as the domain's XML says; without an interface there it
    /// reaches nothing.
    pub network: Option<Network>,
    /// How the agent in the container is reached. `serial` is a console of its own, the last `/dev/tty<n>`.
    #[serde(default)]
    pub agent: AgentSettings,
    /// What a run may use.
    #[serde(default)]
    pub limits: Limits,
}

/// The `domain` section.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LxcDomainSection {
    /// A libvirt domain XML of type `lxc`, with a `<filesystem type='mount'>` for its root: each sandbox gets a
    /// copy. Name, UUID, the root's source, the folders below, the network, an `<idmap>` where it has none, a
    /// network namespace of its own and the agent's console are filled in; everything else stays as it is
    /// written.
    pub configuration: ConfigPath,
    /// Folders of the host for the container, one or a list.
    #[serde(default)]
    pub filesystem: OneOrMany<LxcFilesystem>,
}

/// A folder of the host that a container sees.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LxcFilesystem {
    /// The folder in which each sandbox gets one named by its identifier, which goes with the sandbox.
    pub source_path: ConfigPath,
    /// Where it is mounted in the container, absolute.
    pub target_path: Located<String>,
}

impl LxcConfiguration {
    pub(super) fn uri(&self) -> Result<String> {
        let Some(uri) = &self.hypervisor else {
            return Ok(USUAL.to_owned());
        };
        let wrong = |message: String| {
            Error::configuration(uri.place().clone(), message).advice("such as lxc:///")
        };
        let shown = uri.escape_debug();
        match uri.split_once("://") {
            None => Err(wrong(format!(
                "found the hypervisor `{shown}`, expected a libvirt URI"
            ))),
            Some((scheme, _)) if driver_of(scheme) != "lxc" => Err(wrong(format!(
                "the backend `lxc` cannot use the hypervisor `{shown}`"
            ))),
            Some((_, rest)) if !rest.starts_with('/') => Err(wrong(format!(
                "the hypervisor `{shown}` is on another host, where this host's folders are not"
            ))),
            Some(_) => Ok(uri.as_str().to_owned()),
        }
    }
}

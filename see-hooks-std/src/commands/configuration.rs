//! The configuration of `commands`.

use see_core::config::{ConfigPath, DurationValue, Size};
use serde::Deserialize;
use std::time::Duration;

/// The configuration of `commands`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct CommandsConfiguration {
    /// The address of python-see's agent. Left out: the guest's own address. Of use with
    /// `agent-port` only.
    #[serde(rename = "agent-host")]
    pub agent_host: Option<String>,
    /// The port of python-see's original HTTP agent in the guest. Left out: SEE's own agent is
    /// used, by the way that `agent` of the context tells.
    #[serde(rename = "agent-port")]
    pub agent_port: Option<u16>,
    /// The folder for what samples write; made where it is missing. Left out: what they write is
    /// in events only.
    pub results_folder: Option<ConfigPath>,
    /// How long to look for the agent after power-on, and for the address after that. 55 seconds.
    pub ready_timeout: Option<DurationValue>,
    /// How long a command or a sample may run whose event has no `deadline`. 5 minutes.
    pub deadline: Option<DurationValue>,
    /// How many bytes of each output are kept; the rest is dropped and `truncated` set. 64 MiB.
    /// With `async_flag` at most 256 KiB: the agent keeps them in the guest's memory.
    pub output_limit: Option<Size>,
}

impl CommandsConfiguration {
    pub(super) fn ready_timeout(&self) -> Duration {
        self.ready_timeout
            .map_or(Duration::from_secs(55), Duration::from)
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
            .map_or(Duration::from_secs(300), Duration::from)
    }

    pub(super) fn output_limit(&self) -> u64 {
        self.output_limit.map_or(64 << 20, u64::from)
    }
}

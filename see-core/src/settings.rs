//! Settings of the context section that every backend shares with the rest of the framework.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;

use crate::config::{DurationValue, Size};

/// What a run may use; reaching a limit ends the run and names it.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// The longest a run may take, from power-on to the end of its protocol. 10 minutes.
    pub run: DurationValue,
    /// The largest the sandbox's overlay may grow. 4 GiB.
    pub disk: Size,
    /// The most that hooks may write into the results folder. 2 GiB.
    pub results: Size,
    /// The most that is kept of the guest's console. 16 MiB.
    pub console: Size,
    /// The most that hooks may take down of the machine, in pictures, dumps and recordings; they lie
    /// among the results and count there too. 1 GiB.
    pub captures: Size,
    /// The processor time of the guest and what runs it, on all processors together. Four times
    /// `run`.
    pub cpu: Option<DurationValue>,
    /// The host's memory that the sandbox may take beyond what its guest was given. 2 GiB.
    pub memory: Option<Size>,
    /// The processes and threads of the sandbox on the host. 4096.
    pub pids: Option<u64>,
}

impl Limits {
    /// The processor time that holds where none is said.
    pub(crate) fn cpu(&self) -> DurationValue {
        let usual = || DurationValue(self.run.0.saturating_mul(4));
        self.cpu.unwrap_or_else(usual)
    }

    /// The memory that holds where none is said.
    pub(crate) fn memory(&self) -> Size {
        self.memory.unwrap_or(Size(2 << 30))
    }

    /// The number of processes that holds where none is said.
    pub(crate) fn pids(&self) -> u64 {
        self.pids.unwrap_or(4096)
    }

    /// The limits that somebody wrote of those for which the sandbox has to be measured.
    pub(crate) fn measured(&self) -> Vec<&'static str> {
        let written = [
            ("cpu", self.cpu.is_some()),
            ("memory", self.memory.is_some()),
            ("pids", self.pids.is_some()),
        ];
        let written = written.into_iter().filter(|(_, is_written)| *is_written);
        written.map(|(key, _)| key).collect()
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            run: DurationValue(Duration::from_secs(600)),
            disk: Size(4 << 30),
            results: Size(2 << 30),
            console: Size(16 << 20),
            captures: Size(1 << 30),
            cpu: None,
            memory: None,
            pids: None,
        }
    }
}

/// How the agent in the guest is reached.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub struct AgentSettings {
    /// By which way. `serial`.
    pub transport: AgentTransport,
    /// The TCP port on which the agent listens. 4747.
    pub port: u16,
    /// The token that the agent in the image expects over TCP.
    pub token: Option<Secret>,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self {
            transport: AgentTransport::Serial,
            port: 4747,
            token: None,
        }
    }
}

/// The ways to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AgentTransport {
    /// A virtio-serial port: needs no network.
    Serial,
    /// The guest's network, with a token.
    Tcp,
    /// There is no agent.
    None,
}

/// A text that is never shown: its debug form hides it.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that it is meant for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

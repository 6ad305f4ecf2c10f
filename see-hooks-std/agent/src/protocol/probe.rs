//! What the guest can reach: what the host asks the agent to try, and what came of it.

use super::wire::{milliseconds, text};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// The most targets of one [`Probe`].
pub const MAX_TARGETS: usize = 128;

/// The longest time in which a target may answer.
pub const MAX_PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// The longest text of a [`Finding`] in bytes: an answer with as many as possible still fits a frame.
pub const MAX_FINDING: usize = 256;

/// Tries what is to be closed to the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// How long each try waits for an answer; at most [`MAX_PROBE_PATIENCE`].
    #[serde(rename = "patience_ms", with = "milliseconds")]
    pub patience: Duration,
    /// What is tried; at most [`MAX_TARGETS`].
    pub targets: Vec<ProbeTarget>,
}

/// Something to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeTarget {
    /// A TCP connection; taken and reset are both answers.
    Tcp(#[serde(with = "text")] SocketAddr),
    /// A datagram; one that comes back and an ICMP refusal are both answers.
    Udp(#[serde(with = "text")] SocketAddr),
    /// An echo request.
    Ping(#[serde(with = "text")] IpAddr),
    /// A question for this name's address, by UDP and by TCP; whatever the server says is an answer.
    Dns(#[serde(with = "text")] SocketAddr, String),
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// It was tried, and nothing answered.
    Silent,
    /// Something answered: how, for people.
    Answered(String),
    /// The guest has no way there, so that nothing left it.
    Unreachable,
    /// It could not be tried: why, for people.
    Untried(String),
}

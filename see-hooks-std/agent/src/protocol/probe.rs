//! What the guest can reach: what the host asks the agent to try, and what came of it.

use super::field::{FieldReader, FieldWriter, check};
use super::guest::cut;
use super::{MAX_NAME, ProtocolError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// The most targets of one [`Probe`].
pub const MAX_TARGETS: usize = 128;

/// The longest time in which a target may answer.
pub const MAX_PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// The longest text of a [`Finding`] in bytes: an answer with as many as possible still fits a frame.
pub const MAX_FINDING: usize = 256;

/// Tries what is to be closed to the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// How long each try waits for an answer; at most [`MAX_PROBE_PATIENCE`].
    pub patience: Duration,
    /// What is tried; at most [`MAX_TARGETS`].
    pub targets: Vec<ProbeTarget>,
}

/// Something to try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeTarget {
    /// A TCP connection; taken and reset are both answers.
    Tcp(SocketAddr),
    /// A datagram; one that comes back and an ICMP refusal are both answers.
    Udp(SocketAddr),
    /// An echo request.
    Ping(IpAddr),
    /// A question for this name's address, by UDP and by TCP; whatever the server says is an answer.
    Dns(SocketAddr, String),
}

/// What came of a try.
#[derive(Debug, Clone, PartialEq, Eq)]
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

mod kind {
    pub(super) const TCP: u8 = 0;
    pub(super) const UDP: u8 = 1;
    pub(super) const PING: u8 = 2;
    pub(super) const DNS: u8 = 3;

    pub(super) const SILENT: u8 = 0;
    pub(super) const ANSWERED: u8 = 1;
    pub(super) const UNREACHABLE: u8 = 2;
    pub(super) const UNTRIED: u8 = 3;
}

impl Probe {
    pub(super) fn write(&self, w: &mut FieldWriter) {
        w.u32(u32::try_from(self.patience.as_millis()).unwrap_or(u32::MAX));
        w.u32(u32::try_from(self.targets.len()).unwrap_or(u32::MAX));
        for target in &self.targets {
            target.write(w);
        }
    }

    pub(super) fn read(r: &mut FieldReader<'_>) -> Result<Self, ProtocolError> {
        let patience = r.u32()?;
        check(
            "the patience in milliseconds",
            u64::from(patience),
            MAX_PROBE_PATIENCE.as_millis() as u64,
        )?;
        let count = r.count("the number of targets", MAX_TARGETS)?;
        let mut targets = Vec::new();
        for _ in 0..count {
            targets.push(ProbeTarget::read(r)?);
        }
        Ok(Self {
            patience: Duration::from_millis(u64::from(patience)),
            targets,
        })
    }
}

impl ProbeTarget {
    fn write(&self, w: &mut FieldWriter) {
        match self {
            Self::Tcp(address) => write_socket(w.u8(kind::TCP), *address),
            Self::Udp(address) => write_socket(w.u8(kind::UDP), *address),
            Self::Ping(address) => write_address(w.u8(kind::PING), *address),
            Self::Dns(server, name) => {
                write_socket(w.u8(kind::DNS), *server);
                w.bytes(name.as_bytes());
            }
        }
    }

    fn read(r: &mut FieldReader<'_>) -> Result<Self, ProtocolError> {
        let kind = r.u8()?;
        check("the kind of target", u64::from(kind), u64::from(kind::DNS))?;
        Ok(match kind {
            kind::TCP => Self::Tcp(read_socket(r)?),
            kind::UDP => Self::Udp(read_socket(r)?),
            kind::PING => Self::Ping(read_address(r)?),
            _ => Self::Dns(read_socket(r)?, r.text("the name's length", MAX_NAME)?),
        })
    }
}

impl Finding {
    pub(super) fn write(&self, w: &mut FieldWriter) {
        match self {
            Self::Silent => w.u8(kind::SILENT),
            Self::Answered(how) => w.u8(kind::ANSWERED).bytes(cut(how, MAX_FINDING)),
            Self::Unreachable => w.u8(kind::UNREACHABLE),
            Self::Untried(why) => w.u8(kind::UNTRIED).bytes(cut(why, MAX_FINDING)),
        };
    }

    pub(super) fn read(r: &mut FieldReader<'_>) -> Result<Self, ProtocolError> {
        let kind = r.u8()?;
        check(
            "the kind of finding",
            u64::from(kind),
            u64::from(kind::UNTRIED),
        )?;
        Ok(match kind {
            kind::SILENT => Self::Silent,
            kind::ANSWERED => Self::Answered(r.text("the answer's length", MAX_FINDING)?),
            kind::UNREACHABLE => Self::Unreachable,
            _ => Self::Untried(r.text("the reason's length", MAX_FINDING)?),
        })
    }
}

fn write_socket(w: &mut FieldWriter, address: SocketAddr) {
    write_address(w, address.ip());
    w.u16(address.port());
}

fn read_socket(r: &mut FieldReader<'_>) -> Result<SocketAddr, ProtocolError> {
    Ok(SocketAddr::new(read_address(r)?, r.u16()?))
}

/// The length of the address in bytes, and the address.
fn write_address(w: &mut FieldWriter, address: IpAddr) {
    match address {
        IpAddr::V4(address) => w.bytes(&address.octets()),
        IpAddr::V6(address) => w.bytes(&address.octets()),
    };
}

fn read_address(r: &mut FieldReader<'_>) -> Result<IpAddr, ProtocolError> {
    let octets = r.bytes("the address's length", 16)?;
    if let Ok(octets) = <[u8; 4]>::try_from(octets) {
        return Ok(Ipv4Addr::from(octets).into());
    }
    let octets = <[u8; 16]>::try_from(octets).map_err(|_| ProtocolError::Truncated)?;
    Ok(Ipv6Addr::from(octets).into())
}

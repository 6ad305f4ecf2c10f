//! What a domain is doing.

use std::fmt;
use std::os::raw::c_int;
use std::time::Duration;

use virt_sys as sys;

use super::Domain;
use crate::ability::Ability;
use crate::error::{Cause, Error};

/// libvirt's states of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DomainState {
    /// The hypervisor keeps no state.
    NoState,
    /// The CPUs run.
    Running,
    /// Running, and waiting for a resource.
    Blocked,
    /// The CPUs are halted; see the reason.
    Paused,
    /// On its way down, and not there yet.
    Shutdown,
    /// Not running.
    Shutoff,
    /// Stopped by a crash.
    Crashed,
    /// Put to sleep by the guest's power management.
    PmSuspended,
    /// A state this version does not know.
    Other(i32),
}

impl DomainState {
    fn from_libvirt(state: c_int) -> Self {
        match u32::try_from(state) {
            Ok(sys::VIR_DOMAIN_NOSTATE) => Self::NoState,
            Ok(sys::VIR_DOMAIN_RUNNING) => Self::Running,
            Ok(sys::VIR_DOMAIN_BLOCKED) => Self::Blocked,
            Ok(sys::VIR_DOMAIN_PAUSED) => Self::Paused,
            Ok(sys::VIR_DOMAIN_SHUTDOWN) => Self::Shutdown,
            Ok(sys::VIR_DOMAIN_SHUTOFF) => Self::Shutoff,
            Ok(sys::VIR_DOMAIN_CRASHED) => Self::Crashed,
            Ok(sys::VIR_DOMAIN_PMSUSPENDED) => Self::PmSuspended,
            _ => Self::Other(state),
        }
    }
}

impl fmt::Display for DomainState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoState => "no state",
            Self::Running => "running",
            Self::Blocked => "blocked",
            Self::Paused => "paused",
            Self::Shutdown => "shutting down",
            Self::Shutoff => "shut off",
            Self::Crashed => "crashed",
            Self::PmSuspended => "asleep",
            Self::Other(state) => return write!(f, "state {state}"),
        })
    }
}

/// A state with libvirt's reason for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DomainStatus {
    /// The state.
    pub state: DomainState,
    /// libvirt's number of the reason; its meaning depends on the state.
    pub reason: i32,
}

impl DomainStatus {
    /// Whether the domain is off because its hypervisor's process ended without a shutdown.
    #[must_use]
    pub fn hypervisor_crashed(&self) -> bool {
        self.state == DomainState::Shutoff
            && u32::try_from(self.reason) == Ok(sys::VIR_DOMAIN_SHUTOFF_CRASHED)
    }
}

/// A domain's resources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DomainInfo {
    /// The most memory it may get, in bytes.
    pub max_memory: u64,
    /// The memory it has, in bytes.
    pub memory: u64,
    /// The number of virtual CPUs.
    pub cpus: u32,
    /// The CPU time it used.
    pub cpu_time: Duration,
}

impl Domain {
    /// The state and libvirt's reason for it.
    ///
    /// # Errors
    /// [`Error::is_no_domain`] for a transient domain that ended, whatever else libvirt reports,
    /// or the time limit.
    pub async fn status(&self) -> Result<DomainStatus, Error> {
        self.object
            .repeat("read the state of", |domain| {
                let (mut state, mut reason): (c_int, c_int) = (0, 0);
                // The `virt` crate's own call does not look at the result.
                // SAFETY: the domain is valid, and both pointers are to live variables.
                let result = unsafe {
                    sys::virDomainGetState(domain.as_ptr(), &raw mut state, &raw mut reason, 0)
                };
                if result < 0 {
                    return Err(Cause::last());
                }
                Ok(DomainStatus {
                    state: DomainState::from_libvirt(state),
                    reason,
                })
            })
            .await
    }

    /// Memory, CPUs and CPU time.
    ///
    /// # Errors
    /// As [`Domain::status`].
    pub async fn info(&self) -> Result<DomainInfo, Error> {
        self.object
            .repeat("read the resources of", |domain| {
                let info = domain.info()?;
                Ok(DomainInfo {
                    max_memory: info.max_mem.saturating_mul(1024),
                    memory: info.memory.saturating_mul(1024),
                    cpus: info.nr_virt_cpu,
                    cpu_time: Duration::from_nanos(info.cpu_time),
                })
            })
            .await
    }

    /// The host's memory that its processes have, in bytes; `None` where the driver does not know.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] for a domain that does not run, [`Error::is_unsupported`], and as
    /// [`Domain::status`].
    pub async fn resident_memory(&self) -> Result<Option<u64>, Error> {
        let operation = "read the memory of";
        self.object.require(Ability::MemoryStats, operation)?;
        self.object
            .repeat(operation, |domain| {
                let resident = domain
                    .memory_stats(0)?
                    .into_iter()
                    .find(|stat| stat.tag == sys::VIR_DOMAIN_MEMORY_STAT_RSS)
                    .map(|stat| stat.val.saturating_mul(1024));
                Ok(resident)
            })
            .await
    }
}

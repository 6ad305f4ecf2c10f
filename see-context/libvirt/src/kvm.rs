//! Whether KVM is worth using: asked by running something, since the device node proves nothing.
//!
//! Some hosts offer a `/dev/kvm` that makes machines and runs ordinary kernels a thousand times
//! too slowly, because a hypervisor further down emulates privileged code. The probe runs twenty
//! million turns of a loop in 64-bit ring 0. A usable host needs some 20 ms for it.

#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::fmt;
use std::time::Duration;

/// The turns of the loop that must be done …
pub const PROBE_TURNS: u64 = 20_000_000;
/// … within this time.
pub const PROBE_LIMIT: Duration = Duration::from_millis(500);

/// What the probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvmProbe {
    /// KVM runs guests at speed.
    Usable {
        /// The time that the loop took.
        took: Duration,
    },
    /// There is no `/dev/kvm`.
    NoDevice,
    /// The device cannot be opened by this user.
    NoPermission,
    /// Guests run, but too slowly to be of use.
    TooSlow {
        /// The turns that were done …
        turns: u64,
        /// … in this time.
        after: Duration,
    },
    /// A step towards running a guest failed.
    Failed {
        /// The step.
        step: &'static str,
        /// Why.
        reason: String,
    },
    /// The probe knows no loop for this processor.
    OtherProcessor,
}

impl fmt::Display for KvmProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usable { took } => write!(f, "usable: the probe's loop took {took:.1?}"),
            Self::NoDevice => f.write_str("no /dev/kvm"),
            Self::NoPermission => f.write_str("no permission to open /dev/kvm"),
            Self::TooSlow { turns, after } => write!(
                f,
                "too slow: {turns} of {PROBE_TURNS} turns of a loop after {after:.1?}"
            ),
            Self::Failed { step, reason } => write!(f, "{step} failed: {reason}"),
            Self::OtherProcessor => f.write_str("the probe knows x86-64 only"),
        }
    }
}

/// Tries KVM on this host: at most [`PROBE_LIMIT`] and one of the loop's two hundred parts.
///
/// The call blocks. Nothing of it is left afterwards.
pub fn probe() -> KvmProbe {
    #[cfg(target_arch = "x86_64")]
    {
        x86_64::probe().unwrap_or_else(|unusable| unusable)
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        KvmProbe::OtherProcessor
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_probe_ends_in_time_and_usable_means_fast() {
        let begin = Instant::now();
        let probe = probe();
        assert!(begin.elapsed() < PROBE_LIMIT * 20, "{probe}");
        match &probe {
            KvmProbe::Usable { took } => assert!(*took <= PROBE_LIMIT, "{probe}"),
            KvmProbe::TooSlow { turns, after } => {
                assert!(*turns <= PROBE_TURNS && *after > PROBE_LIMIT, "{probe}");
            }
            // Nothing was run: only a host without a working device may say so.
            other => assert!(!other.to_string().is_empty()),
        }
    }

    #[test]
    fn without_the_device_node_the_reason_is_that() {
        if !std::path::Path::new("/dev/kvm").exists() {
            assert_eq!(probe(), KvmProbe::NoDevice);
        }
    }

    #[test]
    fn a_reason_is_a_line_for_the_log() {
        let slow = KvmProbe::TooSlow {
            turns: 1_200_000,
            after: Duration::from_millis(512),
        };
        assert_eq!(
            slow.to_string(),
            "too slow: 1200000 of 20000000 turns of a loop after 512.0ms"
        );
    }
}

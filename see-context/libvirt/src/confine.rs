//! Taking root's capabilities from the emulator.
//!
//! libvirt means to start QEMU without capabilities, but a program that root executes gets all of them back, as far as
//! the bounding set allows, and libvirt leaves that set full. So a domain is started from a thread on which being root
//! means nothing to a program that is executed (`SECBIT_NOROOT`, locked): libvirt's own work keeps its capabilities,
//! the processes that it executes get none. The thread ends with the call, because this cannot be taken back.
//!
//! Emptying the thread's bounding set would do the same, and keep libvirt from asking an emulator what it can do:
//! before that it takes capabilities from itself, which fails where there are none left to take ("cannot apply process
//! capabilities"). It asks within a start whenever what it knew has become stale.

use std::thread;

use rustix::io::Errno;
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, capabilities, capabilities_secure_bits,
    capability_is_in_bounding_set, clear_ambient_capability_set, set_capabilities,
    set_capabilities_secure_bits,
};

use crate::error::Cause;
use crate::processor::on_the_first_core;

/// Runs `work`, which starts an emulator, on a thread that has no capabilities to pass on, on the core on which libvirt
/// asks the processor what it is.
pub(crate) fn without_capabilities<T: Send>(
    work: impl FnOnce() -> Result<T, Cause> + Send,
) -> Result<T, Cause> {
    thread::scope(|scope| {
        let confined = thread::Builder::new()
            .name("libvirt-start".into())
            .spawn_scoped(scope, || {
                forbid_capabilities()?;
                on_the_first_core(work)
            })
            .map_err(|error| Cause::Aborted(format!("no thread to start it from: {error}")))?;
        confined
            .join()
            .unwrap_or_else(|_| Err(Cause::Aborted("the starting thread panicked".into())))
    })
}

/// What this thread executes gets no capabilities.
fn forbid_capabilities() -> Result<(), Cause> {
    if !has_any() {
        return Ok(());
    }
    let forbid = || {
        clear_ambient_capability_set()?;
        let mut own = capabilities(None)?;
        own.inheritable = CapabilitySet::empty();
        set_capabilities(None, own)?;
        let locked = CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED;
        set_capabilities_secure_bits(capabilities_secure_bits()? | locked)
    };
    forbid().map_err(|error: Errno| {
        Cause::Aborted(format!(
            "the emulator would keep root's capabilities, which this process may not forbid: {error}; run as an \
             ordinary user"
        ))
    })
}

/// Whether a program that root executes here would get a capability.
fn has_any() -> bool {
    CapabilitySet::all()
        .iter()
        .any(|capability| capability_is_in_bounding_set(capability).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn sets(status: &str) -> Vec<String> {
        let lines = status.lines().filter(|line| line.starts_with("Cap"));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn what_the_starting_thread_executes_has_no_capabilities_and_the_thread_keeps_its_own() {
        let own = || sets(&std::fs::read_to_string("/proc/thread-self/status").unwrap());
        let before = own();
        let inside = without_capabilities(|| {
            let executed = Command::new("cat").arg("/proc/self/status").output();
            let executed = executed.map_err(|error| Cause::Aborted(error.to_string()))?;
            Ok((own(), sets(&String::from_utf8_lossy(&executed.stdout))))
        });
        match inside {
            Ok((thread, executed)) => {
                let held = |sets: &[String], which: &str| {
                    let line = sets.iter().find(|line| line.starts_with(which));
                    let digits = line.and_then(|line| line.split_whitespace().nth(1));
                    u64::from_str_radix(digits.unwrap(), 16).unwrap()
                };
                assert_eq!(held(&thread, "CapEff"), held(&before, "CapEff"));
                assert_eq!(held(&thread, "CapBnd"), held(&before, "CapBnd"));
                for which in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                    assert_eq!(held(&executed, which), 0, "{executed:?}");
                }
            }
            // Without the right to forbid capabilities there are none to pass on.
            Err(cause) => assert!(cause.to_string().contains("ordinary user"), "{cause}"),
        }
        assert_eq!(own(), before);
    }
}

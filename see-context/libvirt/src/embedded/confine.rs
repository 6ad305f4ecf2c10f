//! Taking root's capabilities from the emulator.
//!
//! libvirt means to start QEMU without capabilities, but a program that root executes gets back
//! whatever its bounding set allows, and libvirt leaves that set full. So a domain is started
//! from a thread whose bounding set is empty: libvirt's own work on it keeps its capabilities,
//! the processes that it executes have none. The thread ends with the call, because the set
//! cannot be filled again.

use std::thread;

use crate::error::Cause;

/// Runs `work`, which starts an emulator, on a thread that has no capabilities to pass on.
pub(crate) fn without_capabilities<T: Send>(
    work: impl FnOnce() -> Result<T, Cause> + Send,
) -> Result<T, Cause> {
    thread::scope(|scope| {
        let confined = thread::Builder::new()
            .name("libvirt-start".into())
            .spawn_scoped(scope, || {
                empty_bounding_set()?;
                work()
            })
            .map_err(|error| Cause::Aborted(format!("no thread to start it from: {error}")))?;
        confined
            .join()
            .unwrap_or_else(|_| Err(Cause::Aborted("the starting thread panicked".into())))
    })
}

fn empty_bounding_set() -> Result<(), Cause> {
    // Capabilities are numbered from 0 without gaps; the kernel tells the end by an error.
    for capability in 0_u64..64 {
        // SAFETY: both requests take numbers alone and change nothing but this thread.
        let result = unsafe {
            match libc::prctl(libc::PR_CAPBSET_READ, capability, 0, 0, 0) {
                1 => libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0),
                0 => 0,
                _ => return Ok(()),
            }
        };
        if result < 0 {
            return Err(Cause::Aborted(format!(
                "the emulator would keep root's capability {capability}, which this process may \
                 not drop: {}; run as an ordinary user",
                std::io::Error::last_os_error()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounding_set() -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("CapBnd"));
        line.unwrap().to_owned()
    }

    #[test]
    fn only_the_starting_thread_loses_the_set() {
        let before = bounding_set();
        match without_capabilities(|| Ok(bounding_set())) {
            Ok(inside) => assert_eq!(inside.trim_start_matches("CapBnd:\t").trim_matches('0'), ""),
            // Without the right to drop capabilities there are none to pass on.
            Err(cause) => assert!(cause.to_string().contains("ordinary user"), "{cause}"),
        }
        assert_eq!(bounding_set(), before);
    }
}

//! What hypervisors leave on a host: processes, control groups, bridges, and files of their own.
//!
//! Each module knows one kind and how to remove it, and none knows what SEE makes: this module imports, of this crate,
//! nothing but the table of drivers and how programs are run. The collectors of domains and networks stand on it.

pub(crate) mod bridge;
pub(crate) mod emulator;
mod groups;
pub(crate) mod look;
mod places;
mod traces;

use std::path::{Path, PathBuf};

use see_core::ledger::{CollectRequest, Collected};
use see_core::{Error, ErrorKind, Result};
use see_libvirt::is_on_this_host;

pub(crate) use self::traces::Traces;
use crate::driver::{Driver, is_session};

/// Ends the emulator of the environment, wherever it is on this host.
pub(crate) fn end_emulator(request: &CollectRequest) -> Result<Collected> {
    let uuid = request.identifier.to_string();
    let root = &request.resource.location;
    let ended = emulator::end_those(request, |line| emulator::has_arguments(line, &uuid, root))?;
    // Only for root does libvirt make any.
    let had_groups = !request.dry_run
        && rustix::process::geteuid().is_root()
        && match Traces::of(root) {
            Ok(traces) => traces.clear_groups("qemu", &uuid)?,
            Err(_) => false,
        };
    Ok(if had_groups {
        Collected::Removed
    } else {
        ended
    })
}

/// The file in which libvirt keeps what it and the emulator say of a domain; `None` on another host.
pub(crate) fn log_of(location: &str, name: &str) -> Option<PathBuf> {
    let folder = places::logs(location).filter(|_| is_here(location))?;
    Some(Path::new("/").join(folder).join(format!("{name}.log")))
}

/// The end of that file, of at most `limit` bytes; `None` where there is none.
pub(crate) fn log_tail(location: &str, name: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    match (Traces::of(location), places::logs(location)) {
        (Ok(traces), Some(folder)) => traces.log_tail(&folder, name, limit),
        _ => Ok(None),
    }
}

/// The number of the process that runs a domain, as libvirt noted it; `None` where it runs none.
///
/// # Errors
/// When this user may not read libvirt's notes.
pub(crate) fn pid_of(location: &str, name: &str) -> Result<Option<u32>> {
    match (Traces::of(location), places::state(location)) {
        (Ok(traces), Some(folder)) => traces.pid_in(&folder, name),
        _ => Err(Error::new(
            ErrorKind::PermissionDenied,
            "libvirt's notes of running machines are not to be read",
        )),
    }
}

/// The file system of the hypervisor at a location of the ledger's, where it is on this host and its files are this
/// user's to remove.
pub(crate) fn traces_of(location: &str) -> Option<Traces> {
    let may = is_here(location) && is_of_this_user(location);
    may.then(|| Traces::of(location).ok()).flatten()
}

/// Whether what a hypervisor keeps belongs to this user: everything to root, and an own daemon's to its user.
fn is_of_this_user(location: &str) -> bool {
    rustix::process::geteuid().is_root() || location.starts_with('/') || is_session(location)
}

/// Whether the hypervisor at a location of the ledger's keeps files that are known, and devices, on this host.
pub(crate) fn is_here(location: &str) -> bool {
    is_on_this_host(location) && Driver::of(location).folders.is_some()
}

/// Says what could not be cleared up.
pub(crate) fn note(cleared: Result<()>) {
    if let Err(error) = cleared {
        tracing::warn!(%error, "libvirt left files of its own");
    }
}

/// A deadline that passed.
fn late(request: &CollectRequest, what: &str) -> Error {
    Error::new(ErrorKind::Timeout, format!("{what} did not end in time"))
        .subject(&request.resource.name)
}

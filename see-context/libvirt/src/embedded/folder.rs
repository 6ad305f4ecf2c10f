//! Making, checking and opening up the root folder.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::{EmulatorAccount, MAX_ROOT_LENGTH};
use crate::error::Cause;

/// libvirt would otherwise start a log daemon beside every user, or fail as root without one.
const COMMON: &str = "stdio_handler = \"file\"\n";

/// Keeps QEMU on the caller's account and every file with its owner.
const AS_CALLER: &str = "user = \"+0\"\ngroup = \"+0\"\ndynamic_ownership = 0\n\
                         remember_owner = 0\nclear_emulator_capabilities = 1\n";

pub(super) fn create(path: &Path, account: EmulatorAccount) -> Result<(), Cause> {
    check_path(path)?;
    let separate = is_root() && account == EmulatorAccount::Libvirt;
    if separate {
        check_ancestors(path)?;
    }
    DirBuilder::new()
        .mode(0o700)
        .create(path)
        .map_err(|error| Cause::file(path, error))?;
    let filled = fill(path, account, separate);
    if filled.is_err() {
        // The folder is new and ours; the first error is the one to tell.
        let _ = fs::remove_dir_all(path);
    }
    filled
}

fn fill(path: &Path, account: EmulatorAccount, separate: bool) -> Result<(), Cause> {
    if separate {
        // libvirt's probes already run on the other account; `narrow` takes this back from
        // everybody else.
        fs::set_permissions(path, fs::Permissions::from_mode(0o711))
            .map_err(|error| Cause::file(path, error))?;
    }
    let folder = path.join("etc");
    DirBuilder::new()
        .mode(0o700)
        .create(&folder)
        .map_err(|error| Cause::file(&folder, error))?;
    let file = folder.join("qemu.conf");
    let mut text = String::from(COMMON);
    if is_root() && account == EmulatorAccount::Caller {
        text.push_str(AS_CALLER);
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&file)
        .and_then(|mut out| out.write_all(text.as_bytes()))
        .map_err(|error| Cause::file(file, error))
}

/// Once libvirt has opened the root its `lib/qemu` belongs to the emulator's account: lets the
/// group of that account pass the root, and nobody else.
pub(super) fn narrow(path: &Path) -> Result<(), Cause> {
    let inner = path.join("lib/qemu");
    let owner = fs::metadata(&inner).map_err(|error| Cause::file(&inner, error))?;
    if !is_root() || owner.uid() == 0 {
        return Ok(());
    }
    std::os::unix::fs::chown(path, None, Some(owner.gid()))
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o710)))
        .map_err(|error| Cause::file(path, error))
}

pub(super) fn check_existing(path: &Path) -> Result<(), Cause> {
    check_path(path)?;
    let found = fs::symlink_metadata(path).map_err(|error| Cause::file(path, error))?;
    if !found.is_dir() {
        return Err(Cause::UnfitRoot(
            "it is no folder; a root is one, and not a link to one".into(),
        ));
    }
    if found.uid() != effective_uid() {
        return Err(Cause::UnfitRoot(format!(
            "it belongs to uid {}; a root belongs to the user of the process, uid {}",
            found.uid(),
            effective_uid()
        )));
    }
    Ok(())
}

fn check_path(path: &Path) -> Result<(), Cause> {
    let length = path.as_os_str().as_bytes().len();
    if !path.is_absolute() {
        return Err(Cause::UnfitRoot(
            "the path is relative; the embedded driver takes an absolute one".into(),
        ));
    }
    if length > MAX_ROOT_LENGTH {
        return Err(Cause::UnfitRoot(format!(
            "the path has {length} bytes; with more than {MAX_ROOT_LENGTH} the paths of QEMU's \
             sockets get too long for the system"
        )));
    }
    Ok(())
}

/// The emulator's account has to reach the root.
fn check_ancestors(path: &Path) -> Result<(), Cause> {
    for folder in path.ancestors().skip(1) {
        let found = fs::metadata(folder).map_err(|error| Cause::file(folder, error))?;
        if found.mode() & 0o001 == 0 {
            return Err(Cause::UnfitRoot(format!(
                "{} lets only its owner and group in (mode {:o}); QEMU on libvirt's own account \
                 has to pass it, so choose a root under /run or /tmp",
                folder.display(),
                found.mode() & 0o7777
            )));
        }
    }
    Ok(())
}

pub(super) fn is_root() -> bool {
    effective_uid() == 0
}

fn effective_uid() -> u32 {
    // SAFETY: takes nothing, touches nothing, cannot fail.
    unsafe { libc::geteuid() }
}

//! Facts about this host: its folders, and whether KVM is worth using.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use see_core::config::ConfigPath;
use see_core::{Error, ErrorKind, Result};
use see_libvirt::kvm::{self, KvmProbe};
use see_libvirt::xml::MAX_SIZE;

/// The longest path of a folder in which roots and sockets are made, in bytes. The longest thing
/// in it is a root, `see-` and 16 digits, whose whole path libvirt bounds at 48.
const LONGEST_SHORT_FOLDER: usize = 26;

/// The folder for sockets and the embedded driver's root, whose paths the system bounds.
pub(crate) fn short_folder() -> Result<PathBuf> {
    let temporary = std::env::temp_dir();
    [temporary, PathBuf::from("/tmp"), PathBuf::from("/run")]
        .into_iter()
        .find(|folder| {
            folder.is_absolute()
                && folder.as_os_str().as_bytes().len() <= LONGEST_SHORT_FOLDER
                && folder.is_dir()
        })
        .ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                "there is no temporary folder with a short path, as sockets need",
            )
            .advice("set TMPDIR to one of at most 26 bytes")
        })
}

/// The folder for what is found out once about this host; `None` without a home.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    let absolute = |name: &str| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let caches = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(caches.join("see/libvirt"))
}

/// Whether KVM is usable here, and why not. The loop is run once a boot; call it where blocking
/// is allowed.
pub(crate) fn kvm() -> (bool, String) {
    // Rights change without a reboot, and finding them out costs nothing.
    if fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        let probe = kvm::probe();
        return (probe.is_usable(), probe.to_string());
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let boot = boot.trim();
    let file = cache_folder().map(|folder| folder.join("kvm"));
    if let Some(text) = file.as_ref().and_then(|file| fs::read_to_string(file).ok())
        && let [known, verdict, reason] = text.lines().collect::<Vec<_>>()[..]
        && !boot.is_empty()
        && known == boot
    {
        return (verdict == "usable", reason.to_owned());
    }
    let probe = kvm::probe();
    let reason = probe.to_string();
    // Only what the loop showed holds until the next boot.
    if matches!(probe, KvmProbe::Usable { .. } | KvmProbe::TooSlow { .. })
        && let Some(file) = file
    {
        let verdict = if probe.is_usable() {
            "usable"
        } else {
            "unusable"
        };
        // Without the file the loop is run again.
        if let Some(folder) = file.parent()
            && let Err(error) = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .and_then(|()| fs::write(&file, format!("{boot}\n{verdict}\n{reason}\n")))
        {
            tracing::debug!(%error, "what the KVM probe found is not kept");
        }
    }
    (probe.is_usable(), reason)
}

/// Refuses to go on without a program, and names its package.
pub(crate) fn require_program(name: &str, package: &str) -> Result<()> {
    if has_program(name) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        format!("the program {name} is not installed"),
    )
    .advice(format!(
        "on Debian and Ubuntu it is in the package {package}"
    )))
}

/// Whether a program can be found by its name.
fn has_program(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

/// Whether this host has a network device of this name.
pub(crate) fn has_device(name: &str) -> bool {
    let is_name = !name.is_empty() && !name.contains('/') && name != "." && name != "..";
    is_name && PathBuf::from("/sys/class/net").join(name).exists()
}

/// The bytes of an XML file that the configuration names; far longer ones are not read.
pub(crate) fn read_xml(path: &ConfigPath, what: &str) -> Result<Vec<u8>> {
    let file = path.existing_file(what)?;
    let failed = |error| {
        let error = Error::io(format!("{what} cannot be read"), error);
        Error::new(ErrorKind::Configuration, error.message().to_owned())
            .subject(file.display())
            .at(path.place().clone())
            .caused_by(error)
    };
    let mut bytes = Vec::new();
    fs::File::open(&file)
        .map_err(failed)?
        .take(MAX_SIZE as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

//! Facts about this host: its folders, and whether KVM is worth using.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// What is known of KVM on this host, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kvm {
    /// It runs guests at speed.
    Usable(String),
    /// It runs guests, too slowly to be of use.
    TooSlow(String),
    /// This process cannot use it; another one may.
    Unavailable(String),
    /// It is there; how fast it is cannot be tried on this processor.
    Untried(String),
}

/// Tries KVM, at most once a boot where it is usable. Call it where blocking is allowed.
pub(crate) fn kvm() -> Kvm {
    // Rights change without a reboot, and finding them out costs nothing.
    if fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .is_err()
    {
        return Kvm::Unavailable(kvm::probe().to_string());
    }
    let file = cache_folder().map(|folder| folder.join("kvm"));
    let now = Moment::now();
    let known = file.as_ref().and_then(|file| read_verdict(file, &now));
    known.unwrap_or_else(|| {
        let probe = kvm::probe();
        let reason = probe.to_string();
        let verdict = match probe {
            KvmProbe::Usable { .. } => Kvm::Usable(reason),
            KvmProbe::TooSlow { .. } => Kvm::TooSlow(reason),
            KvmProbe::OtherProcessor => Kvm::Untried(reason),
            _ => Kvm::Unavailable(reason),
        };
        // Without the file the loop is run again.
        if let Some(file) = file
            && let Err(error) = write_verdict(&file, &now, &verdict)
        {
            tracing::debug!(%error, "what the KVM probe found is not kept");
        }
        verdict
    })
}

/// How long KVM is taken for too slow: a host that was busy for half a second may be fast the next time.
const SLOW: Duration = Duration::from_secs(600);

/// A moment of a boot.
#[derive(Debug, Clone)]
struct Moment {
    boot: String,
    /// Since the boot.
    passed: Duration,
}

impl Moment {
    fn now() -> Self {
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let passed = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Self {
            boot: boot.trim().to_owned(),
            passed: passed.try_into().unwrap_or_default(),
        }
    }
}

/// What the loop showed, as far as it still holds: that it is fast until the next boot.
fn read_verdict(file: &Path, now: &Moment) -> Option<Kvm> {
    let text = fs::read_to_string(file).ok()?;
    let [boot, verdict, passed, reason] = text.lines().collect::<Vec<_>>()[..] else {
        return None;
    };
    if now.boot.is_empty() || boot != now.boot {
        return None;
    }
    let age = now
        .passed
        .checked_sub(Duration::from_secs(passed.parse().ok()?))?;
    match verdict {
        "usable" => Some(Kvm::Usable(reason.to_owned())),
        "slow" if age < SLOW => Some(Kvm::TooSlow(reason.to_owned())),
        _ => None,
    }
}

/// Keeps what the loop showed; other reasons may be gone the next time.
fn write_verdict(file: &Path, now: &Moment, verdict: &Kvm) -> std::io::Result<()> {
    let (word, reason) = match verdict {
        Kvm::Usable(reason) => ("usable", reason),
        Kvm::TooSlow(reason) => ("slow", reason),
        Kvm::Unavailable(_) | Kvm::Untried(_) => return Ok(()),
    };
    if let Some(folder) = file.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
    }
    let (boot, passed) = (&now.boot, now.passed.as_secs());
    fs::write(file, format!("{boot}\n{word}\n{passed}\n{reason}\n"))
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

/// The first part of a path that an account other than its owner cannot pass or read, for advice
/// after the emulator was refused.
pub(crate) fn first_closed(path: &Path) -> Option<PathBuf> {
    first_closed_to(path, |part, is_file| {
        let needed = if is_file { 0o004 } else { 0o001 };
        fs::metadata(part).is_ok_and(|found| found.permissions().mode() & needed != 0)
    })
}

/// The first part of a path that somebody may not pass or, where it is the file itself, not read. Where a part is a
/// symbolic link, what it leads to counts as well.
pub(crate) fn first_closed_to(path: &Path, may: impl Fn(&Path, bool) -> bool) -> Option<PathBuf> {
    let real = path.canonicalize().ok();
    let closed = |whole: &Path| {
        let mut parts: Vec<&Path> = whole.ancestors().collect();
        parts.reverse();
        parts
            .into_iter()
            .find(|part| part.exists() && !may(part, *part == whole))
            .map(Path::to_owned)
    };
    closed(path).or_else(|| closed(&real?))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_kvm_is_tried_again_after_minutes_and_a_fast_one_after_the_next_boot() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("see/kvm");
        let at = |boot: &str, passed: u64| Moment {
            boot: boot.to_owned(),
            passed: Duration::from_secs(passed),
        };
        let slow = Kvm::TooSlow("busy".to_owned());
        write_verdict(&file, &at("a", 1000), &slow).unwrap();
        assert_eq!(read_verdict(&file, &at("a", 1599)), Some(slow));
        assert_eq!(read_verdict(&file, &at("a", 1600)), None);
        assert_eq!(read_verdict(&file, &at("b", 1001)), None);
        let fast = Kvm::Usable("20 ms".to_owned());
        write_verdict(&file, &at("a", 1000), &fast).unwrap();
        assert_eq!(read_verdict(&file, &at("a", 99_999)), Some(fast.clone()));
        assert_eq!(read_verdict(&file, &at("b", 1001)), None);
        // What may be gone the next time is not kept.
        write_verdict(&file, &at("a", 1000), &Kvm::Unavailable("no".to_owned())).unwrap();
        assert_eq!(read_verdict(&file, &at("a", 1001)), Some(fast));
    }
}

//! The root file system of a host: made once by mmdebstrap from the archive that this host's apt uses.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Host;
use crate::command;
use crate::failure::{Failure, While, exit_code};
use crate::workspace;

/// The root in the host's folder.
pub(super) const ROOT: &str = "root";
/// The file that says from what the root was made.
const RECIPE: &str = "recipe";
/// The longest that the packages may take to arrive and to be unpacked.
const DEADLINE: Duration = Duration::from_secs(900);
const QUESTION: Duration = Duration::from_secs(60);

/// What the tests need there, by its name in Debian.
const PACKAGES: &[&str] = &[
    "ca-certificates",
    "dnsmasq-base",
    "e2fsprogs",
    "iproute2",
    "iptables",
    "iputils-ping",
    "libvirt-clients",
    "libvirt-daemon",
    "libvirt-daemon-driver-lxc",
    "libvirt-daemon-driver-nwfilter",
    "libvirt-daemon-driver-qemu",
    "libvirt-daemon-driver-secret",
    "libvirt-daemon-driver-storage",
    "libvirt-daemon-log",
    "nftables",
    "openssh-client",
    "openssh-server",
    "openssl",
    "ovmf",
    "procps",
    "python3-minimal",
    // Screens and sound by SPICE, QXL: what virt-install writes.
    "qemu-system-modules-spice",
    "qemu-system-x86",
    "qemu-utils",
    "xfsprogs",
];

/// What the root is made from.
fn recipe(host: Host) -> String {
    format!("{}\n{}\n", host.suite, PACKAGES.join("\n"))
}

/// Whether a root of these packages stands.
pub(super) fn is_made(host: Host) -> bool {
    let folder = host.folder();
    let made = fs::read_to_string(folder.join(RECIPE));
    folder.join(ROOT).is_dir() && made.is_ok_and(|made| made == recipe(host))
}

/// Makes the root, unless one of the same packages stands. It is made beside its place and renamed, so that an
/// interrupt leaves no half of one; and in namespaces, so that it leaves nothing mounted or running. The answer is what
/// keeps it from being made on this host at all; `None` where it stands.
pub(super) fn make(host: Host) -> Result<Option<Failure>, Failure> {
    let folder = host.folder();
    let failed = || format!("cannot make {}", folder.display());
    fs::create_dir_all(&folder).doing(failed())?;
    if is_made(host) {
        return Ok(None);
    }
    if let Some(obstacle) = obstacle(host)? {
        return Ok(Some(obstacle));
    }
    let lock = File::create(folder.join("lock")).doing(failed())?;
    lock.lock()
        .doing("cannot wait for another that makes the host")?;
    if is_made(host) {
        return Ok(None);
    }
    let Some(archive) = archive()? else {
        return Ok(Some(no_archive(host)));
    };
    println!("{}: making its root, once", host.name);
    let new = folder.join("new");
    // In this order: a root without its recipe is made again.
    let _ = fs::remove_file(folder.join(RECIPE));
    for old in [&new, &folder.join(ROOT)] {
        remove(old)?;
    }
    let mut mmdebstrap = Command::new("setpriv");
    mmdebstrap
        // Ended with this program, however that ends, and everything of it with it.
        .args(["--pdeathsig", "KILL", "--", "unshare"])
        .args(["--mount", "--propagation", "private", "--pid", "--fork"])
        .args(["--kill-child", "--mount-proc", "--", "mmdebstrap"])
        .args(["--mode=root", "--variant=minbase"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        .arg(r#"--aptopt=Acquire::Languages "none""#)
        .args(["--dpkgopt=path-exclude=/usr/share/doc/*"])
        .args(["--dpkgopt=path-exclude=/usr/share/man/*"])
        .args(["--dpkgopt=path-exclude=/usr/share/locale/*"])
        .arg(host.suite)
        .arg(&new)
        .arg(format!("deb {archive} {} main", host.suite))
        .env_remove("TMPDIR");
    command::output(&mut mmdebstrap, DEADLINE)?;
    fs::rename(&new, folder.join(ROOT)).doing(failed())?;
    fs::write(folder.join(RECIPE), recipe(host)).doing(failed())?;
    Ok(None)
}

/// What keeps the root from being made on this host, as far as it is seen without changing anything.
pub(super) fn obstacle(host: Host) -> Result<Option<Failure>, Failure> {
    let name = host.name;
    if workspace::program("apt-get").is_none() {
        let message = format!("the host {name} cannot be made here: this system has no apt");
        return Ok(Some(Failure::new(message)));
    }
    if sources()?.is_some_and(|archive| archive.is_none()) {
        return Ok(Some(no_archive(host)));
    }
    if workspace::program("mmdebstrap").is_none() {
        let message = format!(
            "the host {name} cannot be made without the program mmdebstrap, which `cargo xtask setup` installs"
        );
        return Ok(Some(Failure::with(exit_code::INSTALL_BY_HAND, message)));
    }
    if !rustix::process::geteuid().is_root() {
        let message = format!(
            "the host {name} cannot be made without root, as by `sudo -E {} hosts`",
            command::quoted(&workspace::own_program().to_string_lossy())
        );
        return Ok(Some(Failure::with(exit_code::MISSING_RIGHTS, message)));
    }
    Ok(None)
}

/// A source of another distribution's packages would harm this one: there is nothing to advise.
fn no_archive(host: Host) -> Failure {
    let message = format!(
        "the host {} cannot be made here: it consists of Debian's packages, and no source of this system's apt is \
         Debian's archive",
        host.name
    );
    Failure::new(message)
}

/// The URI of Debian's archive, where this host's apt has it.
fn archive() -> Result<Option<String>, Failure> {
    if let Some(archive) = sources()? {
        return Ok(archive);
    }
    let mut update = Command::new("apt-get");
    command::output(update.args(["update", "-q"]), DEADLINE)?;
    Ok(sources()?.flatten())
}

/// The URI of Debian's archive, if it is among apt's sources. `None` where apt has no lists of packages yet: without
/// them it does not know whose archives its sources are.
fn sources() -> Result<Option<Option<String>>, Failure> {
    let mut apt = Command::new("apt-get");
    apt.args(["indextargets", "--format"])
        .arg("$(REPO_URI) $(COMPONENT) $(ORIGIN)/$(LABEL)")
        .arg("Created-By: Packages");
    let targets = command::output(&mut apt, QUESTION)?;
    let is_known = !targets.trim().is_empty();
    Ok(is_known.then(|| archive_among(&targets)))
}

/// The first of apt's sources that is Debian's main archive.
fn archive_among(targets: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let (uri, source) = line.split_once(' ')?;
        (source == "main Debian/Debian").then(|| uri.to_owned())
    })
}

/// Removes an earlier root. One in which something is mounted is kept: the mounted files are others'.
fn remove(old: &Path) -> Result<(), Failure> {
    // The kernel names mounts by paths without links.
    let real = match fs::canonicalize(old) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        found => found.doing(format_args!("cannot look at {}", old.display()))?,
    };
    let mounts = fs::read("/proc/self/mountinfo").doing("cannot read the mounts")?;
    if let Some(point) = mounted_in(&real, &mounts) {
        let point = command::quoted(&point.to_string_lossy());
        return Err(Failure::new(format!(
            "{} cannot be made again while {point} is mounted: `umount {point}`, then try again",
            old.display()
        )));
    }
    match fs::remove_dir_all(old) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).doing(format_args!("cannot remove {}", old.display()))
        }
        _ => Ok(()),
    }
}

/// The first mount at a folder or beneath it, among those of `/proc/PID/mountinfo`.
fn mounted_in(folder: &Path, mounts: &[u8]) -> Option<PathBuf> {
    let points = mounts
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    points
        .map(|point| PathBuf::from(OsString::from_vec(unescaped(point))))
        .find(|point| point.starts_with(folder))
}

/// A path of `/proc/PID/mountinfo`, in which a blank and its like are written as three octal digits.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, after @ ..] = rest {
        let (byte, after) = match rest {
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ] => ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), after),
            _ => (*first, after),
        };
        plain.push(byte);
        rest = after;
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_is_debians_main_one_and_neither_its_security_nor_anothers() {
        let targets = "http://a/other/ main Other/Debian\nhttp://a/security/ main Debian/Debian-Security\n\
                       http://a/debian/ contrib Debian/Debian\nhttp://a/debian/ main Debian/Debian\n";
        assert_eq!(archive_among(targets).as_deref(), Some("http://a/debian/"));
        assert_eq!(archive_among("http://a/ubuntu/ main Ubuntu/Ubuntu\n"), None);
    }

    #[test]
    fn what_is_not_there_is_removed_already() {
        let folder = tempfile::tempdir().expect("a folder");
        remove(&folder.path().join("none")).expect("nothing to do");
    }

    #[test]
    fn nobody_is_advised_to_add_a_source_of_another_distributions_packages() {
        let failure = no_archive(crate::hosts::DEBIAN_13);
        assert!(
            !failure.message.to_lowercase().contains("add "),
            "{failure}"
        );
        assert!(!failure.message.contains('\n'), "{failure}");
    }

    #[test]
    fn a_mount_beneath_is_seen_whatever_characters_are_in_its_path() {
        let mounts = b"21 1 0:5 / / rw - ext4 a rw\n22 21 0:6 / /a\\040b/ro\\134ot/dev rw shared:1 - tmpfs b rw\n";
        let found = mounted_in(Path::new("/a b/ro\\ot"), mounts);
        assert_eq!(found.as_deref(), Some(Path::new("/a b/ro\\ot/dev")));
        assert_eq!(mounted_in(Path::new("/a b/ro"), mounts), None);
        assert_eq!(mounted_in(Path::new("/a"), mounts), None);
    }

    #[test]
    fn a_root_that_a_link_leads_to_is_looked_at_where_it_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("root");
        std::os::unix::fs::symlink("/proc", &link).expect("it is writable");
        let failure = remove(&link).expect_err("it is mounted");
        assert!(failure.message.contains("`umount /proc"), "{failure}");
        // Of a link to what holds no mount, the link alone goes.
        let others = folder.path().join("others");
        fs::create_dir(&others).expect("it is writable");
        fs::remove_file(&link).expect("it is there");
        std::os::unix::fs::symlink(&others, &link).expect("it is writable");
        remove(&link).expect("it is removable");
        assert!(others.is_dir() && !link.exists());
    }

    #[test]
    fn a_root_in_which_something_is_mounted_is_kept() {
        let failure = remove(Path::new("/proc")).expect_err("it is mounted");
        assert!(failure.message.contains("`umount /proc"), "{failure}");
    }
}

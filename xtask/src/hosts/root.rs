//! The root file system of a host: made once by mmdebstrap from the archive that this host's apt uses.

use std::fs::{self, File};
use std::path::Path;
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
    "openssl",
    "ovmf",
    "procps",
    "python3-minimal",
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
/// interrupt leaves no half of one; and in namespaces, so that it leaves nothing mounted or running.
pub(super) fn make(host: Host) -> Result<(), Failure> {
    let folder = host.folder();
    let failed = || format!("cannot make {}", folder.display());
    fs::create_dir_all(&folder).doing(failed())?;
    if is_made(host) {
        return Ok(());
    }
    check_rights(host)?;
    let lock = File::create(folder.join("lock")).doing(failed())?;
    lock.lock()
        .doing("cannot wait for another that makes the host")?;
    if is_made(host) {
        return Ok(());
    }
    let archive = archive(host)?;
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
    fs::write(folder.join(RECIPE), recipe(host)).doing(failed())
}

fn check_rights(host: Host) -> Result<(), Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::with(
            exit_code::MISSING_RIGHTS,
            format!(
                "making the host {} needs root. Run this, then try again:\n  sudo -E {} hosts",
                host.name,
                command::quoted(&workspace::own_program().to_string_lossy())
            ),
        ));
    }
    if workspace::program("mmdebstrap").is_none() {
        return Err(Failure::with(
            exit_code::INSTALL_BY_HAND,
            format!(
                "making the host {} needs the program mmdebstrap, which is not installed: `cargo xtask setup` \
                 installs it where there is apt",
                host.name
            ),
        ));
    }
    Ok(())
}

/// The URI of Debian's archive, as this host's apt has it.
fn archive(host: Host) -> Result<String, Failure> {
    let ask = || {
        let mut apt = Command::new("apt-get");
        apt.args(["indextargets", "--format"])
            .arg("$(REPO_URI) $(COMPONENT) $(ORIGIN)/$(LABEL)")
            .arg("Created-By: Packages");
        let targets = command::output(&mut apt, QUESTION)?;
        Ok::<_, Failure>(archive_among(&targets))
    };
    if let Some(archive) = ask()? {
        return Ok(archive);
    }
    // Without the lists apt does not know whose archives its sources are.
    let mut update = Command::new("apt-get");
    command::output(update.args(["update", "-q"]), DEADLINE)?;
    ask()?.ok_or_else(|| {
        Failure::with(
            exit_code::INSTALL_BY_HAND,
            format!(
                "the host {} cannot be made: no source of this host's apt is Debian's archive. Add one, then try \
                 again",
                host.name
            ),
        )
    })
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
    let mounts = fs::read_to_string("/proc/self/mountinfo").doing("cannot read the mounts")?;
    let mounted = mounts.lines().find_map(|line| {
        let point = line.split(' ').nth(4)?;
        Path::new(point).starts_with(old).then(|| point.to_owned())
    });
    if let Some(point) = mounted {
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
    fn a_root_in_which_something_is_mounted_is_kept() {
        let failure = remove(Path::new("/proc")).expect_err("it is mounted");
        assert!(failure.message.contains("`umount /proc"), "{failure}");
    }
}

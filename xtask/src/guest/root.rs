//! The guest's root: an ext4 written by `mke2fs` and `debugfs`, without root's
//! rights and without a mount.
//!
//! `debugfs` and not `mke2fs -d`, because the latter takes owners, times and
//! the order of files from the host's folder, which differ between hosts.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::Variant;
use crate::command;
use crate::failure::{Failure, While};
use crate::workspace;

/// The moment every file claims to be of, in seconds since 1970: some day in
/// 2026, so that the guest's clock is never before its own files.
const MOMENT: &str = "1790000000";
/// Room for samples that write a lot; unwritten blocks cost nothing.
pub(super) const SIZE: u64 = 2 << 30;
const DEADLINE: Duration = Duration::from_secs(120);

/// What the root holds besides the fixed files.
#[derive(Debug)]
pub(super) struct Parts<'a> {
    pub(super) busybox: &'a Path,
    pub(super) agent: &'a Path,
    pub(super) kernel: &'a Path,
    pub(super) initramfs: &'a Path,
}

/// A file of the root: its place, its mode, and its content.
const FILES: &[(&str, u32, &str)] = &[
    ("/etc/inittab", 0o644, include_str!("files/inittab")),
    ("/etc/rc", 0o755, include_str!("files/rc")),
    ("/etc/agent", 0o755, include_str!("files/agent")),
    ("/etc/udhcpc", 0o755, include_str!("files/udhcpc")),
    ("/etc/banner", 0o644, include_str!("files/banner")),
    ("/etc/see-token", 0o600, super::TOKEN),
    ("/etc/passwd", 0o644, "root::0:0:root:/root:/bin/sh\n"),
    ("/etc/group", 0o644, "root:x:0:\n"),
    ("/etc/hosts", 0o644, "127.0.0.1 localhost see-guest\n"),
    (
        "/etc/acpi/PWRF/00000080",
        0o755,
        include_str!("files/poweroff"),
    ),
];
const FOLDERS: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/acpi",
    "/etc/acpi/PWRF",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/sbin",
    "/var",
];

/// Writes the file system into `image`.
pub(super) fn build(
    image: &Path,
    work: &Path,
    variant: Variant,
    parts: &Parts<'_>,
) -> Result<(), Failure> {
    let file = File::create(image).doing(format_args!("cannot write {}", image.display()))?;
    file.set_len(SIZE).doing("cannot size the guest's root")?;
    drop(file);
    let mut mke2fs = tool("mke2fs")?;
    mke2fs.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-L", "see-guest"]);
    // No journal: what a throw-away machine wrote is never recovered.
    mke2fs.args([
        "-O",
        "^has_journal,^metadata_csum,^64bit,^resize_inode,uninit_bg",
    ]);
    mke2fs.args(["-m", "0", "-N", "16384"]);
    mke2fs.args(["-U", "5ee00000-0000-4000-8000-000000000001"]);
    mke2fs.args([
        "-E",
        "hash_seed=5ee00000-0000-4000-8000-000000000002,lazy_itable_init=0",
    ]);
    command::output(mke2fs.arg(image), DEADLINE)?;

    let script = work.join(format!("{}.debugfs", variant.name()));
    fs::write(&script, orders(work, variant, parts)?)
        .doing(format_args!("cannot write {}", script.display()))?;
    let mut debugfs = tool("debugfs")?;
    debugfs.arg("-w").arg("-f").arg(&script).arg(image);
    // It exits with 0 whatever happens; what it says tells.
    let finished = command::finish(&mut debugfs, DEADLINE)?;
    let wrong: Vec<_> = finished
        .stderr
        .lines()
        .filter(|line| !line.starts_with("debugfs "))
        .collect();
    if wrong.is_empty() && finished.status.success() {
        Ok(())
    } else {
        Err(Failure::new(format!(
            "debugfs could not fill the guest's root: {}",
            wrong.join("; ")
        )))
    }
}

/// The orders that fill the file system, in a fixed order.
fn orders(work: &Path, variant: Variant, parts: &Parts<'_>) -> Result<String, Failure> {
    let mut orders = String::new();
    for folder in FOLDERS {
        let _ = writeln!(orders, "mkdir {folder}");
    }
    let mut add = |source: &Path, place: &str, mode: u32| -> Result<(), Failure> {
        let source = source
            .to_str()
            .filter(|path| !path.contains('"'))
            .ok_or_else(|| Failure::new(format!("debugfs cannot read {}", source.display())))?;
        let _ = writeln!(orders, "write \"{source}\" {place}");
        let _ = writeln!(orders, "sif {place} mode 0{:o}", 0o100_000 | mode);
        for field in ["uid", "gid"] {
            let _ = writeln!(orders, "sif {place} {field} 0");
        }
        Ok(())
    };
    add(parts.busybox, "/bin/busybox", 0o755)?;
    add(parts.agent, "/usr/sbin/see-agent", 0o755)?;
    add(parts.kernel, "/boot/vmlinuz", 0o644)?;
    add(parts.initramfs, "/boot/initrd.img", 0o644)?;
    let own = ("/etc/see-variant", 0o644, variant.name());
    for (place, mode, content) in FILES.iter().chain([&own]) {
        let source = work.join(format!("file{}", place.replace('/', "-")));
        fs::write(&source, content).doing(format_args!("cannot write {}", source.display()))?;
        add(&source, place, *mode)?;
    }
    for applet in applets(parts.busybox)? {
        let _ = writeln!(orders, "symlink /{applet} /bin/busybox");
    }
    Ok(orders)
}

/// Where busybox's programs are in a root, relative to it.
pub(super) fn applets(busybox: &Path) -> Result<Vec<String>, Failure> {
    let applets = command::output(Command::new(busybox).arg("--list-full"), DEADLINE)?;
    let plain = applets
        .lines()
        .filter(|applet| applet.contains('/') && !applet.ends_with("/busybox") && is_plain(applet));
    Ok(plain.map(str::to_owned).collect())
}

/// Applets of busybox live in the folders made above, under plain names.
fn is_plain(applet: &str) -> bool {
    let known = ["bin/", "sbin/", "usr/bin/", "usr/sbin/"];
    applet.rsplit_once('/').is_some_and(|(folder, name)| {
        known.contains(&format!("{folder}/").as_str())
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c))
    })
}

/// A program of e2fsprogs that writes a fixed time.
fn tool(name: &str) -> Result<Command, Failure> {
    let path: PathBuf = workspace::program(name).ok_or_else(|| {
        Failure::new(format!("there is no {name}; `cargo xtask setup` brings it"))
    })?;
    let mut command = Command::new(path);
    command
        .env("E2FSPROGS_FAKE_TIME", MOMENT)
        .env("SOURCE_DATE_EPOCH", MOMENT)
        .env("DEBUGFS_PAGER", "cat");
    Ok(command)
}

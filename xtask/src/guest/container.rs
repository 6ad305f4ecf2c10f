//! A container's root: a folder with busybox and the agent, made without root's rights.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::root::{self, Parts};
use super::{copy, make_folder};
use crate::failure::{Failure, While};

/// What libvirt and the scripts need; `/dev`, `/proc` and `/sys` are filled by libvirt.
const FOLDERS: &[&str] = &[
    "bin", "dev", "etc", "mnt", "proc", "root", "run", "sbin", "sys", "tmp", "usr/bin", "usr/sbin",
];

/// A file of the root: its place, its mode, and its content.
const FILES: &[(&str, u32, &str)] = &[
    ("etc/container", 0o755, include_str!("files/container")),
    ("etc/udhcpc", 0o755, include_str!("files/udhcpc")),
    ("etc/see-token", 0o600, super::TOKEN),
    ("etc/passwd", 0o644, "root::0:0:root:/root:/bin/sh\n"),
    ("etc/group", 0o644, "root:x:0:\n"),
    ("etc/hosts", 0o644, "127.0.0.1 localhost see-guest\n"),
];

/// Writes the root into a new folder.
pub(super) fn build(root: &Path, parts: &Parts<'_>) -> Result<(), Failure> {
    for folder in FOLDERS {
        make_folder(&root.join(folder))?;
    }
    for (source, place) in [
        (parts.busybox, "bin/busybox"),
        (parts.agent, "usr/sbin/see-agent"),
    ] {
        copy(source, &root.join(place))?;
        allow(&root.join(place), 0o755)?;
    }
    for (place, mode, content) in FILES {
        let place = root.join(place);
        fs::write(&place, content).doing(format_args!("cannot write {}", place.display()))?;
        allow(&place, *mode)?;
    }
    for applet in root::applets(parts.busybox)? {
        let place = root.join(&applet);
        symlink("/bin/busybox", &place).doing(format_args!("cannot make {}", place.display()))?;
    }
    // Whatever the umask, its users pass it.
    for folder in FOLDERS.iter().copied().chain(["", "usr"]) {
        allow(&root.join(folder), 0o755)?;
    }
    allow(&root.join("tmp"), 0o1777)
}

fn allow(path: &Path, mode: u32) -> Result<(), Failure> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .doing(format_args!("cannot change the mode of {}", path.display()))
}

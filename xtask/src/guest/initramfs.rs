//! The initramfs: busybox and the drivers of virtual disks, cdroms, networks,
//! channels and the power button.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::cpio::Archive;
use crate::command;
use crate::failure::{Failure, While};

/// The kernel's modules in the order in which they can be loaded. Those of cdroms and of the
/// second kind of disk come last; a kernel may have them built in.
const MODULES: [(&str, Presence); 20] = [
    ("virtio_ring", Presence::Needed),
    ("virtio", Presence::Needed),
    ("virtio_pci_modern_dev", Presence::Needed),
    ("virtio_pci_legacy_dev", Presence::Needed),
    ("virtio_pci", Presence::Needed),
    ("virtio_blk", Presence::Needed),
    ("failover", Presence::Needed),
    ("net_failover", Presence::Needed),
    ("virtio_net", Presence::Needed),
    ("button", Presence::Needed),
    ("evdev", Presence::Needed),
    ("virtio_console", Presence::Needed),
    ("scsi_common", Presence::Welcome),
    ("scsi_mod", Presence::Welcome),
    ("virtio_scsi", Presence::Welcome),
    ("cdrom", Presence::Welcome),
    ("sr_mod", Presence::Welcome),
    ("libata", Presence::Welcome),
    ("sd_mod", Presence::Welcome),
    ("ata_piix", Presence::Welcome),
];

/// Whether a guest without this module would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Presence {
    Needed,
    Welcome,
}

/// Builds the archive from the unpacked packages.
pub(super) fn build(packages: &Path) -> Result<Vec<u8>, Failure> {
    let modules = packages.join("lib/modules");
    let mut all = Vec::new();
    collect(&modules, &mut all)?;
    let mut archive = Archive::default();
    for folder in ["bin", "dev", "proc", "sys", "root", "modules"] {
        archive.folder(folder);
    }
    archive.device("dev/console", 5, 1);
    archive.file("init", include_bytes!("files/initrd-init"));
    let busybox = super::busybox(packages)?;
    archive.file("bin/busybox", &read(&busybox)?);
    let mut order = String::new();
    for (name, presence) in MODULES {
        // A module that depends on others the list does not hold is not loaded;
        // those that the needed ones depend on come before them.
        let Some(path) = all.iter().find(|path| is_module(path, name)) else {
            if presence == Presence::Needed {
                return Err(Failure::new(format!(
                    "the kernel's package has no module {name}"
                )));
            }
            continue;
        };
        let file = format!("{name}.ko");
        archive.file(&format!("modules/{file}"), &content(path)?);
        order.push_str(&file);
        order.push('\n');
    }
    archive.file("modules/order", order.as_bytes());
    Ok(archive.finish())
}

fn is_module(path: &Path, name: &str) -> bool {
    path.file_name()
        .and_then(|file| file.to_str())
        .and_then(|file| file.strip_prefix(name))
        .is_some_and(|rest| rest == ".ko" || rest == ".ko.xz")
}

/// A module as the kernel loads it: newer packages hold them compressed.
fn content(path: &Path) -> Result<Vec<u8>, Failure> {
    if path.extension().is_some_and(|it| it == "xz") {
        let plain = path.with_extension("");
        command::output(
            Command::new("xz").args(["-d", "-k", "-f"]).arg(path),
            Duration::from_secs(60),
        )?;
        return read(&plain);
    }
    read(path)
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    fs::read(path).doing(format_args!("cannot read {}", path.display()))
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let entries = fs::read_dir(folder).doing(format_args!("cannot list {}", folder.display()))?;
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&path, into)?,
            Ok(kind) if kind.is_file() => into.push(path),
            _ => {}
        }
    }
    Ok(())
}

//! The Debian packages the guest is made of: downloaded and unpacked, never
//! installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::failure::{Failure, While, exit_code};
use crate::workspace;

/// The kernel made for virtual machines: a package that only depends on the
/// newest real one.
const KERNEL: &str = "linux-image-cloud-amd64";
/// A shell and its tools in one static program; GRUB's images; and what writes
/// GRUB's core image.
const OTHERS: [&str; 3] = ["busybox-static", "grub-common", "grub-pc-bin"];
const DEADLINE: Duration = Duration::from_secs(600);

/// Downloads the packages into `store`, or takes the ones an earlier build
/// downloaded, and unpacks them all into `into`.
pub(super) fn unpack(store: &Path, into: &Path) -> Result<(), Failure> {
    let archives = download(store)?;
    for archive in archives {
        command::output(
            Command::new("dpkg-deb").arg("-x").arg(&archive).arg(into),
            DEADLINE,
        )?;
    }
    Ok(())
}

fn download(store: &Path) -> Result<Vec<PathBuf>, Failure> {
    let found = archives(store);
    if found.len() == OTHERS.len() + 1 {
        return Ok(found);
    }
    if workspace::program("apt-get").is_none() || workspace::program("dpkg-deb").is_none() {
        return Err(Failure::with(
            exit_code::INSTALL_BY_HAND,
            format!(
                "the guest is made of Debian packages, and this host has no apt. Put the .deb \
                 files of a linux-image-*-cloud-amd64, {} into {}, and install dpkg",
                OTHERS.join(", "),
                store.display()
            ),
        ));
    }
    // The host's own lists first; where it has none, private ones: an ordinary
    // user may fetch those, too.
    let host = fetch(store, &[]);
    if host.is_err() {
        let lists = store.join("lists");
        let cache = store.join("cache");
        for folder in [lists.join("partial"), cache.join("archives/partial")] {
            fs::create_dir_all(&folder).doing(format_args!("cannot make {}", folder.display()))?;
        }
        let private = [
            format!("-oDir::State::lists={}", lists.display()),
            format!("-oDir::Cache={}", cache.display()),
        ];
        let update = command::output(apt("apt-get", &private).args(["update", "-q"]), DEADLINE);
        if let (Err(update), Err(host)) = (update, host) {
            return Err(Failure::new(format!(
                "cannot download the guest's packages: {host}\nand private package lists \
                 cannot be fetched either: {update}"
            )));
        }
        fetch(store, &private)?;
    }
    let found = archives(store);
    if found.len() == OTHERS.len() + 1 {
        return Ok(found);
    }
    Err(Failure::new(format!(
        "{} should hold {} packages after the download, but holds {}",
        store.display(),
        OTHERS.len() + 1,
        found.len()
    )))
}

fn fetch(store: &Path, options: &[String]) -> Result<(), Failure> {
    let depends = command::output(
        apt("apt-cache", options).args(["depends", "--important", KERNEL]),
        DEADLINE,
    )?;
    let kernel = depends
        .lines()
        .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"))
        .ok_or_else(|| {
            Failure::new(format!("{KERNEL} depends on no kernel, but on:\n{depends}"))
        })?;
    // Started afresh: an earlier kernel beside the new one would be one too many.
    for archive in archives(store) {
        fs::remove_file(&archive).doing(format_args!("cannot remove {}", archive.display()))?;
    }
    command::output(
        apt("apt-get", options)
            .current_dir(store)
            .args(["download", "-q"])
            .arg(format!("linux-image-{kernel}"))
            .args(OTHERS),
        DEADLINE,
    )
    .map(drop)
}

fn apt(program: &str, options: &[String]) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C").args(options);
    command
}

/// The packages in the store, by name: the order of a folder is the file
/// system's own.
fn archives(store: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(store)
        .map(|entries| entries.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default();
    found.retain(|path| path.extension().is_some_and(|it| it == "deb"));
    found.sort();
    found
}

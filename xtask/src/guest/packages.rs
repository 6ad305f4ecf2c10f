//! The Debian packages the guest is made of: downloaded and unpacked, never
//! installed.

use std::fs::{self, File};
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

/// Unpacks all packages into `into`. They are downloaded once an account, into
/// its cache, so that another checkout needs no network; where the account has
/// none, into `folder`.
pub(super) fn unpack(folder: &Path, into: &Path) -> Result<(), Failure> {
    let store = store(folder)?;
    let lock = store.join("lock");
    let lock = File::create(&lock).doing(format_args!("cannot make {}", lock.display()))?;
    lock.lock().doing("cannot wait for another download")?;
    let archives = download(&store)?;
    for archive in archives {
        command::output(
            Command::new("dpkg-deb").arg("-x").arg(&archive).arg(into),
            DEADLINE,
        )?;
    }
    Ok(())
}

/// The folder of the downloaded packages, which is there.
fn store(folder: &Path) -> Result<PathBuf, Failure> {
    if let Some(cache) = workspace::cache() {
        let store = cache.join("guest-packages");
        // Whoever may not write there, an account without a home, is not helped by an error.
        if fs::create_dir_all(&store).is_ok() && File::create(store.join("lock")).is_ok() {
            return Ok(store);
        }
    }
    let store = folder.join("packages");
    fs::create_dir_all(&store).doing(format_args!("cannot make {}", store.display()))?;
    Ok(store)
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
    if let Err(host) = fetch(store, &[]) {
        let lists = store.join("lists");
        let cache = store.join("cache");
        for folder in [lists.join("partial"), cache.join("archives/partial")] {
            fs::create_dir_all(&folder).doing(format_args!("cannot make {}", folder.display()))?;
        }
        let private = [
            format!("-oDir::State::lists={}", lists.display()),
            format!("-oDir::Cache={}", cache.display()),
            // Else lists that could not be fetched count as fetched.
            "-oAPT::Update::Error-Mode=any".to_owned(),
        ];
        let update = command::output(apt("apt-get", &private).args(["update", "-q"]), DEADLINE);
        update.and_then(|_| fetch(store, &private)).map_err(|private| {
            Failure::new(format!(
                "cannot download the guest's packages: {host}\nand with package lists of one's own: \
                 {private}"
            ))
        })?;
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
    // Apart, so that what a killed download leaves is never taken for a package.
    let fresh = store.join("fresh");
    if fresh.exists() {
        fs::remove_dir_all(&fresh).doing(format_args!("cannot empty {}", fresh.display()))?;
    }
    fs::create_dir(&fresh).doing(format_args!("cannot make {}", fresh.display()))?;
    command::output(
        apt("apt-get", options)
            .current_dir(&fresh)
            .args(["download", "-q"])
            .arg(format!("linux-image-{kernel}"))
            .args(OTHERS),
        DEADLINE,
    )?;
    // An earlier kernel beside the new one would be one too many.
    for archive in archives(store) {
        fs::remove_file(&archive).doing(format_args!("cannot remove {}", archive.display()))?;
    }
    for archive in archives(&fresh) {
        let kept = store.join(archive.file_name().unwrap_or_default());
        fs::rename(&archive, &kept).doing(format_args!("cannot keep {}", kept.display()))?;
    }
    fs::remove_dir(&fresh).doing(format_args!("cannot remove {}", fresh.display()))
}

fn apt(program: &str, options: &[String]) -> Command {
    let mut command = Command::new(program);
    command
        .env("LC_ALL", "C")
        .arg("-oAcquire::Retries=3")
        .args(options);
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

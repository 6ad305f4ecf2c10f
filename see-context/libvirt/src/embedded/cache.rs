//! Carrying libvirt's knowledge of the emulators from root to root.
//!
//! libvirt keeps one file an emulator under `cache/qemu/capabilities` and decides by itself
//! whether it still holds: it compares the emulator's and its own change times, its version, the
//! kernel and whether KVM can be used. Copies are therefore safe to offer, and are replaced when
//! libvirt wrote others.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Cause;

const INSIDE: &str = "cache/qemu/capabilities";

/// Far above what libvirt writes: some 250 KiB an emulator, a few dozen emulators.
const MOST_BYTES: u64 = 8 << 20;
const MOST_FILES: usize = 256;

/// Copies saved files into a new root. A missing folder is an empty one.
pub(super) fn seed(saved: &Path, root: &Path) -> Result<(), Cause> {
    copy(saved, &root.join(INSIDE))
}

/// Copies what libvirt wrote in the root to the saved files, where they differ.
pub(super) fn save(root: &Path, saved: &Path) -> Result<(), Cause> {
    copy(&root.join(INSIDE), saved)
}

fn copy(from: &Path, to: &Path) -> Result<(), Cause> {
    let files = list(from).map_err(|error| Cause::file(from, error))?;
    if files.is_empty() {
        return Ok(());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(to)
        .map_err(|error| Cause::file(to, error))?;
    for source in files {
        let Some(name) = source.file_name() else {
            continue;
        };
        let target = to.join(name);
        let bytes = read(&source).map_err(|error| Cause::file(&source, error))?;
        if read(&target).is_ok_and(|old| old == bytes) {
            continue;
        }
        replace(&target, &bytes).map_err(|error| Cause::file(&target, error))?;
    }
    Ok(())
}

/// The regular `.xml` files of a folder, never links.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for entry in entries.take(MOST_FILES) {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_file() && path.extension().is_some_and(|end| end == "xml") {
            files.push(path);
        }
    }
    Ok(files)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MOST_BYTES + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(io::Error::other(format!(
            "longer than the {MOST_BYTES} bytes that such a file may have"
        )));
    }
    Ok(bytes)
}

/// Puts a file in place at once, so that another process never reads half of it.
fn replace(target: &Path, bytes: &[u8]) -> io::Result<()> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let new = target.with_extension(format!("{}-{number}.new", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| fs::rename(&new, target));
    if written.is_err() {
        // What could not be finished is of no use to anybody.
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_seeded_and_saved_back_only_when_they_differ() {
        let place = tempfile::tempdir().unwrap();
        let (saved, root) = (place.path().join("saved/deep"), place.path().join("root"));
        fs::create_dir_all(root.join(INSIDE)).unwrap();
        seed(&saved, &root).unwrap();
        fs::write(root.join(INSIDE).join("a.xml"), "one").unwrap();
        save(&root, &saved).unwrap();
        assert_eq!(names(&saved), ["a.xml"]);

        let untouched = fs::metadata(saved.join("a.xml"))
            .unwrap()
            .modified()
            .unwrap();
        save(&root, &saved).unwrap();
        let again = fs::metadata(saved.join("a.xml"))
            .unwrap()
            .modified()
            .unwrap();
        assert_eq!(untouched, again);

        fs::write(root.join(INSIDE).join("a.xml"), "two").unwrap();
        save(&root, &saved).unwrap();
        assert_eq!(fs::read(saved.join("a.xml")).unwrap(), b"two");

        let fresh = place.path().join("fresh");
        fs::create_dir(&fresh).unwrap();
        seed(&saved, &fresh).unwrap();
        assert_eq!(fs::read(fresh.join(INSIDE).join("a.xml")).unwrap(), b"two");
    }

    #[test]
    fn links_and_other_files_are_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let (saved, root) = (place.path().join("saved"), place.path().join("root"));
        fs::create_dir_all(root.join(INSIDE)).unwrap();
        let secret = place.path().join("secret");
        fs::write(&secret, "secret").unwrap();
        std::os::unix::fs::symlink(&secret, root.join(INSIDE).join("link.xml")).unwrap();
        fs::write(root.join(INSIDE).join("other.txt"), "x").unwrap();
        save(&root, &saved).unwrap();
        assert!(!saved.exists());
    }
}

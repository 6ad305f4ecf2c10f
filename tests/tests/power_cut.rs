//! A power cut: what a run was about to make is in the ledger on the disk, and not only in the kernel's memory.
//!
//! The disk is a file behind a loop device. A copy of it, taken without unmounting, is what a power cut leaves.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use see_core::Identifier;
use see_core::ledger::{Ledger, Resource};

/// Set in the namespace, where mounts are nobody else's and go with the test.
const INSIDE: &str = "SEE_TEST_INSIDE_A_NAMESPACE";
/// The disk's size; sparse.
const SIZE: u64 = 64 << 20;

#[test]
fn after_a_power_cut_the_ledger_names_whatever_was_about_to_be_made() {
    const TEST: &str = "after_a_power_cut_the_ledger_names_whatever_was_about_to_be_made";
    if std::env::var_os(INSIDE).is_none() {
        run_inside(TEST);
        return;
    }
    // One whose journal takes folders along with their files, and one that has to be told of each.
    for (features, options) in [("has_journal", "loop,commit=600"), ("^has_journal", "loop")] {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let disk = Disk::new(scratch.path(), features, options);
        let ledger = Ledger::open_blocking(disk.folder.join("state")).expect("the ledger opens");
        let record = ledger
            .begin_blocking(Identifier::random(), "")
            .expect("a record begins");
        let name = record.identifier().to_string();

        let planned = ["overlay.qcow2", "console.log", "nvram.fd"];
        let entries = record.intend_blocking(planned.map(resource));
        let entries = entries.expect("there is room");
        let found = disk.cut(&name);
        for resource in planned {
            assert!(found.contains(resource), "{features}: {resource}: {found}");
        }
        // Later ones are appended to what is there.
        let later = record.intend_one_blocking(resource("dump.elf"));
        let later = later.expect("there is room");
        let found = disk.cut(&name);
        assert!(found.contains("dump.elf"), "{features}: {found}");
        drop((entries, later));
    }
}

fn resource(name: &str) -> Resource {
    Resource::new("example.thing", name, "somewhere")
}

/// Runs the test again in a mount namespace of its own.
fn run_inside(test: &str) {
    assert!(
        rustix::process::geteuid().is_root(),
        "a disk of a test's own needs root: run `sudo -E cargo xtask test`"
    );
    let output = Command::new("unshare")
        .arg("--mount")
        .arg(std::env::current_exe().expect("a test has a path"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare is installed");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

/// A file system that writes nothing to its disk by itself while a test lasts.
struct Disk {
    image: PathBuf,
    folder: PathBuf,
}

impl Disk {
    fn new(scratch: &Path, features: &str, options: &str) -> Self {
        let [image, folder] = ["disk.img", "mounted"].map(|name| scratch.join(name));
        let file = fs::File::create(&image).expect("it is writable");
        file.set_len(SIZE).expect("it is sparse");
        let mut make = Command::new("mke2fs");
        succeed(
            make.args(["-q", "-F", "-t", "ext4", "-O", features])
                .arg(&image),
        );
        mount(&image, &folder, options);
        Self { image, folder }
    }

    /// The record with this identifier, as a power cut at this moment would leave it; empty without one.
    fn cut(&self, identifier: &str) -> String {
        let (copy, folder) = (
            self.image.with_extension("cut"),
            self.folder.with_extension("cut"),
        );
        fs::copy(&self.image, &copy).expect("there is room");
        mount(&copy, &folder, "loop");
        let record = folder.join(format!("state/ledger/{identifier}.jsonl"));
        let found = fs::read_to_string(record).unwrap_or_default();
        unmount(&folder);
        found
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        unmount(&self.folder);
    }
}

fn mount(image: &Path, folder: &Path, options: &str) {
    fs::create_dir_all(folder).expect("it is writable");
    let mut mount = Command::new("mount");
    succeed(
        mount
            .args(["-t", "ext4", "-o", options])
            .arg(image)
            .arg(folder),
    );
}

fn unmount(folder: &Path) {
    succeed(Command::new("umount").arg(folder));
}

fn succeed(command: &mut Command) {
    let output = command.output().expect("it is installed");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

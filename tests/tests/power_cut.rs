//! A power cut: what a run was about to make, and an image that was given out, are on the disk, and not only in the
//! kernel's memory.
//!
//! The disk is a file behind a loop device. A copy of it, taken without unmounting, is what a power cut leaves.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use rustix::process::{Pid, kill_process};
use see_core::Identifier;
use see_core::ledger::{Ledger, Resource};
use see_tests::services::{Nginx, Signal};
use see_tests::{Dice, Home, finish, spawn, until};
use serde_json::json;

/// Set in the namespace, where mounts are nobody else's and go with the test.
const INSIDE: &str = "SEE_TEST_INSIDE_A_NAMESPACE";
/// What the kernel calls itself since it was started.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// The disk's size; sparse.
const SIZE: u64 = 64 << 20;
/// The longest that one image may take on a busy host.
const PULL: Duration = Duration::from_secs(360);
/// The kinds of disks: one whose journal takes folders along with their files, and one that has to be told of each.
const KINDS: [(&str, &str); 2] = [("has_journal", "loop,commit=600"), ("^has_journal", "loop")];

#[test]
fn after_a_power_cut_the_ledger_names_whatever_was_about_to_be_made() {
    const TEST: &str = "after_a_power_cut_the_ledger_names_whatever_was_about_to_be_made";
    if std::env::var_os(INSIDE).is_none() {
        run_inside(TEST);
        return;
    }
    for (features, options) in KINDS {
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
        let found = told(&disk.cut(), &name);
        for resource in planned {
            assert!(found.contains(resource), "{features}: {resource}: {found}");
        }
        // Later ones are appended to what is there.
        let later = record.intend_one_blocking(resource("dump.elf"));
        let later = later.expect("there is room");
        let found = told(&disk.cut(), &name);
        assert!(found.contains("dump.elf"), "{features}: {found}");
        drop((entries, later));
    }
}

fn resource(name: &str) -> Resource {
    Resource::new("example.thing", name, "somewhere")
}

/// The record with this identifier; empty without one.
fn told(cut: &Cut, identifier: &str) -> String {
    let record = cut.folder.join(format!("state/ledger/{identifier}.jsonl"));
    fs::read_to_string(record).unwrap_or_default()
}

#[test]
fn after_a_power_cut_an_image_that_was_given_out_is_in_the_store_and_whole() {
    const TEST: &str = "after_a_power_cut_an_image_that_was_given_out_is_in_the_store_and_whole";
    if std::env::var_os(INSIDE).is_none() {
        run_inside(TEST);
        return;
    }
    let nginx = Nginx::start();
    let mut dice = Dice::of("given out before a power cut");
    let [content, other] = [(); 2].map(|()| dice.bytes(8 << 20));
    let url = nginx.url("guest.img");
    for (features, options) in KINDS {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let disk = Disk::new(scratch.path(), features, options);
        nginx.put_dated("guest.img", &content, UNIX_EPOCH);
        let given = pulled(&url, &disk.folder);
        let cut = disk.cut();
        let name = given.strip_prefix(&disk.folder).expect("it is there");
        let found = fs::read(cut.folder.join(name)).unwrap_or_default();
        assert!(found == content, "{features}: {} bytes", found.len());
        // By what nginx says of it this is the same image: who fetches it again is seen by its bytes.
        nginx.put_dated("guest.img", &other, UNIX_EPOCH);
        let again = fs::read(pulled(&url, &cut.folder)).expect("it is there");
        assert!(again == content, "{features}: it was fetched again");
    }
}

#[test]
fn after_a_power_cut_an_image_that_was_on_its_way_is_not_taken_as_it_is() {
    const TEST: &str = "after_a_power_cut_an_image_that_was_on_its_way_is_not_taken_as_it_is";
    if std::env::var_os(INSIDE).is_none() {
        run_inside(TEST);
        return;
    }
    let nginx = Nginx::start();
    let content = Dice::of("on its way in a power cut").bytes(40 << 20);
    nginx.put("guest.img", &content);
    let url = nginx.url("slow/guest.img");
    for (features, options) in KINDS {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let disk = Disk::new(scratch.path(), features, options);
        let (_home, mut pull) = pull(&url, &disk.folder);
        let mut child = spawn(&mut pull);
        let partial = |folder: &Path| {
            let files = fs::read_dir(folder.join("store/partial"))
                .into_iter()
                .flatten();
            let sizes = files.flatten().map(|file| {
                let size = file.metadata().map_or(0, |found| found.len());
                (size, file.path())
            });
            sizes.max().unwrap_or_default()
        };
        until("a part of the image", PULL, || {
            partial(&disk.folder).0 > 4 << 20
        });
        // It comes no further meanwhile. The kernel writes when it likes.
        let process = Pid::from_child(&child);
        kill_process(process, Signal::STOP).expect("it is ours");
        succeed(Command::new("sync").arg("--file-system").arg(&disk.folder));
        let cut = disk.cut();
        child.kill().expect("it is ours");
        finish(child, PULL);
        let images = fs::read_dir(cut.folder.join("store/images")).expect("it is there");
        assert_eq!(images.count(), 0, "{features}: it was not whole");
        // The length of a file may be on the disk before its last bytes.
        let (size, file) = partial(&cut.folder);
        assert!(size > 4 << 20, "{features}: {size}");
        let file = fs::File::options().write(true).open(file);
        let zeroed = file.and_then(|file| file.write_all_at(&[0; 4096], size - 4096));
        zeroed.expect("it is ours");
        // The host is started again.
        let boot = scratch.path().join("boot_id");
        fs::write(&boot, Identifier::random().to_string()).expect("it is writable");
        succeed(Command::new("mount").arg("--bind").arg(boot).arg(BOOT));
        let found = fs::read(pulled(&url, &cut.folder)).expect("it is there");
        unmount(Path::new(BOOT));
        assert!(
            found == content,
            "{features}: a part of it was never written"
        );
    }
}

/// `seectl image pull` of this address into the store `store` of a folder, with the home that it needs.
fn pull(url: &str, folder: &Path) -> (Home, Command) {
    let home = Home::new();
    let image = json!({ "provider": "http", "uri": url });
    let run = json!({ "version": 1, "context": { "disk": { "image": image } } });
    home.write("run.json", run.to_string());
    let mut pull = home.seectl();
    pull.args(["image", "pull", "run.json", "--output", "json"])
        .env("SEE_IMAGE_STORE", folder.join("store"));
    (home, pull)
}

/// The path that such a pull gives.
fn pulled(url: &str, folder: &Path) -> PathBuf {
    let (_home, mut pull) = pull(url, folder);
    let outcome = finish(spawn(&mut pull), PULL);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let result = outcome.result();
    let result = result.get("result").unwrap_or(&result);
    let path = result["images"][0]["path"].as_str();
    path.expect("a pull tells the path").into()
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

    /// What a power cut at this moment would leave, looked through as a host does when it is started again.
    fn cut(&self) -> Cut {
        let (copy, folder) = (
            self.image.with_extension("cut"),
            self.folder.with_extension("cut"),
        );
        fs::copy(&self.image, &copy).expect("there is room");
        let mut check = Command::new("e2fsck");
        let checked = check.args(["-f", "-y"]).arg(&copy).output();
        let checked = checked.expect("it is installed");
        // Anything from 4 on is what it could not mend.
        assert!(
            checked.status.code().is_some_and(|code| code < 4),
            "{checked:?}"
        );
        mount(&copy, &folder, "loop");
        Cut { folder }
    }
}

/// What a power cut left of a disk, once the host is there again.
struct Cut {
    folder: PathBuf,
}

impl Drop for Cut {
    fn drop(&mut self) {
        unmount(&self.folder);
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

//! Mount points: none is crossed, and what lies on a file system that is not mounted is not gone.
//!
//! Each test runs itself again in a mount namespace of its own, where it may mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use see_core::Identifier;
use see_core::ledger::{CollectOptions, Collectors, Ledger, Outcome, Report, Resource};

/// Set in the namespace.
const INSIDE: &str = "SEE_TEST_INSIDE_A_NAMESPACE";

/// Whether this is the run in the namespace; else runs it there.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let root = rustix::process::geteuid().is_root();
    let namespace = if root { "--mount" } else { "--map-root-user" };
    let output = Command::new("unshare")
        .args([namespace, "--mount"])
        .arg(std::env::current_exe().expect("a test has a path"))
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare is installed");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
    false
}

fn mount(at: &Path) {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "see-test"]).arg(at);
    assert!(mount.status().expect("mount is installed").success());
}

fn unmount(at: &Path) {
    let mut unmount = Command::new("umount");
    assert!(
        unmount
            .arg(at)
            .status()
            .expect("umount is installed")
            .success()
    );
}

struct Place {
    scratch: tempfile::TempDir,
    ledger: Ledger,
    runtime: tokio::runtime::Runtime,
}

impl Place {
    fn new() -> Self {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        fs::create_dir(scratch.path().join("run")).expect("a folder for runs");
        let ledger = Ledger::open_blocking(scratch.path().join("see")).expect("the ledger opens");
        let runtime = tokio::runtime::Runtime::new().expect("there are threads");
        Self {
            scratch,
            ledger,
            runtime,
        }
    }

    fn run(&self) -> PathBuf {
        self.scratch.path().join("run")
    }

    /// A folder of a dead environment.
    fn left_folder(&self) -> PathBuf {
        let record = self.ledger.begin_blocking(Identifier::random(), "");
        let record = record.expect("a record begins");
        let name = record.identifier().to_string();
        let folder = Resource::folder(self.run(), name).expect("a folder to be");
        let entry = record.intend_one_blocking(folder).expect("an entry");
        let path = entry.create_folder_blocking().expect("it is made");
        record.close_blocking().expect("it closes");
        path
    }

    fn collect(&self) -> Report {
        let options = CollectOptions::default();
        let collectors = Collectors::core();
        let collected = self.ledger.collect(&collectors, options);
        self.runtime.block_on(collected).expect("a report")
    }
}

fn outcome(report: &Report) -> &Outcome {
    assert_eq!(report.records.len(), 1, "{report:?}");
    &report.records[0].resources[0].1
}

#[test]
fn what_is_mounted_inside_a_collected_folder_is_not_emptied() {
    if !inside("what_is_mounted_inside_a_collected_folder_is_not_emptied") {
        return;
    }
    let place = Place::new();
    let path = place.left_folder();
    fs::write(path.join("ours"), "x").unwrap();
    let point = path.join("deep/point");
    fs::create_dir_all(&point).unwrap();
    mount(&point);
    fs::write(point.join("precious"), "x").unwrap();

    let report = place.collect();
    assert!(!report.is_clean(), "{report:?}");
    assert!(matches!(outcome(&report), Outcome::Failed(_)), "{report:?}");
    assert_eq!(fs::read_to_string(point.join("precious")).unwrap(), "x");

    // Once it is unmounted, the rest goes.
    unmount(&point);
    assert!(place.collect().is_clean());
    assert!(!path.exists());
}

#[test]
fn what_is_mounted_over_a_collected_folder_is_not_emptied() {
    if !inside("what_is_mounted_over_a_collected_folder_is_not_emptied") {
        return;
    }
    let place = Place::new();
    let path = place.left_folder();
    mount(&path);
    fs::write(path.join("precious"), "x").unwrap();
    let report = place.collect();
    assert!(!report.is_clean(), "{report:?}");
    assert!(path.join("precious").exists());
    unmount(&path);
    assert!(place.collect().is_clean());
    assert!(!path.exists());
}

#[test]
fn what_lies_behind_a_mount_on_the_way_is_not_removed() {
    if !inside("what_lies_behind_a_mount_on_the_way_is_not_removed") {
        return;
    }
    let place = Place::new();
    let way = place.run().join("way");
    fs::create_dir(&way).unwrap();
    let record = place.ledger.begin_blocking(Identifier::random(), "");
    let record = record.unwrap();
    let name = format!("way/{}", record.identifier());
    let file = Resource::file(place.run(), &name).unwrap();
    // Nobody wrote down that it was made: only its path says whose it is.
    drop(record.intend_one_blocking(file).unwrap());
    drop(record);
    mount(&way);
    let precious = place.run().join(name);
    fs::write(&precious, "x").unwrap();
    let report = place.collect();
    let Outcome::Failed(why) = outcome(&report) else {
        panic!("{report:?}");
    };
    let why = format!("{why:?}");
    assert!(why.contains("another file system is mounted"), "{why}");
    assert_eq!(fs::read_to_string(&precious).unwrap(), "x");
    unmount(&way);
    assert!(place.collect().is_clean());
}

#[test]
fn what_lies_on_a_file_system_that_is_not_mounted_is_kept_in_the_record() {
    if !inside("what_lies_on_a_file_system_that_is_not_mounted_is_kept_in_the_record") {
        return;
    }
    let place = Place::new();
    mount(&place.run());
    let path = place.left_folder();
    let hidden = place.scratch.path().join("hidden");
    fs::create_dir(&hidden).unwrap();
    // To be found again elsewhere: unmounting would end what lies in memory.
    let mut bind = Command::new("mount");
    bind.arg("--bind").arg(place.run()).arg(&hidden);
    assert!(bind.status().unwrap().success());
    unmount(&place.run());

    let report = place.collect();
    assert!(
        matches!(outcome(&report), Outcome::Refused(reason) if reason.contains("not mounted")),
        "{report:?}"
    );
    // Neither is it gone when the mount point itself is.
    fs::remove_dir(place.run()).unwrap();
    assert!(!place.collect().is_clean());

    fs::create_dir(place.run()).unwrap();
    let mut back = Command::new("mount");
    back.arg("--bind").arg(&hidden).arg(place.run());
    assert!(back.status().unwrap().success());
    assert!(path.exists());
    assert!(place.collect().is_clean());
    assert!(!path.exists());
    unmount(&place.run());
    unmount(&hidden);
}

#[test]
fn a_root_that_its_user_removed_holds_nothing_any_more() {
    let place = Place::new();
    let path = place.left_folder();
    fs::remove_dir_all(place.run()).unwrap();
    let report = place.collect();
    assert!(report.is_clean(), "{report:?}");
    assert!(!path.exists());
}

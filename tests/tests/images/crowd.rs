//! Eight processes ask for one image at once: it is downloaded once, whoever dies.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use see_tests::services::Nginx;
use see_tests::{Dice, Outcome, finish, rounds, spawn, until};
use serde_json::json;

use crate::support::*;

const PROCESSES: usize = 8;
/// What the buffers of the downloader hold at most.
const IN_THE_DOWNLOADER: u64 = 16 << 20;
/// The longest that all of them may take on a busy host.
const ALL: Duration = Duration::from_secs(400);

/// The image's size; a campaign takes a larger one.
fn campaign_or(usual: u64) -> u64 {
    if rounds(0) > 0 { 2 << 30 } else { usual }
}

/// A web server with an image and its sum, and a home with nothing in its store.
struct Scene {
    nginx: Nginx,
    user: User,
    sum: String,
    size: u64,
}

impl Scene {
    fn with(size: u64) -> Self {
        let nginx = Nginx::start();
        let path = nginx.files().join("guest.img");
        Dice::of("a crowd").file(&path, size);
        let sum = sum_of(&path);
        nginx.put("SHA256SUMS", format!("{sum}  guest.img\n").as_bytes());
        let user = User::of(&json!({ "provider": "http", "uri": nginx.url("guest.img"),
            "provider_configuration": { "checksums": true } }));
        Self {
            nginx,
            user,
            sum,
            size,
        }
    }

    /// Eight at once.
    fn crowd(&self) -> Vec<Child> {
        (0..PROCESSES)
            .map(|_| spawn(&mut self.user.pull()))
            .collect()
    }

    /// How many bytes of the image's body nginx has sent, over all requests that are over.
    fn sent(&self) -> u64 {
        let log = self.nginx.log();
        let of_image = log.iter().filter(|request| request.path == "/guest.img");
        of_image.map(|request| request.sent).sum()
    }

    /// Checks that each of them gave the path of one and the same file, and that this one is the image.
    fn assert_one_file(&self, outcomes: &[Outcome]) {
        let mut paths = BTreeSet::new();
        for outcome in outcomes {
            assert_eq!(outcome.code, Some(0), "{outcome:#?}");
            paths.insert(pulled_path(outcome));
        }
        let files: BTreeSet<(u64, u64)> = paths
            .iter()
            .map(|path| std::fs::metadata(path).expect("the path was told"))
            .map(|found| (found.dev(), found.ino()))
            .collect();
        assert_eq!(files.len(), 1, "{paths:?}");
        let path = paths.first().expect("there is one");
        assert_eq!(sum_of(path), self.sum);
        // Nothing else of that size lies in the store.
        let held: u64 = bytes_in(&self.user.store());
        assert!(held < self.size * 3 / 2, "{held} bytes in the store");
    }
}

#[test]
fn eight_processes_that_ask_at_once_share_one_download() {
    let scene = Scene::with(campaign_or(512 << 20));
    let outcomes: Vec<Outcome> = scene
        .crowd()
        .into_iter()
        .map(|child| finish(child, ALL))
        .collect();
    scene.assert_one_file(&outcomes);
    // nginx logs a request after its client has the answer.
    until("all of the image in nginx's log", ALL, || {
        scene.sent() >= scene.size
    });
    assert_eq!(
        scene.sent(),
        scene.size,
        "each byte once: {:#?}",
        scene.nginx.log()
    );
}

/// What was sent and is in no file yet is lost when the downloader is killed: the kernel's buffers of both ends, at their
/// largest, and the downloader's.
fn on_its_way() -> u64 {
    let largest = ["tcp_rmem", "tcp_wmem"].map(|name| {
        let sizes = std::fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        let sizes = sizes.expect("the kernel tells its buffers");
        let largest = sizes.split_whitespace().next_back();
        largest
            .and_then(|size| size.parse::<u64>().ok())
            .expect("a size")
    });
    largest.iter().sum::<u64>() + IN_THE_DOWNLOADER
}

#[test]
fn another_process_takes_over_and_resumes_when_the_downloader_is_killed() {
    // Long enough on its way that it is seen in the middle.
    let scene = Scene::with(campaign_or(256 << 20));
    let children = scene.crowd();
    let third = scene.size / 3;
    until("a third of the image", ALL, || {
        bytes_in(&scene.user.store()) > third
    });
    let image = growing(&scene.user.store()).expect("somebody downloads");
    let (downloading, waiting): (Vec<Child>, Vec<Child>) = children
        .into_iter()
        .partition(|child| has_open(child.id(), &image));
    assert_eq!(downloading.len(), 1, "one downloads {}", image.display());
    let there = std::fs::metadata(&image).expect("it grows").len();
    assert!(there > 0, "{} is empty", image.display());
    for child in downloading {
        kill_process(Pid::from_child(&child), Signal::KILL).expect("it runs");
        assert_eq!(finish(child, ALL).code, None, "it was killed");
    }
    let outcomes: Vec<Outcome> = waiting
        .into_iter()
        .map(|child| finish(child, ALL))
        .collect();
    scene.assert_one_file(&outcomes);
    // What the dead one had is not sent again, but for what was on its way.
    let log = scene.nginx.log();
    assert!(scene.sent() < scene.size + on_its_way(), "{log:#?}");
    let resumed = |path: &str, range: Option<&str>| {
        let begin = range.and_then(|range| range.strip_prefix("bytes=")?.split('-').next());
        let begin = begin.and_then(|begin| begin.parse().ok());
        path == "/guest.img" && begin.is_some_and(|begin: u64| begin >= there)
    };
    assert!(
        log.iter()
            .any(|request| resumed(&request.path, request.range.as_deref())),
        "nobody went on after {there}: {log:#?}"
    );
}

fn sum_of(path: &Path) -> String {
    let mut command = Command::new("sha256sum");
    let outcome = finish(spawn(command.arg(path)), ALL);
    outcome
        .stdout
        .split(' ')
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// What a folder's files take on the disk; holes take nothing.
fn bytes_in(folder: &Path) -> u64 {
    let mut sum = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // What is renamed meanwhile is seen the next time.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(found) if found.is_dir() => folders.push(entry.path()),
                Ok(found) => sum += found.blocks() * 512,
                Err(_) => {}
            }
        }
    }
    sum
}

/// The largest file of the store: what is being downloaded.
fn growing(store: &Path) -> Option<PathBuf> {
    let mut found: Vec<(u64, PathBuf)> = Vec::new();
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(it) if it.is_dir() => folders.push(entry.path()),
                Ok(it) => found.push((it.blocks(), entry.path())),
                Err(_) => {}
            }
        }
    }
    found.into_iter().max().map(|(_, path)| path)
}

/// Whether a process has this file open.
fn has_open(pid: u32, path: &Path) -> bool {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"));
    let mut open = open.into_iter().flatten().flatten();
    open.any(|file| std::fs::read_link(file.path()).is_ok_and(|target| target == path))
}

//! Images on another host: each is uploaded once, by its content, and goes with the last lease.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use see_core::ErrorKind;
use see_tests::{DaemonOptions, Home, Lab, Live, PrivateDaemon, Transport, finish, spawn, until};
use serde_json::json;

use crate::{
    IMAGES, OK, PATIENCE, assert_nothing_left, context, left_there, other_host, run_command, told,
};

/// How long a run may take to end once it is interrupted, on a busy host.
const PROMISED: Duration = Duration::from_secs(30);

/// The names of the files in the folder of images that end so.
fn images(daemon: &PrivateDaemon, end: &str) -> Vec<String> {
    let pattern = format!("*{end}");
    let mut find = daemon.inside("find");
    find.args([IMAGES, "-path", "*/see-images-*/*", "-name", &pattern]);
    let found = find.output().expect("find is installed").stdout;
    let lines = String::from_utf8(found).expect("our names are text");
    let mut names: Vec<String> = lines.lines().map(str::to_owned).collect();
    names.sort();
    names
}

/// What tells whether a file is the same, and whether anybody wrote to it.
fn state(daemon: &PrivateDaemon, file: &str) -> String {
    daemon.told("stat", &["-c", "%i %s %y %U %a", file])
}

/// An image whose upload takes a while: random bytes, which no hole shortens.
fn large_image(home: &Home, mebibytes: usize) -> PathBuf {
    let random = std::fs::File::open("/dev/urandom").expect("it is there");
    let mut random = std::io::Read::take(random, (mebibytes as u64) << 20);
    let path = home.path("large.img");
    let mut file = std::fs::File::create(&path).expect("it is writable");
    std::io::copy(&mut random, &mut file).expect("there is room");
    path
}

fn sum(text: &str) -> String {
    text.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn sum_here(file: &Path) -> String {
    let output = std::process::Command::new("sha256sum").arg(file).output();
    sum(&String::from_utf8_lossy(
        &output.expect("it is installed").stdout,
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_of_two_users_share_one_upload_and_the_last_one_removes_it() {
    let daemon = other_host(Transport::Tcp);
    let homes = [Home::new(), Home::new()];
    let image = homes[0].guest("guest.qcow2");
    let length = std::fs::metadata(&image).expect("it is there").len();
    let labs = homes.each_ref().map(Lab::new);
    let files = homes
        .each_ref()
        .map(|home| home.run_file(context(home, &daemon.remote_uri(Transport::Tcp))));

    // Both at once.
    let (one, two) = tokio::join!(labs[0].allocate(&files[0]), labs[1].allocate(&files[1]));
    let (one, two) = (one.expect("it is made"), two.expect("it is made"));
    let [uploaded] = &images(&daemon, ".img")[..] else {
        panic!("one image: {:?}", images(&daemon, ""));
    };
    assert_eq!(images(&daemon, ".lease").len(), 2);
    assert_eq!(images(&daemon, ".claim"), Vec::<String>::new());
    let digest = sum_here(&image);
    assert!(uploaded.contains(&digest), "{uploaded}");
    assert_eq!(sum(&daemon.told("sha256sum", &[uploaded])), digest);
    let sent = daemon.received(Transport::Tcp);
    assert!(
        sent < length * 3 / 2,
        "{sent} bytes for an image of {length}"
    );

    // Later: nothing of the image is sent, and nobody writes to it.
    let before = state(&daemon, uploaded);
    let three = labs[0].allocate(&files[0]).await.expect("it is made");
    let more = daemon.received(Transport::Tcp) - sent;
    assert!(
        more < length / 10,
        "{more} bytes for an image that is there"
    );
    assert_eq!(state(&daemon, uploaded), before);
    assert_eq!(images(&daemon, ".lease").len(), 3);

    // It stays for the last one, whoever uploaded it.
    one.end().await;
    two.end().await;
    assert_eq!(state(&daemon, uploaded), before);
    let beneath = daemon.told("find", &[IMAGES, "-name", "disk.qcow2"]);
    let chain = daemon.told("qemu-img", &["info", "--backing-chain", beneath.trim()]);
    assert!(chain.contains(uploaded.as_str()), "{chain}");
    three.end().await;
    assert_nothing_left(&daemon, "after the last one");
    for lab in labs {
        lab.finish().await;
    }
}

#[test]
fn a_guest_that_starts_from_a_shared_image_leaves_it_as_it_is_and_to_its_owner() {
    let daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let run_file = home.run_file(context(&home, &daemon.remote_uri(Transport::Tcp)));
    let mut live = Live::start(&mut run_command(&home, &run_file, "/bin/true", "sleep 600"));
    until("the machine", PATIENCE, || {
        assert!(live.runs(), "{}", live.stderr());
        let mut processes = daemon.processes().into_iter();
        processes.any(|(_, line)| line.contains("qemu-system") && line.contains("disk.qcow2"))
    });
    let [uploaded] = &images(&daemon, ".img")[..] else {
        panic!("one image: {:?}", images(&daemon, ""));
    };
    // The account of the emulators reads it as its group, and owns nothing there.
    let owner = daemon.told("stat", &["-c", "%U %a", uploaded]);
    assert_eq!(owner.trim(), "root 640");
    assert_eq!(
        sum(&daemon.told("sha256sum", &[uploaded])),
        sum_here(&home.guest("guest.qcow2"))
    );
    live.kill();
    let identifier = home.recorded().remove(0);
    assert_eq!(home.run(["gc", &identifier], PATIENCE).code, OK);
    assert_nothing_left(&daemon, "after the collection");
}

#[test]
fn an_upload_that_was_cut_short_is_never_taken_for_the_image() {
    let daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let image = large_image(&home, 512);
    let mut slow = context(&home, &daemon.remote_uri(Transport::Tcp));
    slow["disk"]["image"] = image.display().to_string().into();
    let run_file = home.run_file(slow);
    let mut live = Live::start(&mut run_command(&home, &run_file, "/bin/true", "true"));
    until("a part of the image", PATIENCE, || {
        assert!(live.runs(), "{}", live.stderr());
        let found = images(&daemon, ".img");
        let Some(file) = found.first() else {
            return false;
        };
        let size = daemon.told("stat", &["-c", "%b", file]);
        size.trim().parse::<u64>().is_ok_and(|blocks| blocks > 2048)
    });
    live.kill();
    assert_eq!(images(&daemon, ".whole"), Vec::<String>::new());
    let cut = images(&daemon, ".img");
    assert_eq!(cut.len(), 1, "{cut:?}");

    // The collection from here removes the part; then another may upload.
    let identifier = home.recorded().remove(0);
    let gc = home.run(["gc", &identifier], PATIENCE);
    assert_eq!(gc.code, OK, "{gc:#?}");
    assert_nothing_left(&daemon, "after the collection");
    let runtime = tokio::runtime::Runtime::new().expect("there are threads");
    runtime.block_on(async {
        let lab = Lab::new(&home);
        let whole = lab.allocate(&run_file).await.expect("it is made");
        let [uploaded] = &images(&daemon, ".img")[..] else {
            panic!("one image: {:?}", images(&daemon, ""));
        };
        assert_eq!(
            sum(&daemon.told("sha256sum", &[uploaded])),
            sum_here(&image)
        );
        whole.end().await;
        lab.finish().await;
    });
    assert_nothing_left(&daemon, "after the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_there_that_has_lost_a_part_is_not_used() {
    let daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let lab = Lab::new(&home);
    let run_file = home.run_file(context(&home, &daemon.remote_uri(Transport::Tcp)));
    let first = lab.allocate(&run_file).await.expect("it is made");
    let broken = images(&daemon, ".img").remove(0);
    daemon.told("truncate", &["-s", "-4096", &broken]);
    let second = lab.allocate(&run_file).await.expect("it is made");
    let found = images(&daemon, ".img");
    assert_eq!(found.len(), 2, "{found:?}");
    let whole = found.iter().find(|file| **file != broken).expect("another");
    let digest = sum_here(&home.guest("guest.qcow2"));
    assert_eq!(sum(&daemon.told("sha256sum", &[whole])), digest);
    first.end().await;
    second.end().await;
    assert_nothing_left(&daemon, "after both");
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_for_images_that_holds_somebody_elses_file_is_refused_each_time_and_stays() {
    let daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let lab = Lab::new(&home);
    let run_file = home.run_file(context(&home, &daemon.remote_uri(Transport::Tcp)));
    let first = lab.allocate(&run_file).await.expect("it is made");
    let image = images(&daemon, ".img").remove(0);
    let folder = Path::new(&image)
        .parent()
        .expect("a folder")
        .display()
        .to_string();
    let pool = folder.rsplit('/').next().expect("a name");
    let thesis = format!("{folder}/thesis");
    daemon.told("cp", &["/etc/hostname", &thesis]);
    let uri = "qemu+unix:///system?socket=/run/libvirt/libvirt-sock";
    daemon.told("virsh", &["-q", "-c", uri, "pool-refresh", pool]);
    let refused = async || {
        let refused = lab.allocate(&run_file).await;
        let refused = refused.expect_err("the folder is somebody else's, too");
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused:?}");
        assert!(refused.to_string().contains("thesis"), "{refused}");
    };
    refused().await;
    refused().await;
    first.end().await;
    refused().await;
    assert_eq!(daemon.objects(""), Vec::<String>::new());
    assert_eq!(left_there(&daemon), [thesis.clone(), folder, thesis]);
    assert_eq!(home.recorded(), Vec::<String>::new());
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_copy_is_the_image_uploaded_for_its_sandbox_alone() {
    let daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let lab = Lab::new(&home);
    let mut copied = context(&home, &daemon.remote_uri(Transport::Tcp));
    copied["disk"]["clone"] = json!({ "copy_on_write": false });
    let run_file = home.run_file(copied);
    let (one, two) = tokio::join!(lab.allocate(&run_file), lab.allocate(&run_file));
    let (one, two) = (one.expect("it is made"), two.expect("it is made"));
    assert_eq!(images(&daemon, ""), Vec::<String>::new());
    for sandbox in [one, two] {
        let disk = format!("{IMAGES}/see-{}/disk.img", sandbox.identifier());
        let digest = sum(&daemon.told("sha256sum", &[&disk]));
        assert_eq!(digest, sum_here(&home.guest("guest.qcow2")));
        assert_eq!(daemon.told("stat", &["-c", "%a", &disk]).trim(), "600");
        sandbox.end().await;
    }
    assert_nothing_left(&daemon, "after both");
    lab.finish().await;
}

#[test]
fn a_guest_runs_from_a_full_copy() {
    let daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let mut copied = context(&home, &daemon.remote_uri(Transport::Tcp));
    copied["disk"]["clone"] = json!({ "copy_on_write": false });
    let run_file = home.run_file(copied);
    let mut run = run_command(&home, &run_file, "/bin/true", "echo kept >/file && sync");
    let outcome = finish(spawn(&mut run), PATIENCE);
    assert_eq!(outcome.code, OK, "{outcome:#?}");
    assert_nothing_left(&daemon, "after the run");
}

/// A run over this large image, an overlay or a full copy, of which a part has arrived.
fn uploading(home: &Home, daemon: &PrivateDaemon, image: &Path, copy_on_write: bool) -> Live {
    let mut slow = context(home, &daemon.remote_uri(Transport::Tcp));
    slow["disk"] = json!({ "image": image, "clone": { "copy_on_write": copy_on_write } });
    let run_file = home.run_file(slow);
    let mut live = Live::start(&mut run_command(home, &run_file, "/bin/true", "true"));
    let told = live.wait_for("progress of the upload", PATIENCE, |line| {
        let report = &line["attributes"];
        line["event"] == "image_progress"
            && report["phase"] == "uploading"
            && report["done"].as_u64().is_some_and(|done| done > 0)
    });
    let told = told.unwrap_or_else(|| panic!("it ended: {live:#?}"));
    let length = std::fs::metadata(image).expect("it is there").len();
    assert_eq!(told["attributes"]["total"], json!(length));
    live
}

#[test]
fn an_interrupt_aborts_an_upload_and_leaves_nothing() {
    let daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let image = large_image(&home, 512);
    for copy_on_write in [false, true] {
        let mut live = uploading(&home, &daemon, &image, copy_on_write);
        let begin = Instant::now();
        live.signal(Signal::INT);
        let outcome = live.finish(PATIENCE);
        assert_eq!(outcome.code, Some(130), "{outcome:#?}");
        assert!(begin.elapsed() < PROMISED, "{:?}", begin.elapsed());
        assert!(outcome.events("allocated").is_empty(), "{outcome:#?}");
        assert_eq!(home.recorded(), Vec::<String>::new());
        assert_nothing_left(&daemon, "after the interrupt");
    }
}

#[test]
fn an_image_that_changes_while_it_is_uploaded_is_refused_and_no_part_of_it_stays() {
    let mut daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let image = large_image(&home, 512);
    for copy_on_write in [false, true] {
        let live = uploading(&home, &daemon, &image, copy_on_write);
        // While nobody takes more of it.
        daemon.pause();
        let changed = std::fs::OpenOptions::new().write(true).open(&image);
        let changed = changed.expect("it is ours");
        changed.write_all_at(b"changed", 0).expect("there is room");
        daemon.cont();
        let outcome = live.finish(PATIENCE);
        assert_ne!(outcome.code, OK, "{outcome:#?}");
        let failure = told(&outcome, "/failure").to_string();
        assert!(failure.contains("was written to while"), "{failure}");
        assert_eq!(home.recorded(), Vec::<String>::new());
        assert_nothing_left(&daemon, "after the refusal");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_share_a_folder_have_their_images_apart() {
    let home = Home::passable();
    let shared = home.path("shared");
    std::fs::create_dir(&shared).expect("the home is writable");
    let daemons = ["0a", "0b"].map(|digits| {
        PrivateDaemon::with(&DaemonOptions {
            transports: vec![Transport::Tcp],
            libvirtd_conf: format!("host_uuid = \"{digits}234567-89ab-cdef-0123-456789abcdef\"\n"),
            ..DaemonOptions::default()
        })
    });
    let lab = Lab::new(&home);
    let mut made = Vec::new();
    for daemon in &daemons {
        let mut context = context(&home, &daemon.remote_uri(Transport::Tcp));
        context["disk"]["clone"] = json!({ "storage_pool_path": shared });
        made.push(
            lab.allocate(&home.run_file(context))
                .await
                .expect("it is made"),
        );
    }
    // The first one's end takes nothing of the second's.
    made.remove(0).end().await;
    let second = made.remove(0);
    let disk = shared.join(format!("see-{}/disk.qcow2", second.identifier()));
    let disk = disk.to_str().expect("it is UTF-8");
    // It fails where what lies beneath is not there.
    daemons[1].told("qemu-img", &["info", "--backing-chain", disk]);
    second.end().await;
    let left = std::fs::read_dir(&shared).expect("it is ours").count();
    assert_eq!(left, 0);
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_cannot_be_made_there_leaves_no_pool() {
    let daemon = other_host(Transport::Tcp);
    let home = Home::new();
    let lab = Lab::new(&home);
    let mut nowhere = context(&home, &daemon.remote_uri(Transport::Tcp));
    nowhere["disk"]["clone"] = json!({ "storage_pool_path": "/proc/nowhere" });
    let refused = lab.allocate(&home.run_file(nowhere)).await;
    let refused = refused.expect_err("nobody makes folders there");
    assert!(refused.chain().contains("/proc/nowhere"), "{refused:?}");
    assert_nothing_left(&daemon, "after the refusal");
    assert_eq!(home.recorded(), Vec::<String>::new());
    lab.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sandboxes_that_come_and_go_at_once_all_find_their_image_and_leave_none() {
    let daemon = other_host(Transport::Tcp);
    let user = async || {
        let home = Home::new();
        let lab = Lab::new(&home);
        let run_file = home.run_file(context(&home, &daemon.remote_uri(Transport::Tcp)));
        for _ in 0..6 {
            let sandbox = lab.allocate(&run_file).await.expect("it is made");
            let disk = format!("{IMAGES}/see-{}/disk.qcow2", sandbox.identifier());
            // It fails where what lies beneath is not there.
            daemon.told("qemu-img", &["info", "--backing-chain", &disk]);
            sandbox.end().await;
        }
        assert_eq!(home.recorded(), Vec::<String>::new());
        lab.finish().await;
    };
    tokio::join!(user(), user(), user(), user());
    assert_nothing_left(&daemon, "after all");
}

//! Where there is no room, and where the image goes away.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use see_tests::{Home, Live, Neighbour, finish, guest, spawn, until};
use serde_json::{Value, json};

use crate::support::*;

/// How long a neighbour's sample lasts at least.
const BESIDE: Duration = Duration::from_secs(3);

/// A context whose disk is made in the folder `small`.
fn in_a_small_folder(copy_on_write: bool) -> Value {
    json!({
        "disk": {
            "image": guest("guest.qcow2"),
            "clone": { "storage_pool_path": "small", "copy_on_write": copy_on_write },
        },
    })
}

/// A home with the folder `small`, on which a file system of this size is mounted.
fn small(size: &str) -> (Home, String) {
    let home = Home::new();
    std::fs::create_dir(home.path("small")).expect("the home is writable");
    (home, format!("mount -t tmpfs -o size={size} none small"))
}

#[test]
fn a_copy_that_finds_no_room_is_told_and_leaves_nothing_and_the_neighbour_finishes() {
    let neighbour = Neighbour::begin(BESIDE);
    let (home, mount) = small("1m");
    write_run(&home, &in_a_small_folder(false), None);
    // The shell stays, to tell what is left where only it can look.
    let script = "\"$0\" \"$@\" || code=$?; ls -A small >left; exit $code";
    let mut command = with_mounts(&home, &format!("{mount}\n{script}"), &[]);
    let outcome = finish(spawn(&mut command), RUN);
    let failure = failure(&home, &outcome);
    assert!(failure.contains("No space left"), "{failure}");
    let left = std::fs::read_to_string(home.path("left")).expect("the shell told");
    assert_eq!(left, "");
    neighbour.assert_finishes();
}

#[test]
fn a_guest_that_fills_the_hosts_disk_ends_its_run_and_the_neighbour_finishes() {
    let neighbour = Neighbour::begin(3 * BESIDE);
    let (home, mount) = small("24m");
    write_run(&home, &in_a_small_folder(true), Some(sampling()));
    home.write(
        "sample.sh",
        "#!/bin/sh\ndd if=/dev/zero of=/root/full bs=1M; sync; sleep 600\n",
    );
    let filling = spawn(&mut with_mounts(&home, &mount, &["--sample", "sample.sh"]));
    let failure = failure(&home, &finish(filling, RUN));
    assert!(
        failure.contains("no space is left on the host's disk"),
        "{failure}"
    );
    assert!(failure.contains("disk.qcow2"), "{failure}");
    neighbour.assert_finishes();
}

/// The process that makes the disk of a run, once there is one.
fn disk_maker(home: &Home) -> Option<Pid> {
    let image = home.path("base.img");
    let image = image.to_str().expect("a test's paths are UTF-8");
    std::fs::read_dir("/proc")
        .expect("/proc is there")
        .flatten()
        .find(|process| {
            // It may end while it is looked at.
            let line = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            line.starts_with(b"qemu-img\0")
                && String::from_utf8_lossy(&line)
                    .split('\0')
                    .any(|word| word == image)
        })
        .and_then(|process| Pid::from_raw(process.file_name().to_str()?.parse().ok()?))
}

#[test]
fn an_image_that_vanishes_in_mid_clone_is_told_and_leaves_nothing_and_the_neighbour_finishes() {
    let neighbour = Neighbour::begin(BESIDE);
    let home = Home::new();
    let mut noise: u32 = 1;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.to_be_bytes()[0]
    })
    .take(192 << 20)
    .collect();
    home.write("base.img", bytes);
    let context = json!({ "disk": { "image": "base.img", "clone": { "copy_on_write": false } } });
    write_run(&home, &context, None);
    let mut command = home.seectl();
    command.args(["run", "--output", "json", "run.json"]);
    let live = Live::start(&mut command);
    let mut maker = None;
    until("the copy to begin", Duration::from_secs(30), || {
        maker = disk_maker(&home);
        maker.is_some()
    });
    let maker = maker.expect("it was waited for");
    kill_process(maker, Signal::STOP).expect("the copy is under way");
    std::fs::remove_file(home.path("base.img")).expect("the test's own file");
    kill_process(maker, Signal::CONT).expect("a stopped process is there");
    let failure = failure(&home, &live.finish(RUN));
    assert!(failure.contains("vanished while"), "{failure}");
    assert!(failure.contains("base.img"), "{failure}");
    neighbour.assert_finishes();
}

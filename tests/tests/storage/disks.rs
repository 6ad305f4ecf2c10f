//! The disks of machines: whatever a guest writes, the user's files stay as they are.

use std::process::Command;

use rustix::process::Signal;
use see_tests::{Footprint, Home, Live, assert_nothing_remains, finish, guest, spawn};
use serde_json::{Value, json};

use crate::support::*;

/// Reads and writes the cdrom and every disk, and tells what it could; the guest has no driver of floppies.
const SAMPLE: &str = "\
#!/bin/sh
head -c 4 /dev/sr0; echo
dd if=/dev/zero of=/dev/sr0 bs=64k count=1 conv=fsync,notrunc 2>/dev/null || echo refused sr0
head -c 4 /dev/vdb; echo
dd if=/dev/zero of=/dev/vdb bs=64k count=8 conv=fsync,notrunc 2>/dev/null && echo wrote vdb
dd if=/dev/zero of=/dev/vdc bs=64k count=8 conv=fsync,notrunc 2>/dev/null || echo refused vdc
dd if=/dev/zero of=/root/more bs=64k count=8 conv=fsync 2>/dev/null && echo wrote vda
head -c 4 /dev/vdb | od -An -tx1
";

#[test]
fn a_guest_that_writes_to_every_disk_changes_no_file_of_the_users_nor_a_stray_one_in_the_pool() {
    assert!(
        rustix::process::geteuid().is_root(),
        "the tests of the system daemon need root: run `sudo -E cargo xtask test`"
    );
    let home = Home::passable();
    for folder in ["users", "pool"] {
        std::fs::create_dir(home.path(folder)).expect("the home is writable");
    }
    std::fs::copy(guest("guest.qcow2"), home.path("users/guest.qcow2")).expect("it is built");
    let marked = |size: usize| {
        let mut bytes = b"MARK".to_vec();
        bytes.resize(size, b'.');
        bytes
    };
    let second = home.write("users/second.img", marked(1 << 20));
    let third = home.write("users/third.img", marked(1 << 20));
    let cdrom = home.write("users/tools.iso", marked(1 << 20));
    let floppy = home.write("users/floppy.img", marked(1_474_560));
    // python-see took a pool's first volume for the sandbox's disk.
    home.write("pool/0.qcow2", marked(1 << 20));
    home.write("pool/disk.qcow2", marked(1 << 20));
    home.write(
        "domain.xml",
        format!(
            "<domain type='qemu'><memory unit='MiB'>128</memory>\
             <os><type arch='x86_64' machine='pc'>hvm</type></os>\
             <features><acpi/></features><devices>\
             <controller type='scsi' model='virtio-scsi'/>\
             <disk type='file' device='cdrom'><source file='{}'/><target dev='sda' bus='scsi'/></disk>\
             <disk type='file' device='floppy'><source file='{}'/><target dev='fda' bus='fdc'/></disk>\
             <disk type='file'><driver name='qemu' type='raw'/><source file='{}'/>\
             <target dev='vdb' bus='virtio'/></disk>\
             <disk type='file'><target dev='vda' bus='virtio'/></disk>\
             <disk type='file'><driver name='qemu' type='raw'/><source file='{}'/>\
             <target dev='vdc' bus='virtio'/><readonly/></disk>\
             <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\
             </devices></domain>",
            cdrom.display(),
            floppy.display(),
            second.display(),
            third.display(),
        ),
    );
    write_run(
        &home,
        &json!({
            "hypervisor": "qemu:///system",
            "domain": { "configuration": "domain.xml" },
            "disk": {
                "image": "users/guest.qcow2",
                "clone": { "storage_pool_path": "pool" },
            },
        }),
        Some(sampling()),
    );
    home.write("sample.sh", SAMPLE);
    // The pool's folder has the sandbox's in it for a while, and with that another time.
    let kept = ["users", "pool/0.qcow2", "pool/disk.qcow2"];
    let before = kept.map(|path| Footprint::of(&home.path(path)));
    let outcome = home.run(
        [
            "run",
            "--output",
            "json",
            "run.json",
            "--sample",
            "sample.sh",
        ],
        RUN,
    );
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let result = outcome.result();
    let result = &result["result"];
    let stdout = result["sample_result"]["stdout"]
        .as_str()
        .expect("it was kept");
    let stdout = std::fs::read_to_string(stdout).expect("it was kept");
    let lines: Vec<&str> = stdout.lines().map(str::trim).collect();
    let expected = [
        "MARK",
        "refused sr0",
        "MARK",
        "wrote vdb",
        "refused vdc",
        "wrote vda",
        "00 00 00 00",
    ];
    assert_eq!(lines, expected, "{outcome:#?}");
    for (before, path) in before.iter().zip(kept) {
        before.assert_unchanged(&home.path(path));
    }
    let pool = std::fs::read_dir(home.path("pool")).expect("it is still there");
    assert_eq!(pool.count(), 2, "something is left in the pool's folder");
    assert_nothing_remains(result["identifier"].as_str().expect("the run has one"));
    assert_eq!(home.listed(), Vec::<Value>::new());
}

#[test]
fn a_full_copy_shares_the_images_blocks_where_the_file_system_can_do_that() {
    let home = Home::new();
    std::fs::create_dir(home.path("shelf")).expect("the home is writable");
    home.guest("guest.qcow2");
    let context = json!({
        "disk": {
            "image": "shelf/guest.qcow2",
            "clone": { "storage_pool_path": "shelf", "copy_on_write": false },
        },
    });
    let steps = json!([{ "step": "poweron" }, { "step": "wait", "timeout": "60s" }]);
    write_run(&home, &context, Some(steps));
    let mounts = "truncate -s 320M xfs.img && mkfs.xfs -q xfs.img && mount -o loop xfs.img shelf\n\
                  cp guest.qcow2 shelf && sync";
    let mut live = Live::start(&mut with_mounts(&home, mounts, &[]));
    live.wait_for("power", RUN, |line| line["event"] == "post_poweron")
        .expect("the machine starts");
    let identifier = home.recorded().pop().expect("it has a record");
    // The mount is to be seen through the process that has it.
    let home_there = home.folder().strip_prefix("/").expect("it is absolute");
    let shelf = std::path::PathBuf::from(format!("/proc/{}/root", live.pid()))
        .join(home_there)
        .join("shelf");
    let copy = shelf.join(&identifier).join("disk.qcow2");
    assert_eq!(
        std::fs::read(&copy).expect("it was made"),
        std::fs::read(shelf.join("guest.qcow2")).expect("it is there"),
    );
    let extents = finish(spawn(Command::new("filefrag").arg("-v").arg(&copy)), RUN);
    assert_eq!(extents.code, Some(0), "{extents:#?}");
    assert!(extents.stdout.contains("shared"), "{extents:#?}");
    live.signal(Signal::TERM);
    live.finish(RUN);
    assert_nothing_remains(&identifier);
    assert_eq!(home.listed(), Vec::<Value>::new());
}

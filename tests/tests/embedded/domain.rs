//! Domains and disks other than the built-in ones.

use std::path::PathBuf;
use std::process::Command;

use see_context::Native;
use see_tests::{Home, Lab, assert_nothing_remains, guest};
use serde_json::json;

use crate::support::*;

/// A domain as a user has it: comments, another program's metadata, a cdrom before the disk.
const DOMAIN: &str = "\
<?xml version='1.0'?>
<!-- exported from somewhere -->
<domain type='qemu' xmlns:corp='http://corp.example/ns'>
  <name>analyst-vm</name>
  <metadata>
    <corp:owner xmlns:corp='http://corp.example/ns' team='red &amp; blue'>x</corp:owner>
  </metadata>
  <memory unit='MiB'>160</memory>
  <vcpu>1</vcpu>
  <os><type arch='x86_64' machine='pc'>hvm</type><boot dev='hd'/></os>
  <features><acpi/><apic/></features>
  <devices>
    <!-- the tools come first -->
    <disk type='file' device='cdrom'>
      <target dev='hda' bus='ide'/>
      <readonly/>
    </disk>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/somewhere/else.img'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <controller type='usb' model='none'/>
    <video><model type='vga'/></video>
    <memballoon model='none'/>
  </devices>
</domain>
";

fn own_domain(home: &Home) -> PathBuf {
    home.write("domain.xml", DOMAIN);
    home.run_file(json!({
        "domain": { "configuration": "domain.xml" },
        "disk": { "image": guest("guest.qcow2") },
    }))
}

#[test]
fn a_domain_of_the_users_own_boots_from_its_disk() {
    let home = Home::new();
    let run_file = own_domain(&home);
    let outcome = run(
        &home,
        &run_file,
        [
            "--command",
            "grep -c . /proc/partitions; grep MemTotal /proc/meminfo",
        ],
    );
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let stdout = content(&outcome, "/sample_result/stdout");
    let stdout = String::from_utf8_lossy(&stdout);
    let memory: u64 = stdout
        .split_whitespace()
        .rev()
        .nth(1)
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no memory in {stdout:?}"));
    // It has the memory of that domain, and not the 256 MiB of the built-in one.
    assert!(memory < 160 << 10, "{stdout}");
    let kept = std::fs::read_to_string(home.path("domain.xml")).expect("it is still there");
    assert_eq!(kept, DOMAIN);
}

#[test]
fn a_domain_of_the_users_own_gets_the_image_on_its_disk_and_keeps_the_rest() {
    runtime().block_on(async {
        let home = Home::new();
        let lab = Lab::new(&home);
        let watched = lab.allocate(&own_domain(&home)).await.expect("a sandbox");
        let identifier = watched.identifier();
        let machine = watched.environment.machine();
        let native = machine
            .native()
            .and_then(|native| native.downcast_ref::<Native>())
            .expect("a libvirt domain");
        let xml = native.domain.xml().await.expect("it is defined");
        let (cdrom, rest) = xml.split_once("</disk>").expect("two disks");
        let (disk, _) = rest.split_once("</disk>").expect("two disks");
        assert!(cdrom.contains("device='cdrom'"), "{xml}");
        assert!(!cdrom.contains(".qcow2"), "the cdrom got an image: {xml}");
        assert!(disk.contains("device='disk'"), "{xml}");
        assert!(disk.contains("disk.qcow2"), "{xml}");
        assert!(!xml.contains("/somewhere/else.img"), "{xml}");
        assert!(xml.contains("http://corp.example/ns"), "{xml}");
        assert!(xml.contains("red &amp; blue"), "{xml}");
        assert!(xml.contains(&format!("<name>{identifier}</name>")), "{xml}");
        watched.end().await;
        lab.finish().await;
        assert_nothing_remains(&identifier);
    });
}

#[test]
fn a_full_clone_has_no_backing_file_and_boots() {
    runtime().block_on(async {
        let home = Home::new();
        let pool = home.path("pool");
        std::fs::create_dir(&pool).expect("the home is writable");
        let run_file = home.run_file(json!({
            "disk": {
                "image": guest("guest.qcow2"),
                "clone": { "copy_on_write": false, "storage_pool_path": "pool" },
            },
        }));
        let lab = Lab::new(&home);
        let mut watched = lab.allocate(&run_file).await.expect("a sandbox");
        // python-see's name for the folder.
        let folder = pool.join(watched.identifier());
        let disk = folder.join("disk.qcow2");
        let shown = Command::new("qemu-img")
            .args(["info", "--output=json"])
            .arg(&disk)
            .output()
            .expect("qemu-img is installed");
        let shown: serde_json::Value =
            serde_json::from_slice(&shown.stdout).expect("qemu-img prints JSON");
        assert_eq!(shown["format"], json!("qcow2"), "{shown:#}");
        assert_eq!(shown.get("backing-filename"), None, "{shown:#}");
        let mut turn = watched.environment.turn().await.expect("the turn");
        turn.poweron().await.expect("it starts");
        drop(turn);
        watched.event("ready", 0, BOOT).await;
        let (code, output) = watched.command("cat /etc/see-variant", CALL).await;
        assert_eq!((code, output.trim()), (Some(0), "plain"));
        let identifier = watched.identifier();
        watched.end().await;
        lab.finish().await;
        assert!(!folder.exists(), "the disk is left");
        assert!(pool.is_dir(), "the user's own folder went with it");
        assert_nothing_remains(&identifier);
    });
}

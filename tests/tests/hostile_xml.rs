//! Domains whose XML is made to let the guest out, or to let it write to a file of the user: whatever is in it, the
//! user's file stays as it is, and nothing of the guest reaches a service of the host.
//!
//! What cannot be admitted is refused at its line before anything is made; what can be made harmless is, and then a
//! real guest tries to use it.

use std::path::Path;
use std::time::Duration;

use see_tests::hostile::{MADE_HARMLESS, TRY, Target};
use see_tests::{
    DaemonOptions, Home, Outcome, PrivateDaemon, assert_nothing_remains, finish, spawn,
};
use serde_json::{Value, json};

/// The longest run of a small guest on a busy host.
const RUN: Duration = Duration::from_secs(300);
/// The documented exit code for a bad configuration.
const BAD_CONFIGURATION: Option<i32> = Some(2);

/// What is refused in each closed mode. `FILE` is a file of the user, `SOCKET` a listening socket of the host, `PORT`
/// a port on which it listens.
const REFUSED: [&str; 33] = [
    "<serial type='tcp'><source mode='connect' host='127.0.0.1' service='PORT'/></serial>",
    "<serial type='udp'><source mode='connect' host='127.0.0.1' service='PORT'/></serial>",
    "<serial type='unix'><source mode='connect' path='SOCKET'/></serial>",
    "<serial type='dev'><source path='FILE'/></serial>",
    "<serial type='pipe'><source path='FILE'/></serial>",
    "<console type='tcp'><source mode='connect' host='127.0.0.1' service='PORT'/><target type='virtio'/></console>",
    "<console type='dev'><source path='FILE'/></console>",
    "<parallel type='dev'><source path='FILE'/></parallel>",
    "<parallel type='tcp'><source mode='connect' host='127.0.0.1' service='PORT'/></parallel>",
    "<channel type='tcp'><source mode='connect' host='127.0.0.1' service='PORT'/><target type='virtio' name='x'/></channel>",
    "<channel type='unix'><source mode='connect' path='SOCKET'/><target type='virtio' name='x'/></channel>",
    "<channel type='pipe'><source path='FILE'/><target type='virtio' name='x'/></channel>",
    "<rng model='virtio'><backend model='egd' type='tcp'><source mode='connect' host='127.0.0.1' service='PORT'/></backend></rng>",
    "<rng model='virtio'><backend model='random'>FILE</backend></rng>",
    "<redirdev bus='usb' type='tcp'><source mode='connect' host='127.0.0.1' service='PORT'/></redirdev>",
    "<smartcard mode='passthrough' type='tcp'><source mode='connect' host='127.0.0.1' service='PORT'/></smartcard>",
    "<vsock model='virtio'><cid auto='yes'/></vsock>",
    "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='0' slot='3' function='0'/></source></hostdev>",
    "<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/><address bus='0' target='0' unit='0'/></source></hostdev>",
    "<filesystem type='mount'><source dir='FOLDER'/><target dir='x'/></filesystem>",
    "<filesystem type='mount'><source dir='/dev'/><target dir='x'/><readonly/></filesystem>",
    "<audio id='1' type='file' path='FILE'/>",
    "<pstore backend='acpi-erst'><path>FILE</path><size unit='KiB'>64</size></pstore>",
    "<memory model='nvdimm' access='shared'><source><path>FILE</path></source><target><size unit='KiB'>131072</size></target></memory>",
    "<shmem name='see-hostile'><model type='ivshmem-plain'/><size unit='M'>1</size></shmem>",
    "<disk type='network' device='cdrom'><source protocol='http' name='x'><host name='127.0.0.1' port='PORT'/></source><target dev='sdc'/></disk>",
    "<disk type='block' device='disk'><source dev='FILE'/><target dev='vdb' bus='virtio'/></disk>",
    "<disk type='file' device='disk' rawio='yes'><source file='FILE'/><target dev='vdb' bus='virtio'/></disk>",
    "<tpm model='tpm-tis'><backend type='emulator'><source type='file' path='FILE'/></backend></tpm>",
    "<watchdog model='i6300esb' action='dump'/>",
    "<input type='evdev'><source dev='FILE'/></input>",
    "<emulator2>FILE</emulator2>",
    "</devices><devices><disk type='file' device='disk'><driver type='raw'/><source file='FILE'/>\
     <target dev='vdc' bus='virtio'/></disk><interface type='user'/>",
];

/// What is refused beside the devices, in each closed mode, with what is said of it.
const REFUSED_BESIDE: [(&str, &str); 5] = [
    (
        "<commandline xmlns='QEMU'><arg value='-drive'/><arg value='file=FILE,if=virtio'/></commandline>",
        "<commandline> is refused",
    ),
    (
        "<override xmlns='QEMU'><device alias='ua-x'/></override>",
        "<override> is refused",
    ),
    (
        "<capabilities xmlns='QEMU'><add capability='x'/></capabilities>",
        "<capabilities> is refused",
    ),
    ("<os><kernel>FILE</kernel></os>", "a second <os>"),
    (
        "<metadata/><metadata><see:see xmlns:see='urn:x'/></metadata>",
        "a second <metadata>",
    ),
];
/// The namespace in which libvirt takes words for QEMU.
const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

fn run(home: &Home, beside: Option<&PrivateDaemon>, context: &Value, command: &str) -> Outcome {
    let file = home.sampling(context);
    let mut seectl = home.seectl();
    seectl
        .args(["run", "--output", "json"])
        .arg(file)
        .args(["--command", command]);
    let mut seectl = match beside {
        Some(daemon) => daemon.beside(seectl),
        None => seectl,
    };
    finish(spawn(&mut seectl), RUN)
}

/// A machine of this XML, on this hypervisor, in this mode.
fn context(target: &Target, domain: &Path, hypervisor: &str, mode: &str) -> Value {
    json!({
        "hypervisor": hypervisor,
        "domain": { "configuration": domain },
        "disk": { "image": target.image() },
        "network": { "mode": mode },
    })
}

fn failure(outcome: &Outcome) -> String {
    format!("{}{}", outcome.stdout, outcome.stderr)
}

#[test]
fn each_way_out_of_a_machine_without_a_network_is_refused_at_its_line() {
    let home = Home::new();
    let mut target = Target::new(&home.path("user"));
    let devices = REFUSED.map(|device| (device, "", "domain.xml:8:"));
    let beside = REFUSED_BESIDE.map(|(element, part)| ("", element, "domain.xml:10:", part));
    let devices = devices.map(|(device, element, place)| (device, element, place, ""));
    for (device, element, place, part) in devices.into_iter().chain(beside) {
        let what = format!("{device}{element}");
        let domain = target.domain(device, &element.replace("QEMU", QEMU));
        let context = context(&target, &domain, "embedded", "none");
        let outcome = run(&home, None, &context, "true");
        let told = failure(&outcome);
        assert_eq!(outcome.code, BAD_CONFIGURATION, "{what}: {told}");
        assert!(
            told.contains(place) && told.contains(part),
            "{what}: {told}"
        );
        target.assert_untouched(&what);
    }
    assert_eq!(home.listed(), Vec::<Value>::new());
}

/// QEMU opens any file that the words name; only who says so in the run file has it started with them.
#[test]
fn words_for_the_emulator_are_refused_in_an_open_mode_unless_the_run_file_allows_them() {
    let home = Home::new();
    let mut target = Target::new(&home.path("user"));
    let words = REFUSED_BESIDE[0].0.replace("QEMU", QEMU);
    let domain = target.domain("", &words);
    let mut context = context(&target, &domain, "embedded", "none");
    context["domain"]["allow_command_line"] = json!(true);
    let closed = run(&home, None, &context, "true");
    assert_eq!(closed.code, BAD_CONFIGURATION, "{closed:#?}");
    target.assert_untouched("allowed, and no network");

    let keys = context.as_object_mut().expect("an object");
    keys.remove("network");
    context["domain"]["allow_command_line"] = json!(false);
    let refused = run(&home, None, &context, "true");
    let told = failure(&refused);
    assert_eq!(refused.code, BAD_CONFIGURATION, "{told}");
    assert!(told.contains("domain.xml:10:"), "{told}");
    assert!(told.contains("allow_command_line"), "{told}");
    target.assert_untouched("refused");

    // Also where the words name nothing of the user's.
    let name = "<commandline xmlns='QEMU'><arg value='-name'/><arg value='debug-threads=on'/></commandline>";
    target.domain("", &name.replace("QEMU", QEMU));
    context["domain"]["allow_command_line"] = json!(true);
    let allowed = run(&home, None, &context, "true");
    assert_eq!(allowed.code, Some(0), "{allowed:#?}");
    target.assert_untouched("allowed");
}

/// The header of an image may name what lies beneath it, and QEMU opens that.
#[test]
fn an_image_that_the_guest_only_reads_has_nothing_beneath() {
    let home = Home::new();
    let mut target = Target::new(&home.path("user"));
    let made = std::process::Command::new("qemu-img")
        .args(["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(target.filled_in("nbd://127.0.0.1:PORT"))
        .arg(home.path("data.qcow2"))
        .arg("1M")
        .status();
    assert!(made.expect("qemu-img is installed").success());
    let data = home.path("data.qcow2");
    let data = data.display();
    for device in [
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{data}'/><target dev='vdb'/><readonly/></disk>"
        ),
        format!(
            "<disk type='file' device='cdrom'><driver name='qemu' type='qcow2'/><source file='{data}'/><target dev='hdc'/></disk>"
        ),
    ] {
        let domain = target.domain(&device, "");
        let context = context(&target, &domain, "embedded", "none");
        let outcome = run(&home, None, &context, "true");
        let told = failure(&outcome);
        assert_eq!(outcome.code, BAD_CONFIGURATION, "{device}: {told}");
        assert!(told.contains("domain.xml:8:"), "{device}: {told}");
        target.assert_untouched(&device);
    }
}

#[test]
fn all_ways_out_of_a_closed_network_are_told_at_once() {
    let daemon = PrivateDaemon::with(&DaemonOptions::default());
    let home = Home::passable();
    let mut target = Target::new(&home.path("user"));
    let beside = REFUSED_BESIDE.map(|(element, _)| element).join("");
    let domain = target.domain(&REFUSED.join("\n"), &beside.replace("QEMU", QEMU));
    for mode in ["isolated", "shared"] {
        let context = context(&target, &domain, &daemon.uri(), mode);
        let outcome = run(&home, Some(&daemon), &context, "true");
        let told = failure(&outcome);
        assert_eq!(outcome.code, BAD_CONFIGURATION, "{told}");
        for (index, device) in REFUSED.iter().enumerate() {
            let place = format!("domain.xml:{}:", index + 8);
            assert!(told.contains(&place), "{mode}: {device}: {told}");
        }
        for (element, part) in REFUSED_BESIDE {
            assert!(told.contains(part), "{mode}: {element}: {told}");
        }
        target.assert_untouched(mode);
    }
}

#[test]
fn what_is_made_harmless_lets_no_guest_without_a_network_out() {
    let home = Home::passable();
    let mut target = Target::new(&home.path("user"));
    let domain = target.domain(&MADE_HARMLESS.join("\n"), "");
    for hypervisor in ["embedded", "qemu:///system"] {
        let context = context(&target, &domain, hypervisor, "none");
        let outcome = run(&home, None, &context, &target.filled_in(TRY));
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        target.assert_untouched(hypervisor);
        let identifier = &outcome.result()["result"]["identifier"];
        assert_nothing_remains(identifier.as_str().expect("it has one"));
    }
}

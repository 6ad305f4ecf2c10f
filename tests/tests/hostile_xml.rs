//! Domains whose XML is made to let the guest out, or to let it write to a file of the user: whatever is in it, the
//! user's file stays as it is, and nothing of the guest reaches a service of the host.
//!
//! What cannot be admitted is refused at its line before anything is made; what can be made harmless is, and then a
//! real guest tries to use it.

use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// What becomes the sandbox's own, or is taken out.
const MADE_HARMLESS: [&str; 7] = [
    "<emulator>FILE</emulator>",
    "<serial type='pty'><log file='FILE' append='off'/></serial>",
    "<serial type='file'><source path='FILE'/></serial>",
    "<serial type='unix'><source mode='bind' path='FILE'/></serial>",
    "<channel type='unix'><source mode='bind' path='FILE'/><target type='virtio' name='org.see.x'/></channel>",
    "<graphics type='vnc' port='PORT' autoport='no' listen='0.0.0.0' socket='FILE'/>",
    "<interface type='user'><model type='virtio'/></interface><interface type='user'/><interface type='bridge'><source bridge='nobr'/></interface>",
];

/// What the guest does with all that it has: it writes to each line and each disk but the first, and calls the host.
const TRY: &str = "for line in /dev/ttyS* /dev/hvc* /dev/vport*; do [ \"$line\" = /dev/ttyS0 ] || \
    (echo HOSTILE >$line) 2>/dev/null & done; \
    for disk in /dev/vd[b-z]; do [ -b $disk ] && echo HOSTILE >$disk; done; \
    for address in 10.0.2.2 127.0.0.1; do (echo HOSTILE | nc -w 2 $address PORT) 2>/dev/null & done; sleep 3; echo tried";

/// A file of the user with what tells that somebody touched it, and services of the host.
struct Target {
    file: PathBuf,
    before: (Vec<u8>, u32, u32, u32, i64, i64, i64),
    tcp: TcpListener,
    udp: UdpSocket,
    unix: UnixListener,
    socket: PathBuf,
}

impl Target {
    fn new(home: &Home) -> Self {
        let file = home.write("thesis", vec![7; 1 << 20]);
        let socket = home.path("service.sock");
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let udp = UdpSocket::bind(tcp.local_addr().expect("it has one")).expect("the same port");
        let unix = UnixListener::bind(&socket).expect("a free name");
        tcp.set_nonblocking(true).expect("it can");
        udp.set_nonblocking(true).expect("it can");
        unix.set_nonblocking(true).expect("it can");
        let before = state(&file);
        Self {
            file,
            before,
            tcp,
            udp,
            unix,
            socket,
        }
    }

    /// The text with this target's paths and port in it.
    fn filled_in(&self, text: &str) -> String {
        let port = self
            .tcp
            .local_addr()
            .expect("it has one")
            .port()
            .to_string();
        let folder = self.file.parent().expect("it lies in a folder");
        text.replace("FILE", &self.file.to_string_lossy())
            .replace("FOLDER", &folder.to_string_lossy())
            .replace("SOCKET", &self.socket.to_string_lossy())
            .replace("PORT", &port)
    }

    fn assert_untouched(&self, what: &str) {
        assert_eq!(
            state(&self.file),
            self.before,
            "{what}: the user's file changed"
        );
        assert!(
            self.tcp.accept().is_err(),
            "{what}: somebody called the host"
        );
        assert!(
            self.udp.recv(&mut [0; 16]).is_err(),
            "{what}: somebody sent to the host"
        );
        assert!(
            self.unix.accept().is_err(),
            "{what}: somebody opened the host's socket"
        );
    }
}

fn state(file: &Path) -> (Vec<u8>, u32, u32, u32, i64, i64, i64) {
    let found = std::fs::symlink_metadata(file).expect("the user's file is there");
    assert!(found.is_file(), "the user's file is a file");
    let content = std::fs::read(file).expect("the user's file can be read");
    (
        content,
        found.uid(),
        found.gid(),
        found.mode(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    )
}

/// A whole machine with these devices beside its disk, which stand from line 8 on.
fn domain(devices: &str) -> String {
    format!(
        "<domain type='qemu'>\n<memory unit='MiB'>128</memory>\n<os><type machine='pc'>hvm</type></os>\n\
         <features><acpi/></features>\n<devices>\n<disk type='file' device='disk'><target dev='vda' bus='virtio'/>\n\
         <boot order='1'/></disk>\n{devices}\n</devices>\n</domain>"
    )
}

fn run(
    home: &Home,
    beside: Option<&PrivateDaemon>,
    context: &Value,
    xml: &str,
    command: &str,
) -> Outcome {
    let mut context = context.clone();
    context["domain"] = json!({ "configuration": home.write("domain.xml", xml) });
    let file = home.sampling(&context);
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

fn failure(outcome: &Outcome) -> String {
    format!("{}{}", outcome.stdout, outcome.stderr)
}

#[test]
fn each_way_out_of_a_machine_without_a_network_is_refused_at_its_line() {
    let home = Home::new();
    let target = Target::new(&home);
    let mut context = Home::embedded();
    context["network"] = json!({ "mode": "none" });
    for device in REFUSED {
        let xml = domain(&target.filled_in(device));
        let outcome = run(&home, None, &context, &xml, "true");
        let told = failure(&outcome);
        assert_eq!(outcome.code, BAD_CONFIGURATION, "{device}: {told}");
        assert!(told.contains("domain.xml:8:"), "{device}: {told}");
        target.assert_untouched(device);
    }
    assert_eq!(home.listed(), Vec::<Value>::new());
}

/// The header of an image may name what lies beneath it, and QEMU opens that.
#[test]
fn an_image_that_the_guest_only_reads_has_nothing_beneath() {
    let home = Home::new();
    let target = Target::new(&home);
    let made = std::process::Command::new("qemu-img")
        .args(["create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b"])
        .arg(target.filled_in("nbd://127.0.0.1:PORT"))
        .arg(home.path("data.qcow2"))
        .arg("1M")
        .status();
    assert!(made.expect("qemu-img is installed").success());
    let mut context = Home::embedded();
    context["network"] = json!({ "mode": "none" });
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
        let outcome = run(&home, None, &context, &domain(&device), "true");
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
    home.guest("guest.qcow2");
    let target = Target::new(&home);
    let devices: Vec<String> = REFUSED
        .iter()
        .map(|device| target.filled_in(device))
        .collect();
    for mode in ["isolated", "shared"] {
        let context = json!({
            "hypervisor": daemon.uri(),
            "disk": { "image": "guest.qcow2" },
            "network": { "mode": mode },
        });
        let outcome = run(
            &home,
            Some(&daemon),
            &context,
            &domain(&devices.join("\n")),
            "true",
        );
        let told = failure(&outcome);
        assert_eq!(outcome.code, BAD_CONFIGURATION, "{told}");
        for (index, device) in devices.iter().enumerate() {
            let place = format!("domain.xml:{}:", index + 8);
            assert!(told.contains(&place), "{mode}: {device}: {told}");
        }
        target.assert_untouched(mode);
    }
}

#[test]
fn what_is_made_harmless_lets_no_guest_without_a_network_out() {
    let home = Home::new();
    let target = Target::new(&home);
    let mut context = Home::embedded();
    context["network"] = json!({ "mode": "none" });
    let devices: Vec<String> = MADE_HARMLESS
        .iter()
        .map(|device| target.filled_in(device))
        .collect();
    let outcome = run(
        &home,
        None,
        &context,
        &domain(&devices.join("\n")),
        &target.filled_in(TRY),
    );
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    target.assert_untouched("none");
    assert_nothing_remains(
        outcome.result()["result"]["identifier"]
            .as_str()
            .expect("it has one"),
    );
}

#[test]
fn what_is_made_harmless_lets_no_guest_of_a_closed_network_out() {
    let daemon = PrivateDaemon::with(&DaemonOptions::default());
    let home = Home::passable();
    home.guest("guest.qcow2");
    let target = Target::new(&home);
    let devices: Vec<String> = MADE_HARMLESS
        .iter()
        .map(|device| target.filled_in(device))
        .collect();
    for mode in ["isolated", "shared"] {
        let context = json!({
            "hypervisor": daemon.uri(),
            "disk": { "image": "guest.qcow2" },
            "network": { "mode": mode },
        });
        let xml = domain(&devices.join("\n"));
        let outcome = run(&home, Some(&daemon), &context, &xml, &target.filled_in(TRY));
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        let result = &outcome.result()["result"];
        assert_eq!(result["isolation"]["verdict"], "proven", "{result:#}");
        target.assert_untouched(mode);
    }
}

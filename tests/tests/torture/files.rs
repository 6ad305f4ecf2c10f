//! The run files of an arena: what its machines and containers consist of, and what they are connected to.

use std::path::Path;
use std::process::Command;

use see_tests::{Home, PrivateDaemon, guest};
use serde_json::{Value, json};

use crate::arena::Kind;

/// A machine's XML. Its firmware keeps variables, and its first instruction ends all others: it boots at once.
const MACHINE: &str = "<domain type='qemu'><memory unit='MiB'>64</memory>\
    <os><type arch='x86_64' machine='pc'>hvm</type>\
    <loader readonly='yes' type='pflash'>HOME/code.fd</loader><nvram>HOME/variables.fd</nvram></os>\
    <features><acpi/></features>\
    <devices><disk type='file'><target dev='vda' bus='virtio'/></disk></devices></domain>";
/// How long that firmware is, in bytes, and what stands sixteen bytes before its end: `cli; hlt; jmp` to the `hlt`.
const FIRMWARE: usize = 256 << 10;
const RESET: [u8; 4] = [0xfa, 0xf4, 0xeb, 0xfd];
/// How many bytes its variables take.
const VARIABLES: usize = 64 << 10;

/// A container's XML, as a user writes it.
const CONTAINER: &str = "<domain type='lxc'><memory unit='MiB'>64</memory><os><type>exe</type>\
    <init>/etc/container</init></os><devices><filesystem type='mount'><source dir='ROOT'/><target dir='/'/>\
    </filesystem></devices></domain>";

/// How many MiB are copied in a full clone: it takes its time.
const LARGE: usize = 192;

/// What a machine or container is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Net {
    /// Nothing, as the embedded driver has it.
    None,
    /// A network of libvirt's, in a free subnet.
    Subnet,
    /// A network of its own behind walls.
    Isolated,
    /// A seat on the host's shared network, behind walls.
    Shared,
}

impl Net {
    /// The name of a run file for it; the first network's is the plain one.
    pub(crate) fn file(self, file: &str) -> String {
        match self {
            Self::None | Self::Subnet => file.to_owned(),
            Self::Isolated => format!("isolated-{file}"),
            Self::Shared => format!("shared-{file}"),
        }
    }

    fn section(self) -> Value {
        match self {
            Self::None => json!({ "mode": "none" }),
            Self::Subnet => json!({ "dynamic_address": {
                "ipv4": "10.213.0.0", "prefix": 16, "subnet_prefix": 24 } }),
            Self::Isolated => json!({ "mode": "isolated", "verify": false }),
            Self::Shared => json!({ "mode": "shared", "verify": false }),
        }
    }
}

/// Writes everything that the runs of one hypervisor need: for each network `run.json`, which powers on and ends,
/// `copy.json`, whose disk or root is a large one that is copied, and `long.json`, which stays on.
pub(crate) fn write(home: &Home, kind: Kind, daemon: Option<&PrivateDaemon>) {
    std::fs::create_dir(home.path("pool")).expect("the home is writable");
    match kind {
        Kind::Lxc => roots(home),
        Kind::Embedded | Kind::System => disks(home),
    }
    let wait = [json!({ "step": "wait", "for": "never", "timeout": "20m" })];
    for net in kind.nets() {
        let machine = context(home, (kind, *net), "small", daemon);
        let large = context(home, (kind, *net), "large", daemon);
        run(home, &net.file("run.json"), &machine, &[]);
        run(home, &net.file("copy.json"), &large, &[]);
        run(home, &net.file("long.json"), &machine, &wait);
    }
}

fn context(
    home: &Home,
    (kind, net): (Kind, Net),
    size: &str,
    daemon: Option<&PrivateDaemon>,
) -> Value {
    let network = net.section();
    if kind == Kind::Lxc {
        return json!({
            "network": network,
            "hypervisor": daemon.map(PrivateDaemon::lxc_uri),
            "domain": {
                "configuration": format!("{size}.xml"),
                "filesystem": { "source_path": "pool", "target_path": "/mnt/shared" },
            },
        });
    }
    let mut context = json!({
        "network": network,
        "disk": {
            "image": home.path(&format!("{size}.img")),
            "clone": { "copy_on_write": size == "small", "storage_pool_path": "pool" },
        },
    });
    // Of a machine whose firmware keeps variables libvirt takes no snapshot.
    match net {
        Net::Subnet => context["memory"] = json!("64MiB"),
        Net::None | Net::Isolated | Net::Shared => {
            context["domain"] = json!({ "configuration": "machine.xml" });
        }
    }
    if let Some(daemon) = daemon {
        context["hypervisor"] = json!(daemon.uri());
    }
    context
}

fn run(home: &Home, name: &str, context: &Value, more: &[Value]) {
    let mut protocol = vec![json!({ "step": "poweron" })];
    protocol.extend_from_slice(more);
    let run = json!({
        "version": 1,
        "context": context,
        "hooks": { "hooks": [] },
        "protocol": protocol,
    });
    home.write(name, serde_json::to_vec_pretty(&run).expect("it is JSON"));
}

/// Nothing to boot: what matters is what the host has to do.
fn disks(home: &Home) {
    let block = block();
    home.write("small.img", &block);
    home.write("large.img", block.repeat(LARGE));
    let mut firmware = vec![0xf4; FIRMWARE];
    firmware[FIRMWARE - 16..][..RESET.len()].copy_from_slice(&RESET);
    home.write("code.fd", firmware);
    home.write("variables.fd", vec![0; VARIABLES]);
    let here = home.path("").display().to_string();
    let here = here.trim_end_matches('/');
    home.write("machine.xml", MACHINE.replace("HOME", here));
}

/// A root that is copied in no time, and one with many files more.
fn roots(home: &Home) {
    let small = guest("container");
    let large = home.path("large");
    let mut copy = Command::new("cp");
    let copied = copy.arg("-a").arg(&small).arg(&large).status();
    assert!(copied.expect("cp is installed").success());
    let block = block();
    for number in 0..LARGE {
        home.write(&format!("large/root/file-{number}"), &block);
    }
    for (name, root) in [("small.xml", small.as_path()), ("large.xml", &large)] {
        home.write(name, container(root));
    }
}

/// A container's XML with this root.
fn container(root: &Path) -> String {
    CONTAINER.replace("ROOT", &root.to_string_lossy())
}

/// A MiB that is no hole.
fn block() -> Vec<u8> {
    (0..1_u32 << 20).map(|byte| (byte % 251) as u8).collect()
}

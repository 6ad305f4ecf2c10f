//! Everything that libvirt's own schema knows, through both kinds of mode.
//!
//! What names something outside of the machine is told by the schema itself: by the type of an attribute or of a text
//! (`absFilePath`, `ipAddr`), by an attribute's name, and by the values that it lists (`type='tcp'`). All of that which
//! the table lets pass stands here once more, with the reason why it is harmless: a row of the table that is changed to
//! admit more fails, and so does what a later libvirt knows.

use std::collections::BTreeMap;

use super::sample::{self, Part};
use super::schema::{self, Content};
use super::{Promise, admitted};

/// How the schema calls paths of files.
const FILE_TYPES: &[&str] = &[
    "absDirPath",
    "absFilePath",
    "dirPath",
    "filePath",
    "vmwarePath",
];
/// Attributes that name files, though the schema may say no more than "text".
const FILE_NAMES: &[&str] = &[
    "dir",
    "evdev",
    "file",
    "logFile",
    "path",
    "rendernode",
    "runtimeDir",
    "socket",
    "tap",
    "vhost",
];
/// Values that say that something is a file, a folder or a device of the host.
const FILE_VALUES: &[&str] = &[
    "bind",
    "block",
    "coredump-destroy",
    "coredump-restart",
    "dev",
    "dir",
    "dump",
    "file",
    "mount",
    "nvdimm",
    "nvme",
    "pipe",
    "template",
    "virtio-pmem",
    "volume",
];
/// Elements that are kept in files of the host, whatever they say.
const FILE_ELEMENTS: &[&str] = &[
    "devices/disk/source/reservations",
    "devices/lease",
    "devices/pstore",
    "devices/shmem",
    "os/shim",
    "os/varstore",
];
/// How the schema calls what else is outside of the machine.
const OTHER_TYPES: &[&str] = &[
    "PortNumber",
    "addrIPorName",
    "dbusAddr",
    "deviceName",
    "dnsName",
    "ipAddr",
    "ipv4Addr",
    "ipv6Addr",
    "objectName",
    "volName",
];
const OTHER_NAMES: &[&str] = &[
    "bridge", "dev", "display", "host", "listen", "network", "pool", "service", "wwpn", "xauth",
];
const OTHER_VALUES: &[&str] = &[
    "alsa",
    "bridge",
    "client",
    "connect",
    "dbus",
    "desktop",
    "direct",
    "egd",
    "egl-headless",
    "ethernet",
    "evdev",
    "external",
    "host",
    "hostdev",
    "jack",
    "mcast",
    "nbd",
    "network",
    "nmdm",
    "oss",
    "passthrough",
    "pipewire",
    "pulseaudio",
    "qemu-vdagent",
    "sdl",
    "server",
    "spiceport",
    "spicevmc",
    "tcp",
    "udp",
    "unix",
    "user",
    "vdpa",
    "vhostuser",
    "vhostvdpa",
];

/// What a machine may have in every mode: neither a way out, nor a file that the guest writes.
const HARMLESS: &[(&str, &str)] = &[
    (
        "blkiotune/device/path",
        "whose share of the host's disk the machine has",
    ),
    (
        "cpu/cache@mode=passthrough",
        "what the guest sees of the processor",
    ),
    (
        "cpu/maxphysaddr@mode=passthrough",
        "what the guest sees of the processor",
    ),
    (
        "cpu/numa/cell/cache@associativity=direct",
        "what the guest sees of the processor",
    ),
    (
        "devices/channel@type=unix",
        "libvirt chooses a socket for each machine",
    ),
    (
        "devices/console@tty",
        "of a terminal of another run, which libvirt writes anew",
    ),
    ("devices/disk/driver@type=dir", "a format"),
    (
        "devices/disk/source@dev",
        "read-only, or beneath an overlay",
    ),
    (
        "devices/disk/source@dir",
        "read-only, or beneath an overlay",
    ),
    (
        "devices/disk/source@file",
        "read-only, or beneath an overlay",
    ),
    (
        "devices/disk/source@mode=direct|host",
        "of a volume, which closed networks do not have",
    ),
    (
        "devices/disk/source@pool",
        "of a volume, which closed networks do not have",
    ),
    (
        "devices/disk/source@volume",
        "of a volume, which closed networks do not have",
    ),
    ("devices/disk/target@dev", "a name in the guest"),
    (
        "devices/disk@snapshot=external",
        "how a snapshot would be taken, and nobody takes one",
    ),
    (
        "devices/disk@type=block|dir|file|network|volume",
        "without a source; those with one have rows of their own",
    ),
    (
        "devices/filesystem/driver@format=dir",
        "of a container's root, which is copied",
    ),
    (
        "devices/filesystem/driver@type=nbd|path",
        "of a container's root, which is copied",
    ),
    (
        "devices/filesystem/source@dir",
        "a folder that the guest reads, or a container's root, which is copied",
    ),
    ("devices/filesystem/target@dir", "a name in the guest"),
    (
        "devices/filesystem@accessmode=passthrough",
        "whose files the guest takes those for that it reads",
    ),
    (
        "devices/filesystem@type=bind|block|file|mount|template|volume",
        "a folder that the guest reads, or a container's root, which is copied",
    ),
    (
        "devices/graphics/mouse@mode=client|server",
        "who draws the pointer",
    ),
    ("devices/interface/guest@actual", "a name in the guest"),
    ("devices/interface/guest@dev", "a name in the guest"),
    ("devices/interface/rom@file", "a file that the guest reads"),
    (
        "devices/interface/source@bridge",
        "the sandbox's own network is written over it",
    ),
    (
        "devices/interface/source@network",
        "the sandbox's own network is written over it",
    ),
    (
        "devices/interface/source@portgroup",
        "the sandbox's own network is written over it",
    ),
    (
        "devices/interface@type=network",
        "the sandbox's own network is written over it",
    ),
    (
        "devices/parallel@tty",
        "of a terminal of another run, which libvirt writes anew",
    ),
    (
        "devices/rng/backend",
        "no file: a path stands in a random one alone, whose text has a row of its own",
    ),
    (
        "devices/serial@tty",
        "of a terminal of another run, which libvirt writes anew",
    ),
    (
        "features/gic@version=host",
        "what the guest sees of the processor",
    ),
    (
        "features/hyperv@mode=passthrough",
        "what the guest sees of the processor",
    ),
    (
        "memoryBacking/source@type=file",
        "a file of libvirt's own for each machine",
    ),
    ("os/acpi/table", "a file that the guest reads"),
    ("os/boot@dev", "hd, cdrom and the like"),
    ("os/dtb", "a file that the guest reads"),
    ("os/init", "a program of the container"),
    ("os/initdir", "a folder of the container"),
    ("os/initrd", "a file that the guest reads"),
    ("os/kernel", "a file that the guest reads"),
    (
        "os/loader",
        "read only: a writable one is refused where it is read",
    ),
    ("os/nvram", "each sandbox gets a copy"),
    ("os/nvram/source@file", "each sandbox gets a copy"),
    ("os/nvram@template", "each sandbox gets a copy"),
    (
        "os/nvram@type=block|dir|file|network|nvme|vhostuser|vhostvdpa|volume",
        "each sandbox gets a copy, which is a file",
    ),
    ("os/root", "words for the guest's kernel"),
    ("resource/partition", "a control group"),
];

/// What it may have besides where its network is not closed: no file that the guest writes.
const HARMLESS_IF_OPEN: &[(&str, &str)] = &[
    (
        "devices/channel/source@path",
        "a socket to which libvirt connects",
    ),
    (
        "devices/console/source@path",
        "a socket to which libvirt connects",
    ),
    (
        "devices/disk/source/config@file",
        "settings that the emulator reads",
    ),
    (
        "devices/disk/source/host@socket",
        "where a network disk is served",
    ),
    (
        "devices/disk/source/knownHosts@path",
        "keys of hosts that the emulator reads",
    ),
    (
        "devices/graphics/gl@rendernode",
        "a graphics card of this host",
    ),
    ("devices/hostdev/rom@file", "a file that the guest reads"),
    (
        "devices/hostdev/source/block",
        "of a storage device, which has a row of its own that refuses it",
    ),
    (
        "devices/hostdev/source/char",
        "a device that the user passes to the guest",
    ),
    (
        "devices/input/source@dev",
        "a keyboard that the guest hears",
    ),
    (
        "devices/input/source@evdev",
        "a keyboard that the guest hears",
    ),
    (
        "devices/interface/backend@tap",
        "by which device the host moves the card's packets",
    ),
    (
        "devices/interface/backend@vhost",
        "by which device the host moves the card's packets",
    ),
    (
        "devices/interface/downscript@path",
        "a program of this host, which the user names",
    ),
    (
        "devices/interface/script@path",
        "a program of this host, which the user names",
    ),
    (
        "devices/interface/source@path",
        "a socket of the host's switch",
    ),
    (
        "devices/parallel/source@path",
        "a socket to which libvirt connects",
    ),
    (
        "devices/redirdev/source@path",
        "a socket to which libvirt connects",
    ),
    (
        "devices/rng/backend/source@path",
        "a socket to which libvirt connects",
    ),
    (
        "devices/serial/source@path",
        "a socket to which libvirt connects",
    ),
    (
        "devices/smartcard/database",
        "certificates that the emulator reads",
    ),
    (
        "devices/smartcard/source@path",
        "a socket to which libvirt connects",
    ),
    (
        "devices/tpm/backend/device@path",
        "a TPM of this host that the user passes to the guest",
    ),
    (
        "devices/tpm/backend/source@path",
        "a socket to which libvirt connects",
    ),
];

/// Whether a part of the format is outside of the machine, a file or in a closed network anything: how it is listed above.
fn outside_part(
    promise: Promise,
    content: &Content,
    path: &str,
    name: Option<&str>,
    value: &str,
) -> Option<String> {
    let place = match name {
        Some(name) => format!("{path}@{name}"),
        None => path.to_owned(),
    };
    let is_closed = promise == Promise::Closed;
    let is_in = |files: &[&str], others: &[&str], found: &str| {
        files.contains(&found) || is_closed && others.contains(&found)
    };
    let mut types = content.types.iter();
    if types.any(|found| is_in(FILE_TYPES, OTHER_TYPES, found))
        || name.is_some_and(|name| is_in(FILE_NAMES, OTHER_NAMES, name))
        || is_in(FILE_ELEMENTS, &[], path)
    {
        return Some(place);
    }
    is_in(FILE_VALUES, OTHER_VALUES, value).then(|| format!("{place}={value}"))
}

/// Whether one of the parts of a list is this one. One with several values stands there as `type=this|that`.
fn lists(list: &[(&str, &str)], part: &str) -> bool {
    list.iter().any(|(listed, _)| match listed.split_once('=') {
        None => *listed == part,
        Some((place, values)) => part.split_once('=').is_some_and(|(found, value)| {
            found == place && values.split('|').any(|listed| listed == value)
        }),
    })
}

/// What passes and is outside of the machine, each with a domain in which it does.
fn outside(promise: Promise) -> BTreeMap<String, String> {
    let schema = schema::read("/usr/share/libvirt/schemas");
    assert!(schema.len() > 600, "{} elements", schema.len());
    let (mut tried, mut passed) = (0, 0);
    let mut found = BTreeMap::new();
    for (path, element) in &schema {
        if path.contains("ANY") || path.starts_with("metadata/") {
            continue;
        }
        let mut passing = |part| {
            let samples = sample::samples(path, part, promise);
            tried += samples.len();
            let mut samples = samples.into_iter();
            let passing = samples.find(|text| {
                admitted(promise, text).is_ok_and(|left| sample::has(&left, path, part))
            });
            passed += usize::from(passing.is_some());
            passing
        };
        let attributes = element.attributes.iter();
        let attributes = attributes.map(|(name, content)| (Some(name.as_str()), content));
        for (name, content) in attributes.chain([(None, &element.text)]) {
            let some = content.values.is_empty().then_some("x");
            for value in content.values.iter().map(String::as_str).chain(some) {
                let part = name.map_or(Part::Text(value), |name| Part::Attribute(name, value));
                if let Some(text) = passing(part)
                    && let Some(part) = outside_part(promise, content, path, name, value)
                {
                    found.insert(part, text);
                }
            }
        }
    }
    assert!(tried > 3000 && passed > 1000, "{passed} of {tried} pass");
    found
}

#[test]
fn nothing_outside_of_the_machine_passes_in_a_closed_network_unless_it_is_harmless() {
    let mut ways = outside(Promise::Closed);
    ways.retain(|part, _| !lists(HARMLESS, part));
    assert!(ways.is_empty(), "ways out: {ways:#?}");
}

#[test]
fn no_file_of_the_host_passes_in_an_open_network_unless_it_is_harmless() {
    let mut files = outside(Promise::Open);
    files.retain(|part, _| !lists(HARMLESS, part) && !lists(HARMLESS_IF_OPEN, part));
    assert!(files.is_empty(), "files: {files:#?}");
}

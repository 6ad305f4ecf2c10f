//! The table against libvirt's own schema, and against what people have.

use see_core::config::{ConfigPath, Configuration};
use see_libvirt::xml::DomainXml;

use super::*;

mod sample;
mod schema;
mod walk;

/// A path of the configuration, as the run file's is.
fn path() -> ConfigPath {
    let tree = Configuration::from_str("run.json", r#""domain.xml""#).unwrap();
    tree.deserialize().unwrap()
}

/// Admits a domain with these devices; the XML that is left, or the findings.
fn admitted(promise: Promise, text: &str) -> Result<String, Vec<String>> {
    let mut domain = DomainXml::parse(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    match admit(&mut domain, promise, true, &path()) {
        Ok(()) => Ok(domain.to_string()),
        Err(error) => {
            let all = std::iter::once(&error).chain(error.further());
            Err(all.map(|error| error.to_string()).collect())
        }
    }
}

fn with_devices(devices: &str) -> String {
    format!("<domain type='qemu'>\n<devices>\n{devices}\n</devices>\n</domain>")
}

/// Whether an element of these devices is refused in a mode, and where.
fn refused(promise: Promise, devices: &str) -> Option<Vec<String>> {
    admitted(promise, &with_devices(devices)).err()
}

#[test]
fn every_line_of_the_table_is_read_and_says_why() {
    assert_eq!(table::rows().count(), table::lines().count());
    for row in table::rows() {
        assert!(row.why.len() > 4, "{row:?}");
    }
}

#[test]
fn a_way_out_of_a_closed_network_is_refused_and_admitted_in_an_open_one() {
    for device in [
        "<serial type='udp'><source mode='connect' host='127.0.0.1' service='9999'/></serial>",
        "<serial type='tcp'><source mode='connect' host='127.0.0.1' service='9999'/></serial>",
        "<console type='tcp'><source mode='bind' host='127.0.0.1' service='9999'/></console>",
        "<parallel type='tcp'><source mode='connect' host='127.0.0.1' service='9999'/></parallel>",
        "<channel type='tcp'><source mode='connect' host='h' service='1'/><target type='virtio' name='a'/></channel>",
        "<channel type='unix'><source mode='connect' path='/run/x'/><target type='virtio' name='a'/></channel>",
        "<channel type='unix'><source path='/run/x'/><target type='virtio' name='a'/></channel>",
        "<serial type='unix'><source mode='connect' path='/run/x'/></serial>",
        "<rng model='virtio'><backend model='egd' type='udp'><source mode='connect' host='h' service='1'/></backend></rng>",
        "<rng model='virtio'><backend model='random'>/home/u/secret</backend></rng>",
        "<smartcard mode='host'/>",
        "<smartcard mode='passthrough' type='tcp'><source mode='bind' host='h' service='1'/></smartcard>",
        "<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/></source></hostdev>",
        "<hostdev mode='capabilities' type='net'><source><interface>eth0</interface></source></hostdev>",
        "<hostdev mode='subsystem' type='pci'/>",
        "<vsock model='virtio'><cid auto='yes'/></vsock>",
        "<redirdev bus='usb' type='tcp'><source mode='connect' host='h' service='1'/></redirdev>",
        "<disk type='network' device='cdrom'><source protocol='http' name='x'><host name='h' port='80'/></source></disk>",
        "<disk type='network'><source protocol='nbd' name='x'><host name='h'/></source><target dev='vdz'/><readonly/></disk>",
        "<tpm model='tpm-tis'><backend type='passthrough'><device path='/dev/tpm0'/></backend></tpm>",
        "<tpm model='tpm-tis'><backend type='external'><source type='unix' mode='connect' path='/x'/></backend></tpm>",
        "<input type='passthrough' bus='virtio'><source evdev='/dev/input/event1'/></input>",
        "<audio id='1' type='pulseaudio'/>",
        "<disk type='volume' device='cdrom'><source pool='p' volume='v'/><target dev='sdz'/></disk>",
        "<graphics type='egl-headless'/>",
        "<graphics type='spice'><gl enable='yes'/></graphics>",
        "<video><model type='virtio'><acceleration accel3d='yes'/></model></video>",
        "<video><driver name='vhostuser'/><model type='virtio'/></video>",
        "<interface type='user'/>",
        "<interface type='network'><source network='x'/><vlan><tag id='7'/></vlan></interface>",
        "<crypto model='virtio' type='qemu'><backend model='lkcf'/></crypto>",
    ] {
        // The image's disk comes first: a further one is looked at as it is written.
        let device = format!("<disk device='disk'><target dev='vda'/></disk>\n{device}");
        let findings = refused(Promise::Closed, &device).unwrap_or_else(|| panic!("{device}"));
        assert!(findings[0].contains("domain.xml:4:"), "{findings:?}");
        assert_eq!(refused(Promise::Open, &device), None, "{device}");
    }
}

#[test]
fn in_every_mode_the_guest_writes_to_no_file_of_the_user() {
    for device in [
        "<serial type='dev'><source path='/dev/ttyS0'/></serial>",
        "<serial type='pipe'><source path='/home/u/p'/></serial>",
        "<filesystem type='mount'><source dir='/srv'/><target dir='x'/></filesystem>",
        "<filesystem><source dir='/srv'/><target dir='x'/></filesystem>",
        "<filesystem type='file'><source file='/srv/i'/><target dir='x'/><readonly/></filesystem>",
        "<filesystem type='mount'><driver type='virtiofs'/><source socket='/s'/><target dir='x'/><readonly/></filesystem>",
        "<audio id='1' type='file' path='/home/u/a.wav'/>",
        "<pstore backend='acpi-erst'><path>/home/u/p</path></pstore>",
        "<memory model='nvdimm' access='shared'><source><path>/home/u/n</path></source></memory>",
        "<memory model='virtio-pmem' access='shared'><source><path>/home/u/n</path></source></memory>",
        "<memory model='dimm'><source><path>/home/u/n</path></source></memory>",
        "<shmem name='x'><model type='ivshmem-plain'/></shmem>",
        "<hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/></source></hostdev>",
        "<hostdev mode='capabilities' type='storage'><source><block>/dev/sda</block></source></hostdev>",
        "<disk type='nvme' device='disk'><source type='pci'/><target dev='vdb'/></disk>",
        "<disk type='vhostuser' device='disk'><source type='unix' path='/s'/><target dev='vdb'/></disk>",
        "<disk type='block' device='disk'><source dev='/dev/sda'/><target dev='vdb'/></disk>",
        "<disk type='file' device='disk' rawio='yes'><source file='/a'/><target dev='vdb'/></disk>",
        "<lease><lockspace>a</lockspace><key>b</key><target path='/home/u/l'/></lease>",
        "<tpm model='tpm-tis'><backend type='emulator'><source type='file' path='/home/u/t'/></backend></tpm>",
        "<interface type='user'><backend type='passt' logFile='/home/u/log'/></interface>",
        "<watchdog model='i6300esb' action='dump'/>",
    ] {
        let devices = format!("<disk device='disk'><target dev='vda'/></disk>\n{device}");
        for promise in [Promise::Closed, Promise::Open] {
            let findings = refused(promise, &devices);
            let findings = findings.unwrap_or_else(|| panic!("{promise:?}: {device}"));
            assert!(!findings.is_empty(), "{device}");
        }
    }
    let text = "<domain type='qemu'><on_crash>coredump-destroy</on_crash><devices/></domain>";
    assert!(admitted(Promise::Open, text).is_err());
    // The daemon would give these to the account of its emulators.
    for inside in [
        "<os><varstore path='/x'/></os>",
        "<os><shim>/x</shim></os>",
        "<sysinfo type='fwcfg'><entry name='opt/x' file='/x'/></sysinfo>",
        "<launchSecurity type='tdx'><quoteGenerationService path='/run/x'/></launchSecurity>",
        "<features><later socket='/run/x'/></features>",
    ] {
        let text = format!("<domain type='qemu'>{inside}<devices/></domain>");
        assert!(admitted(Promise::Open, &text).is_err(), "{inside}");
    }
    let label = "<disk type='file' device='cdrom'><source file='/x'>\
        <seclabel model='dac' relabel='yes'><label>+0:+0</label></seclabel></source><target dev='sdz'/></disk>";
    let devices = format!("<disk device='disk'><target dev='vda'/></disk>\n{label}");
    let left = admitted(Promise::Open, &with_devices(&devices)).unwrap();
    assert!(!left.contains("seclabel"), "{left}");
}

#[test]
fn files_terminals_and_labels_of_another_run_become_the_sandboxs_own() {
    let devices = "<serial type='pty'><source path='/dev/pts/3'/><log file='/home/u/l' append='off'/></serial>\
        <serial type='file'><source path='/home/u/f'/></serial>\
        <serial type='unix'><source mode='bind' path='/home/u/s'/><protocol type='raw'/></serial>\
        <channel type='unix'><source mode='bind' path='/home/u/s'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
        <graphics type='vnc' port='5901' autoport='no' listen='0.0.0.0' websocket='5700' socket='/s'>\
        <listen type='address' address='0.0.0.0'/></graphics>\
        <graphics type='rdp' port='3389' listen='0.0.0.0'/>\
        <graphics type='spice' defaultMode='secure' tlsPort='5902'><channel name='main' mode='secure'/></graphics>";
    let text = format!(
        "<domain type='qemu'><genid>43dc0cf8-809b-4adb-9bea-a9abb5f3d90e</genid>\
         <seclabel type='static' model='dac'><label>+0:+0</label></seclabel><devices>{devices}</devices></domain>"
    );
    for promise in [Promise::Closed, Promise::Open] {
        assert_eq!(
            admitted(promise, &text).unwrap(),
            "<domain type='qemu'><genid/><devices><serial type='pty'/>\
             <serial type='null'/><serial type='null'/>\
             <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
             <graphics type='vnc' autoport='yes' listen='127.0.0.1' websocket='-1'/>\
             <graphics type='rdp' listen='127.0.0.1' autoport='yes'/>\
             <graphics type='spice' autoport='yes' listen='127.0.0.1'/></devices></domain>"
        );
    }
}

#[test]
fn a_folder_to_read_is_a_folder_and_holds_no_sockets_or_devices() {
    let share = |source: &str| {
        let share = format!(
            "<filesystem type='mount'><source dir='{source}'/><target dir='x'/><readonly/></filesystem>"
        );
        refused(Promise::Open, &share)
    };
    for source in [
        "/dev/null",
        "/dev",
        "/",
        "/run",
        "/var",
        "/tmp",
        "/none",
        "relative",
    ] {
        assert!(share(source).is_some(), "{source}");
    }
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(share(folder.path().to_str().unwrap()), None);
    // The container's root is copied.
    let text = "<domain type='lxc'><devices><filesystem><source dir='/'/><target dir='/'/></filesystem></devices></domain>";
    assert!(admitted(Promise::Closed, text).is_ok());
}

#[test]
fn a_container_has_its_root_and_nothing_else_of_the_host() {
    let container = |device: &str| {
        let text = format!(
            "<domain type='lxc'><devices>\
             <filesystem type='mount'><source dir='/srv/root'/><target dir='/'/></filesystem>{device}</devices></domain>"
        );
        admitted(Promise::Open, &text)
    };
    for device in [
        "<filesystem type='mount'><source dir='/srv'/><target dir='/mnt'/></filesystem>",
        // Its root mounts it anew, writable.
        "<filesystem type='mount'><source dir='/srv'/><target dir='/mnt'/><readonly/></filesystem>",
        // libvirt binds it while the host is still mounted there.
        "<filesystem type='bind'><source dir='/.oldroot/run'/><target dir='/mnt'/></filesystem>",
        "<filesystem type='file'><source file='/i'/><target dir='/mnt'/><readonly/></filesystem>",
        "<disk type='block' device='cdrom'><source dev='/dev/sda'/><target dev='sda'/></disk>",
        "<disk type='file' device='disk'><source file='/home/u/x'/><target dev='sda'/></disk>",
        "<hostdev mode='capabilities' type='storage'><source><block>/dev/sda</block></source></hostdev>",
    ] {
        assert!(container(device).is_err(), "{device}");
    }
    let memory =
        "<filesystem type='ram'><source usage='1' units='MiB'/><target dir='/mnt'/></filesystem>";
    assert!(container(memory).is_ok());
    // In a whole machine there is no root to be copied.
    let text = "<domain type='qemu'><devices><filesystem><source dir='/srv'/><target dir='/'/></filesystem></devices></domain>";
    assert!(admitted(Promise::Open, text).is_err());
}

#[test]
fn the_screen_listens_where_the_run_file_says() {
    let mut domain = DomainXml::parse(&with_devices("<graphics type='spice'/>")).unwrap();
    listen(&mut domain, "192.0.2.1", Some(5910));
    let text = domain.to_string();
    assert!(
        text.contains("<graphics type='spice' autoport='no' listen='192.0.2.1' port='5910'/>"),
        "{text}"
    );
    let mut domain = DomainXml::parse(&with_devices("")).unwrap();
    listen(&mut domain, "127.0.0.1", None);
    let text = domain.to_string();
    assert!(
        text.contains("<graphics type='vnc' autoport='yes' listen='127.0.0.1'/>"),
        "{text}"
    );
}

#[test]
fn redirections_of_the_viewers_are_taken_out_where_they_lead_nowhere() {
    let text = with_devices(
        "<channel type='spicevmc'><target type='virtio' name='com.redhat.spice.0'/></channel>\
         <redirdev bus='usb' type='spicevmc'/><redirdev bus='usb' type='spicevmc'/>\
         <smartcard mode='passthrough' type='spicevmc'/>",
    );
    let closed = admitted(Promise::Closed, &text).unwrap();
    assert!(!closed.contains("spicevmc"), "{closed}");
    let open = admitted(Promise::Open, &text).unwrap();
    assert_eq!(open.matches("spicevmc").count(), 4, "{open}");
}

#[test]
fn a_second_list_of_devices_and_other_doubles_are_refused_at_their_lines() {
    let text = "<domain type='qemu'>\n<os/>\n<metadata/>\n<devices/>\n\
        <devices><interface type='user'/></devices>\n<os/>\n<metadata/>\n<features/><features/>\n</domain>";
    for promise in [Promise::Closed, Promise::Open] {
        let findings = admitted(promise, text).unwrap_err();
        let lines: Vec<&str> = findings
            .iter()
            .filter_map(|finding| finding.split(':').nth(1))
            .collect();
        assert_eq!(lines, ["5", "6", "7", "8"], "{findings:?}");
        assert!(findings[0].contains("a second <devices>"), "{findings:?}");
    }
}

#[test]
fn what_libvirt_would_read_under_another_namespace_is_refused() {
    for text in [
        "<domain type='qemu' xmlns:x='urn:x'><devices><interface type='network' x:type='user'/></devices></domain>",
        "<domain type='qemu' xmlns:x='urn:x'><devices><x:interface type='user'/></devices></domain>",
        "<domain type='qemu' xmlns:x='urn:x'><x:devices/><devices/></domain>",
        "<domain type='qemu'><devices xmlns='urn:x'/></domain>",
    ] {
        assert!(admitted(Promise::Open, text).is_err(), "{text}");
    }
    for text in [
        "<domain type='qemu' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'><devices/>\
         <q:commandline><q:arg value='-s'/></q:commandline></domain>",
        "<domain type='qemu'><devices/>\
         <commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'><arg value='-s'/></commandline></domain>",
    ] {
        for promise in [Promise::Closed, Promise::Open] {
            let findings = admitted(promise, text).unwrap_err();
            assert_eq!(findings.len(), 1, "{findings:?}");
        }
        assert!(admitted(Promise::Unread, text).is_ok(), "{text}");
    }
    let text = "<domain type='lxc' xmlns:lxc='http://libvirt.org/schemas/domain/lxc/1.0'><devices/>\
        <lxc:namespace><lxc:sharenet type='pid' value='1'/></lxc:namespace></domain>";
    assert!(admitted(Promise::Unread, text).is_err());
}

#[test]
fn an_emulator_that_is_none_of_the_hosts_is_taken_out() {
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join("qemu-system-x86_64");
    std::fs::write(&own, "").unwrap();
    for program in [
        "/bin/sh",
        "/usr/libexec/qemu-kvm-none",
        own.to_str().unwrap(),
    ] {
        let text = with_devices(&format!("<emulator>{program}</emulator>"));
        let left = admitted(Promise::Open, &text).unwrap();
        assert!(!left.contains("emulator"), "{left}");
    }
    let program = "/usr/bin/qemu-system-x86_64";
    let text = with_devices(&format!("<emulator>{program}</emulator>"));
    let left = admitted(Promise::Closed, &text).unwrap();
    assert_eq!(
        left.contains("emulator"),
        std::path::Path::new(program).exists(),
        "{left}"
    );
}

#[test]
fn empty_elements_mean_the_same_as_none() {
    let text = "<domain type='qemu'><os><type>hvm</type><kernel></kernel><initrd> </initrd><cmdline/></os>\
        <devices/></domain>";
    assert_eq!(
        admitted(Promise::Closed, text).unwrap(),
        "<domain type='qemu'><os><type>hvm</type></os><devices/></domain>"
    );
}

/// What virt-install, vagrant-libvirt, Nova and oVirt write, as their documents and issue trackers show it.
#[test]
fn ordinary_domains_are_admitted_in_every_mode() {
    for (name, text) in [
        ("virt-install", include_str!("tests/virt-install.xml")),
        ("vagrant-libvirt", include_str!("tests/vagrant-libvirt.xml")),
        ("nova", include_str!("tests/nova.xml")),
        ("ovirt", include_str!("tests/ovirt.xml")),
    ] {
        for (promise, is_connected) in [
            (Promise::Closed, true),
            (Promise::Open, true),
            (Promise::Open, false),
        ] {
            let mut domain = DomainXml::parse(text).unwrap();
            if is_connected {
                domain.keep_one_interface();
            }
            if let Err(error) = admit(&mut domain, promise, true, &path()) {
                panic!("{name}, {promise:?}: {}", error.chain());
            }
        }
    }
}

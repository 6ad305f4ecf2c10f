//! The edits of domain and network XML, over XML as users write it.

use std::path::PathBuf;
use std::time::Duration;

use super::*;

const USERS: &str = r#"<?xml version="1.0"?>
<!-- our lab's machine: keep in step with wiki/Lab -->
<domain type='kvm' xmlns:qemu="http://libvirt.org/schemas/domain/qemu/1.0"
        xmlns:lab='https://lab.example/1'>
  <name>template</name>
  <metadata>
    <lab:owner lab:room="4&amp;5"><![CDATA[<ada>]]></lab:owner>
  </metadata>
  <memory unit='MiB'>512</memory>
  <devices>
    <disk type='file' device='cdrom'>
      <source file='/isos/tools.iso'/>
      <target dev='hda' bus='ide'/>
    </disk>
    <disk type='volume'>
      <driver name='qemu' type="raw" cache='unsafe'/>
      <source pool='default' volume='old.img'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='network'>
      <mac address='52:54:00:00:00:01'/>
      <source network='default' portid='3'/>
    </interface>
  </devices>
  <qemu:commandline>
    <qemu:arg value='-no-hpet'/>
  </qemu:commandline>
</domain>
"#;

fn users() -> DomainXml {
    DomainXml::parse(USERS).expect("the users' XML is well-formed")
}

/// The domain without the white space between its elements.
fn compact(text: &str) -> String {
    let lines = text.lines().map(str::trim);
    let text = lines.collect::<Vec<_>>().join(" ").replace("> <", "><");
    DomainXml::parse(&text).unwrap().to_string()
}

fn source(backing: Vec<Backing>) -> DiskSource {
    DiskSource {
        file: PathBuf::from("/run/see/a & 'b'.qcow2"),
        format: "qcow2".to_owned(),
        backing,
        relabel: true,
    }
}

#[test]
fn the_image_goes_into_the_disk_and_never_into_the_cdrom() {
    let mut domain = users();
    domain.set_disk(&source(Vec::new())).unwrap();
    let expected = USERS.replace(
        "<driver name='qemu' type=\"raw\" cache='unsafe'/>
      <source pool='default' volume='old.img'/>
      <target dev='vda' bus='virtio'/>",
        "<driver name='qemu' type=\"qcow2\" cache='unsafe'/>
      <target dev='vda' bus='virtio'/>
      <source file='/run/see/a &amp; &apos;b&apos;.qcow2'/>
      <backingStore/>",
    );
    let expected = expected.replace("<disk type='volume'>", "<disk type='file'>");
    assert_eq!(compact(&domain.to_string()), compact(&expected));
    let disks = DomainXml::parse(&domain.to_string()).unwrap().disks();
    assert_eq!(disks[0].source, Some(PathBuf::from("/isos/tools.iso")));
    assert_eq!(
        disks[1].source,
        Some(PathBuf::from("/run/see/a & 'b'.qcow2"))
    );
    assert_eq!(disks[1].format.as_deref(), Some("qcow2"));
}

#[test]
fn a_backing_chain_is_written_out_to_its_end_and_keeps_its_owner() {
    let mut domain = users();
    let backing = vec![Backing {
        file: PathBuf::from("/images/base.qcow2"),
        format: "qcow2".to_owned(),
        relabel: false,
    }];
    domain.set_disk(&source(backing)).unwrap();
    let text = domain.to_string();
    assert!(
        text.contains(
            "<backingStore type='file'><format type='qcow2'/>\
             <source file='/images/base.qcow2'><seclabel model='dac' relabel='no'/></source>\
             <backingStore/></backingStore>"
        ),
        "{text}"
    );
}

#[test]
fn a_domain_with_only_a_cdrom_has_no_disk_for_the_image() {
    let mut domain = DomainXml::parse(
        "<domain><devices>\n<disk device='cdrom'/><disk device='floppy'/></devices></domain>",
    )
    .unwrap();
    let before = domain.clone();
    assert!(matches!(
        domain.set_disk(&source(Vec::new())),
        Err(XmlError::NoDisk { .. })
    ));
    assert_eq!(domain, before);
}

#[test]
fn identity_type_and_label_change_nothing_else() {
    let mut domain = users();
    domain.set_identity("new", "11111111-2222-3333-4444-555555555555");
    domain.set_hypervisor_type("qemu");
    domain.set_label("abc");
    let expected = USERS
        .replace("<name>template</name>", "<name>new</name>")
        .replace("<domain type='kvm'", "<domain type='qemu'")
        .replace(
            "  <name>new",
            "  <uuid>11111111-2222-3333-4444-555555555555</uuid>\n  <name>new",
        )
        .replace(
            "</lab:owner>",
            "</lab:owner>\n    <see:environment xmlns:see='urn:see:environment:1' id='abc'/>",
        );
    assert_eq!(compact(&domain.to_string()), compact(&expected));
    assert_eq!(domain.label().as_deref(), Some("abc"));
    domain.set_label("def");
    let expected = expected.replace("'abc'", "'def'");
    assert_eq!(compact(&domain.to_string()), compact(&expected));
}

#[test]
fn a_label_counts_only_in_our_namespace() {
    for (text, label) in [
        (
            "<domain><metadata><environment id='x'/></metadata></domain>",
            None,
        ),
        (
            "<domain><environment xmlns='urn:see:environment:1' id='x'/></domain>",
            None,
        ),
        (
            "<domain><metadata><see:environment xmlns:see='urn:other' id='x'/></metadata></domain>",
            None,
        ),
        (
            "<domain><metadata><environment xmlns='urn:see:environment:1' id='x'/></metadata></domain>",
            Some("x"),
        ),
        (
            "<domain xmlns:q='urn:see:environment:1'><metadata><q:environment id='x'/></metadata></domain>",
            Some("x"),
        ),
    ] {
        let document = Document::parse(text).unwrap();
        assert_eq!(label_in(document.root()).as_deref(), label, "{text}");
    }
}

#[test]
fn an_interface_is_connected_isolated_or_removed() {
    let mut domain = users();
    let port = NetworkPort {
        network: "ours".to_owned(),
        isolated: true,
        ..NetworkPort::default()
    };
    domain.connect_network(&port);
    let text = domain.to_string();
    assert!(
        compact(&text).contains("<source network='ours'/><port isolated='yes'/>"),
        "{text}"
    );
    assert!(
        text.contains("<mac address='52:54:00:00:00:01'/>"),
        "{text}"
    );
    assert_eq!(domain.remove_interfaces(), 1);
    assert!(domain.interfaces().is_empty());
    domain.connect_network(&NetworkPort {
        mac: Some("52:54:00:00:00:02".to_owned()),
        device: Some("see0".to_owned()),
        ..port
    });
    let interfaces = domain.interfaces();
    assert_eq!(interfaces.len(), 1);
    assert_eq!(interfaces[0].network.as_deref(), Some("ours"));
    assert_eq!(interfaces[0].mac.as_deref(), Some("52:54:00:00:00:02"));
    assert_eq!(interfaces[0].target.as_deref(), Some("see0"));
}

#[test]
fn the_connected_interface_is_the_only_one_and_keeps_what_is_the_cards_own() {
    let text = "<domain><devices>\
        <interface type='bridge'><source bridge='br0'/><model type='e1000'/></interface>\
        <interface type='network' managed='yes'><mac address='00:16:3e:01:02:03'/><source network='lab' portid='x'/>\
        <vlan><tag id='7'/></vlan><filterref filter='f'/><target dev='vnet7'/><model type='rtl8139'/></interface>\
        <interface type='user'/></devices></domain>";
    let mut domain = DomainXml::parse(text).unwrap();
    let port = NetworkPort {
        network: "ours".to_owned(),
        ..NetworkPort::default()
    };
    assert_eq!(domain.connect_network(&port), 2);
    assert_eq!(
        domain.to_string(),
        "<domain><devices><interface type='network'><mac address='00:16:3e:01:02:03'/><model type='rtl8139'/>\
         <source network='ours'/></interface></devices></domain>"
    );
    // Without one on a network, the first is taken.
    let text = "<domain><devices><interface type='bridge'><source bridge='br0'/></interface>\
        <interface type='user'/></devices></domain>";
    let mut domain = DomainXml::parse(text).unwrap();
    assert_eq!(domain.connect_network(&port), 1);
    assert_eq!(domain.interfaces()[0].network.as_deref(), Some("ours"));
}

#[test]
fn each_machine_has_hardware_addresses_of_its_own_by_the_same_maker() {
    let text = "<domain><devices><interface><mac address='00:16:3e:01:02:03'/></interface><interface/>\
        <interface><mac address='52:54:0:a:b:c'/></interface></devices></domain>";
    let mut domain = DomainXml::parse(text).unwrap();
    domain.set_hardware_addresses([0xaa, 0, 0xff]);
    let macs: Vec<_> = domain
        .interfaces()
        .into_iter()
        .map(|interface| interface.mac)
        .collect();
    let own = |mac: &str| Some(mac.to_owned());
    assert_eq!(
        macs,
        [own("00:16:3e:aa:00:ff"), None, own("52:54:00:aa:00:01")]
    );
}

#[test]
fn the_firmware_shows_the_uuid_that_the_domain_has() {
    let text = "<domain><sysinfo type='smbios'><system><entry name='manufacturer'>Dell</entry>\
        <entry name='uuid'>old</entry></system></sysinfo><devices/></domain>";
    let mut domain = DomainXml::parse(text).unwrap();
    domain.set_identity("new", "new");
    let text = domain.to_string();
    assert!(text.contains("<entry name='uuid'>new</entry>"), "{text}");
    assert!(
        text.contains("<entry name='manufacturer'>Dell</entry>"),
        "{text}"
    );
}

#[test]
fn a_terminal_of_the_users_becomes_the_console_file_and_libvirts_second_view_of_it_goes() {
    let text = "<domain><devices><serial type='pty' tty='/dev/pts/3'><source path='/dev/pts/3'/>\
        <log file='/home/u/log' append='off'/><target type='isa-serial' port='0'/></serial>\
        <console type='pty'><target type='serial' port='0'/></console>\
        <console type='pty'><target type='virtio' port='1'/></console></devices></domain>";
    let mut domain = DomainXml::parse(text).unwrap();
    assert!(domain.set_console_file("/run/c".as_ref(), true));
    assert_eq!(
        domain.to_string(),
        "<domain><devices><serial type='file'><target type='isa-serial' port='0'/><source path='/run/c'/></serial>\
         <console type='pty'><target type='virtio' port='1'/></console></devices></domain>"
    );
}

#[test]
fn the_agent_has_one_channel_and_the_console_one_file() {
    let mut domain = users();
    for socket in ["/run/a.sock", "/run/b.sock"] {
        domain.set_agent_channel(Some(socket.as_ref()));
        assert!(domain.to_string().contains(socket));
    }
    assert_eq!(domain.to_string().matches(AGENT_CHANNEL).count(), 1);
    assert!(domain.set_console_file("/run/console.log".as_ref(), true));
    assert!(domain.to_string().contains("/run/console.log"));
    let mut tcp =
        DomainXml::parse("<domain><devices><serial type='tcp'/></devices></domain>").unwrap();
    assert!(!tcp.set_console_file("/run/console.log".as_ref(), true));
}

#[test]
fn a_file_that_is_no_domain_says_what_it_is() {
    assert!(matches!(
        DomainXml::parse("<network/>"),
        Err(XmlError::Root { found, expected: "domain", .. }) if found == "network"
    ));
    assert!(matches!(
        DomainXml::parse("<domain><name>a</name></domain>"),
        Err(XmlError::Missing {
            missing: "devices",
            ..
        })
    ));
    assert!(matches!(
        DomainXml::parse("name: a"),
        Err(XmlError::Syntax { .. })
    ));
}

#[test]
fn a_network_is_built_with_bridge_and_addresses() {
    let mut network = NetworkXml::nat();
    network.set_identity("n", "11111111-2222-3333-4444-555555555555");
    network.set_bridge("virbr-12345678");
    let addresses = DhcpNetwork {
        gateway: "10.0.0.1".parse().unwrap(),
        prefix: 24,
        lent: Lent::Range("10.0.0.2".parse().unwrap(), "10.0.0.254".parse().unwrap()),
    };
    let addresses = [addresses];
    network.set_addresses(&addresses).unwrap();
    network.set_label("abc");
    let again = NetworkXml::parse(&network.to_string()).unwrap();
    assert_eq!(again.subnets(), [("10.0.0.1".parse().unwrap(), 24)]);
    assert_eq!(again.bridge().as_deref(), Some("virbr-12345678"));
    assert_eq!(again.label().as_deref(), Some("abc"));
    assert_eq!(again.root().attribute_of("forward", "mode"), Some("nat"));
    assert!(matches!(
        network.set_addresses(&addresses),
        Err(XmlError::Conflict { .. })
    ));
}

#[test]
fn subnets_are_read_by_prefix_netmask_and_class() {
    let network = NetworkXml::parse(
        "<network><ip address='10.1.2.3' netmask='255.255.0.0'/><ip address='192.168.1.1'/>\
         <ip family='ipv6' address='fd00::1' prefix='64'/><route address='172.16.0.0' prefix='12'/></network>",
    )
    .unwrap();
    let subnets: Vec<String> = network
        .subnets()
        .iter()
        .map(|(address, prefix)| format!("{address}/{prefix}"))
        .collect();
    assert_eq!(
        subnets,
        [
            "10.1.2.3/16",
            "192.168.1.1/24",
            "fd00::1/64",
            "172.16.0.0/12"
        ]
    );
}

#[test]
fn a_network_lends_each_of_its_guests_one_address_and_names_nothing() {
    let mut network = NetworkXml::isolated();
    let hosts = vec![("52:54:00:00:00:01".to_owned(), "10.0.0.2".parse().unwrap())];
    network.set_no_dns();
    network
        .set_addresses(&[DhcpNetwork {
            gateway: "10.0.0.1".parse().unwrap(),
            prefix: 30,
            lent: Lent::Hosts(hosts.clone(), Duration::from_secs(600)),
        }])
        .unwrap();
    let text = network.to_string();
    assert!(text.contains("<dns enable='no'/>"), "{text}");
    assert!(!text.contains("<range"), "{text}");
    let again = NetworkXml::parse(&text).unwrap();
    assert_eq!(again.dhcp_hosts(), hosts);
}

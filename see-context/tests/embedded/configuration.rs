//! Mistakes are found before anything is made, and told with their place.

use see_core::ErrorKind;

use crate::support::Lab;

const DOMAIN: &str =
    "<domain type='qemu'>\n  <devices>\n    <disk device='disk'/>\n  </devices>\n</domain>\n";

/// Each mistake: the context section, the content of `domain.xml`, and a part of the message.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        r#"{"disk": {"image": "missing.qcow2"}}"#,
        DOMAIN,
        "run.json:1:20: disk.image: ",
    ),
    (r#"{}"#, DOMAIN, "`disk`"),
    (
        r#"{"disk": {"image": "base.qcow2"}, "memori": 1}"#,
        DOMAIN,
        "`memory`",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "memory": "1MiB"}"#,
        DOMAIN,
        "16MiB to 16TiB",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "cpus": 0}"#,
        DOMAIN,
        "1 to 255",
    ),
    (
        r#"{"disk": {"image": "base.qcow2", "clone": {"storage_pool_path": "none"}}}"#,
        DOMAIN,
        "storage_pool_path: expected",
    ),
    (
        r#"{"backend": "qemu", "disk": {"image": "base.qcow2"}, "hypervisor": "lxc:///"}"#,
        DOMAIN,
        "cannot use the hypervisor `lxc:///`",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "hypervisor": "qemu:///nowhere"}"#,
        DOMAIN,
        "no such hypervisor",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "network": {"mode": "nat"}}"#,
        DOMAIN,
        "knows the mode `none` only",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "domain": {"configuration": "nowhere.xml"}}"#,
        DOMAIN,
        "expected a libvirt domain XML",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "domain": {"configuration": "domain.xml"}}"#,
        "not <xml",
        "domain.xml:1:1: domain.configuration: not XML",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "domain": {"configuration": "domain.xml"}}"#,
        "<domain type='qemu'>\n</domain>",
        "domain.xml:1:1: domain.configuration: <domain> has no <devices>",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "domain": {"configuration": "domain.xml"}}"#,
        "<domain type='qemu'>\n <devices><disk device='cdrom'/></devices></domain>",
        "domain.xml:2:2: domain.configuration: the domain has no disk with device='disk'",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "domain": {"configuration": "domain.xml"}}"#,
        "<domain type='qemu'><devices><disk/>\n<interface type='network'/></devices></domain>",
        "domain.xml:2:1: domain.configuration: the domain has an interface",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "domain": {"configuration": "domain.xml"}}"#,
        "<domain type='qemu'><devices><disk/>\n<disk type='block'><source dev='/dev/null'/></disk></devices></domain>",
        "domain.xml:2:1: domain.configuration: <disk type='block'> is refused: the guest would write to what is no file",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "domain": {"configuration": "domain.xml"}}"#,
        "<domain type='qemu'><devices><disk/>\n<disk><source file='/no/such'/></disk></devices></domain>",
        "domain.xml:2:1: domain.configuration: /no/such: the disk image cannot be used",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "domain": {"configuration": "domain.xml"}}"#,
        "<domain type='qemu'><os>\n<loader type='pflash' readonly='no'>/f</loader></os><devices><disk/></devices></domain>",
        "domain.xml:2:1: domain.configuration: the guest would write to the firmware's own file",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "domain": {"configuration": "domain.xml"}}"#,
        "<domain type='qemu'><os><nvram>/dev/null</nvram></os><devices><disk/></devices></domain>",
        "the firmware's variables have to be a regular file",
    ),
    (
        r#"{"backend": "qemu", "disk": {"image": "base.qcow2"}, "domain": {"configuration": "domain.xml"}}"#,
        "<domain type='lxc'><devices><disk/></devices></domain>",
        "the domain is of type `lxc`",
    ),
    (
        r#"{"disk": {"image": "base.qcow2"}, "domain": {"configuration": "domain.xml"}, "memory": "1GiB"}"#,
        DOMAIN,
        "`memory` shapes the built-in domain",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_is_told_with_its_place_and_makes_nothing() {
    let lab = Lab::new();
    for (json, xml, part) in MISTAKES {
        std::fs::write(lab.folder.path().join("domain.xml"), xml).unwrap();
        let error = lab.prepare(json).await.expect_err(json);
        let text = error.to_string();
        // An ordinary user may find a daemon that does not talk to it.
        if !(part.contains("hypervisor") && error.kind() == ErrorKind::PermissionDenied) {
            assert_eq!(error.kind(), ErrorKind::Configuration, "{json}: {text}");
        }
        assert!(text.contains(part), "{json}: {text}");
        assert!(error.place().is_some(), "{json}: {text}");
    }
    let mut left: Vec<String> = std::fs::read_dir(lab.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["base.qcow2", "domain.xml", "state"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_without_a_backend_is_recognised_by_uri_or_domain_type() {
    let lab = Lab::new();
    std::fs::write(lab.folder.path().join("domain.xml"), DOMAIN).unwrap();
    for json in [
        r#"{"disk": {"image": "base.qcow2"}}"#,
        r#"{"disk": {"image": "base.qcow2"}, "hypervisor": "embedded"}"#,
        r#"{"disk": {"image": "base.qcow2"}, "domain": {"configuration": "domain.xml"}}"#,
        r#"{"disk": {"image": "base.qcow2"}, "name": "see.resources.qemu.QEMUResources"}"#,
    ] {
        let prepared = lab.prepare(json).await.expect(json);
        assert_eq!(prepared.backend.name(), "qemu");
    }
    let json = r#"{"disk": {"image": "base.qcow2"}, "domain": {"configuration": "domain.xml"}}"#;
    for (kind, told) in [
        ("xen", "the hypervisor of this domain is not named"),
        ("nobodys", "no backend"),
    ] {
        let foreign = format!("<domain type='{kind}'><devices/></domain>");
        std::fs::write(lab.folder.path().join("domain.xml"), foreign).unwrap();
        let error = lab.prepare(json).await.unwrap_err();
        assert!(error.to_string().contains(told), "{error}");
    }
}

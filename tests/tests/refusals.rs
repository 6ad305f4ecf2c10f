//! A domain that libvirt itself refuses: one clear error, nothing left, and whoever runs beside it finishes.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use see_tests::{Home, Neighbour, Outcome, assert_nothing_remains};
use serde_json::{Value, json};

/// The longest that a refusal takes on a busy host.
const REFUSAL: Duration = Duration::from_secs(60);
/// The documented exit code for a bad configuration.
const BAD_CONFIGURATION: i32 = 2;

/// The documented exit code for missing rights.
const MISSING_RIGHTS: i32 = 5;

/// A domain with this machine and this number of processors.
fn domain(machine: &str, processors: u32) -> String {
    format!(
        "<domain type='qemu'><memory>65536</memory><vcpu>{processors}</vcpu>\
         <os><type machine='{machine}'>hvm</type></os>\
         <devices><disk device='disk'><target dev='vda'/></disk></devices></domain>"
    )
}

/// Runs a machine with this domain's XML.
fn run(home: &Home, mut context: Value, domain: &str) -> Outcome {
    context["domain"] = json!({ "configuration": home.write("domain.xml", domain) });
    let file = home.run_file(context);
    let arguments = [
        "run".as_ref(),
        "--output".as_ref(),
        "json".as_ref(),
        file.as_os_str(),
    ];
    home.run(arguments, REFUSAL)
}

/// A context of a machine on the system's daemon.
fn on_the_daemon(home: &Home) -> Value {
    json!({ "hypervisor": "qemu:///system", "disk": { "image": home.guest("guest.qcow2") } })
}

/// Has a domain refused, beside a neighbour, for what libvirt alone knows.
fn refuse(home: &Home, context: &Value) {
    let neighbour = Neighbour::begin(Duration::from_secs(3));
    refuse_one(home, context.clone(), &domain("pc", 5000), "Maximum CPUs");
    neighbour.assert_finishes();
}

fn refuse_one(home: &Home, context: Value, domain: &str, why: &str) {
    let outcome = run(home, context, domain);
    assert_eq!(outcome.code, Some(BAD_CONFIGURATION), "{outcome:#?}");
    let result = &outcome.result()["result"];
    let failure = result["failure"].as_str().unwrap_or_default();
    for part in [
        "run.json:",
        "context.domain.configuration",
        "define the domain",
        why,
    ] {
        assert!(failure.contains(part), "{part}: {result:#}");
    }
    assert_eq!(result["left_behind"], json!([]), "{result:#}");
    assert_nothing_remains(result["identifier"].as_str().expect("the run has one"));
    assert_eq!(home.listed(), Vec::<Value>::new());
}

#[test]
fn a_domain_that_embedded_libvirt_refuses_is_told_and_its_neighbour_finishes() {
    let home = Home::new();
    refuse(&home, &Home::embedded());
    // libvirt tells it by another error number; nobody can be asked before its driver is opened.
    refuse_one(
        &home,
        Home::embedded(),
        &domain("no-such", 1),
        "No PCI buses",
    );
}

#[test]
fn a_machine_processor_or_firmware_that_the_daemon_does_not_have_is_told_before_anything_is_made() {
    let home = Home::passable();
    let machine = |inside: &str| {
        format!(
            "<domain type='qemu'><memory>65536</memory>{inside}\n<devices><disk device='disk'>\
             <target dev='vda'/></disk></devices></domain>"
        )
    };
    for (inside, place, why) in [
        (
            "\n<os>\n<type arch='x86_64' machine='no-such'>hvm</type></os>",
            "domain.xml:3:1",
            "runs no such machine",
        ),
        (
            "\n<os><type arch='no-such'>hvm</type></os>",
            "domain.xml:2:5",
            "runs no such machine",
        ),
        (
            "<os><type>hvm</type></os>\n<cpu>\n<model>Haswel</model></cpu>",
            "domain.xml:3:1",
            "knows no processor `Haswel`",
        ),
    ] {
        let outcome = run(&home, on_the_daemon(&home), &machine(inside));
        assert_eq!(outcome.code, Some(BAD_CONFIGURATION), "{outcome:#?}");
        let told = format!("{}{}", outcome.stdout, outcome.stderr);
        for part in [place, "context.domain.configuration", why] {
            assert!(told.contains(part), "{part}: {outcome:#?}");
        }
        assert_eq!(home.listed(), Vec::<Value>::new());
    }
}

#[test]
fn a_domain_that_the_daemon_refuses_is_told_and_its_neighbour_finishes() {
    let home = Home::passable();
    refuse(&home, &on_the_daemon(&home));
}

#[test]
fn an_emulator_that_may_not_open_its_image_is_a_want_of_rights() {
    // The emulator runs on another account, which is not let into the folder of what it is to read.
    let home = Home::passable();
    let closed = home.path("closed");
    std::fs::create_dir(&closed).expect("the home is writable");
    let medium = closed.join("tools.iso");
    std::fs::write(&medium, vec![0; 1 << 20]).expect("there is room");
    let owner_only = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&closed, owner_only).expect("it is ours");
    let domain = format!(
        "<domain type='qemu'><memory unit='MiB'>64</memory><os><type machine='pc'>hvm</type></os><devices>\
         <disk device='disk'><target dev='vda'/></disk>\
         <disk type='file' device='cdrom'><source file='{}'/><target dev='hda' bus='ide'/></disk></devices></domain>",
        medium.display()
    );
    let outcome = run(&home, on_the_daemon(&home), &domain);
    assert_eq!(outcome.code, Some(MISSING_RIGHTS), "{outcome:#?}");
    let result = &outcome.result()["result"];
    let failure = result["failure"].as_str().unwrap_or_default();
    for part in ["poweron", "Permission denied"] {
        assert!(failure.contains(part), "{part}: {result:#}");
    }
    assert_eq!(result["verdict"], "missing_rights", "{result:#}");
    assert_eq!(result["left_behind"], json!([]), "{result:#}");
}

//! A domain that libvirt itself refuses: one clear error, nothing left, and whoever runs beside it finishes.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use see_tests::{Home, Neighbour, assert_nothing_remains};
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

/// Has domains refused, beside a neighbour, for what libvirt alone knows: it tells each by another error number.
fn refuse(home: &Home, context: &Value) {
    let neighbour = Neighbour::begin(Duration::from_secs(3));
    refuse_one(home, context.clone(), &domain("no-such", 1), "No PCI buses");
    refuse_one(home, context.clone(), &domain("pc", 5000), "Maximum CPUs");
    neighbour.assert_finishes();
}

fn refuse_one(home: &Home, mut context: Value, domain: &str, why: &str) {
    let domain = home.write("domain.xml", domain);
    context["domain"] = json!({ "configuration": domain });
    let file = home.run_file(context);
    let arguments = [
        "run".as_ref(),
        "--output".as_ref(),
        "json".as_ref(),
        file.as_os_str(),
    ];
    let outcome = home.run(arguments, REFUSAL);
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
    refuse(&Home::new(), &Home::embedded());
}

#[test]
fn a_domain_that_the_daemon_refuses_is_told_and_its_neighbour_finishes() {
    let home = Home::passable();
    let mut context = json!({ "disk": { "image": home.guest("guest.qcow2") } });
    context["hypervisor"] = json!("qemu:///system");
    refuse(&home, &context);
}

#[test]
fn an_emulator_that_may_not_open_its_image_is_a_want_of_rights() {
    // The emulator runs on another account, which is not let into the image's folder.
    let home = Home::passable();
    let closed = home.path("closed");
    std::fs::create_dir(&closed).expect("the home is writable");
    let image = closed.join("guest.qcow2");
    std::fs::copy(home.guest("guest.qcow2"), &image).expect("there is room");
    let owner_only = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&closed, owner_only).expect("it is ours");
    let mut context = json!({ "disk": { "image": image } });
    context["hypervisor"] = json!("qemu:///system");
    let file = home.run_file(context);
    let arguments = [
        "run".as_ref(),
        "--output".as_ref(),
        "json".as_ref(),
        file.as_os_str(),
    ];
    let outcome = home.run(arguments, REFUSAL);
    assert_eq!(outcome.code, Some(MISSING_RIGHTS), "{outcome:#?}");
    let result = &outcome.result()["result"];
    let failure = result["failure"].as_str().unwrap_or_default();
    for part in ["poweron", "Permission denied", "must be let through"] {
        assert!(failure.contains(part), "{part}: {result:#}");
    }
    assert_eq!(result["verdict"], "missing_rights", "{result:#}");
    assert_eq!(result["left_behind"], json!([]), "{result:#}");
}

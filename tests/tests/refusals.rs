//! A domain that libvirt itself refuses: one clear error, nothing left, and whoever runs beside it finishes.

use std::time::Duration;

use see_tests::{Home, Neighbour, assert_nothing_remains};
use serde_json::{Value, json};

/// The longest that a refusal takes on a busy host.
const REFUSAL: Duration = Duration::from_secs(60);
/// The documented exit code for a bad configuration.
const BAD_CONFIGURATION: i32 = 2;

/// A domain of which only libvirt knows that its machine has no buses.
const DOMAIN: &str = "<domain type='qemu'><memory>65536</memory>\
    <os><type machine='no-such'>hvm</type></os>\
    <devices><disk device='disk'><target dev='vda'/></disk></devices></domain>";

/// Has it refused beside a neighbour.
fn refuse(home: &Home, context: Value) {
    let neighbour = Neighbour::begin(Duration::from_secs(3));
    let domain = home.write("domain.xml", DOMAIN);
    let mut context = context;
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
        "No PCI buses",
    ] {
        assert!(failure.contains(part), "{part}: {result:#}");
    }
    assert_eq!(result["left_behind"], json!([]), "{result:#}");
    assert_nothing_remains(result["identifier"].as_str().expect("the run has one"));
    assert_eq!(home.listed(), Vec::<Value>::new());
    neighbour.assert_finishes();
}

#[test]
fn a_domain_that_embedded_libvirt_refuses_is_told_and_its_neighbour_finishes() {
    refuse(&Home::new(), Home::embedded());
}

#[test]
fn a_domain_that_the_daemon_refuses_is_told_and_its_neighbour_finishes() {
    let home = Home::passable();
    let mut context = json!({ "disk": { "image": home.guest("guest.qcow2") } });
    context["hypervisor"] = json!("qemu:///system");
    refuse(&home, context);
}

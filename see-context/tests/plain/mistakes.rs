//! Sections that VirtualBox, or a driver that is not known, cannot serve.

use see_core::config::Configuration;
use see_core::{Error, ErrorKind, Host, Registries};
use serde_json::{Value, json};

use crate::candidate::Place;

async fn refused(place: &Place, section: Value) -> Error {
    let mut registries = Registries::new();
    see_context::register(&mut registries).unwrap();
    let ledger = see_core::ledger::Ledger::open_blocking(place.path("state")).unwrap();
    let host = Host::new(registries, ledger).unwrap();
    let text = section.to_string();
    let context = Configuration::from_str(place.path("run.json"), &text).unwrap();
    host.prepare(&context, &Default::default())
        .await
        .expect_err(&text)
}

#[tokio::test]
async fn what_virtualbox_cannot_serve_is_refused_before_anything_is_made() {
    let place = Place::new();
    std::fs::write(
        place.path("foreign.xml"),
        "<domain type='kvm'><devices/></domain>",
    )
    .unwrap();
    std::fs::write(
        place.path("diskless.xml"),
        "<domain type='vbox'><devices/></domain>",
    )
    .unwrap();
    std::fs::write(
        place.path("second.xml"),
        "<domain type='vbox'><devices><disk/><disk><source file='/users.vdi'/></disk></devices></domain>",
    )
    .unwrap();
    let second = json!({ "configuration": place.path("second.xml") });
    let foreign = json!({ "configuration": place.path("foreign.xml") });
    let diskless = json!({ "configuration": place.path("diskless.xml") });
    let cases = [
        (
            "hypervisor",
            json!("qemu:///system"),
            "cannot use the hypervisor",
        ),
        (
            "hypervisor",
            json!("vbox+ssh://far/session"),
            "on another host",
        ),
        ("domain", foreign, "the domain is of type `kvm`"),
        ("domain", diskless, "disk"),
        ("domain", second, "the guest would write to /users.vdi"),
        (
            "network",
            json!({ "mode": "nat" }),
            "no network can be made",
        ),
        (
            "agent",
            json!({ "transport": "serial" }),
            "no way to a serial port",
        ),
        (
            "limits",
            json!({ "pids": 9 }),
            "the limit `pids` cannot be kept",
        ),
        (
            "limits",
            json!({ "memory": "1GiB" }),
            "the limit `memory` cannot be kept",
        ),
    ];
    for (key, value, expected) in cases {
        let mut section = place.context();
        section[key] = value;
        let error = refused(&place, section).await;
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.chain().contains(expected), "{key}: {}", error.chain());
        assert!(error.place().is_some(), "{key}: {error}");
    }
}

#[tokio::test]
async fn what_a_driver_that_is_not_known_cannot_serve_is_said_and_the_rest_is_libvirts_to_answer() {
    let place = Place::new();
    let mut unknown = place.context();
    unknown["backend"] = json!("libvirt");
    unknown["hypervisor"] = json!("hyperv:///session");
    for (key, value, expected) in [
        (
            "network",
            json!({ "mode": "nat" }),
            "no network can be made",
        ),
        (
            "agent",
            json!({ "transport": "serial" }),
            "no way to a serial port",
        ),
        (
            "limits",
            json!({ "pids": 9 }),
            "the limit `pids` cannot be kept",
        ),
        // Nothing is left to refuse: libvirt is asked for it.
        (
            "agent",
            json!({ "transport": "none" }),
            "cannot open hyperv:///session",
        ),
    ] {
        let mut section = unknown.clone();
        section[key] = value;
        let error = refused(&place, section).await;
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.chain().contains(expected), "{key}: {}", error.chain());
        assert!(error.place().is_some(), "{key}: {error}");
    }
}

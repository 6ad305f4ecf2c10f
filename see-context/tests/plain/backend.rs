//! What VirtualBox's machines are made of.

use std::process::Command;

use see_core::config::Configuration;
use see_core::ledger::Ledger;
use see_core::{
    AllocateOptions, Changes, Environment, Host, Identifier, Registries, SandboxChange,
    SandboxState, Stop,
};
use see_libvirt::ShutdownMode;
use see_libvirt::xml::DomainXml;
use serde_json::json;

use crate::candidate::{DOMAIN, HYPERVISOR, LIMIT, Place, behind_the_back, remains};

async fn told(changes: &mut Changes) -> SandboxChange {
    let change = tokio::time::timeout(LIMIT, changes.recv()).await;
    change
        .expect("a change in time")
        .expect("the watch goes on")
}

async fn allocate(host: &Host, place: &Place, document: &serde_json::Value) -> Environment {
    let context = Configuration::from_str(place.path("run.json"), &document.to_string()).unwrap();
    let prepared = host.prepare(&context, &Default::default()).await.unwrap();
    assert_eq!(prepared.backend.name(), "vbox");
    let options = AllocateOptions {
        identifier: Some(Identifier::random()),
        ..Default::default()
    };
    host.allocate(prepared, options, Stop::new()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_of_python_sees_makes_a_machine_with_a_disk_of_virtualboxs_own() {
    let place = Place::new();
    let before = std::fs::read(place.path("base.qcow2")).unwrap();
    let mut registries = Registries::new();
    see_context::register(&mut registries).unwrap();
    let ledger = Ledger::open_blocking(place.path("state")).unwrap();
    let host = Host::new(registries, ledger).unwrap();
    let document = json!({
        "name": "see.resources.vbox.VBoxResources",
        "hypervisor": HYPERVISOR,
        "domain": { "configuration": "domain.xml" },
        "disk": { "image": "base.qcow2" },
    });
    let mut environment = allocate(&host, &place, &document).await;
    let machine = environment.machine().clone();
    let identifier = machine.identifier();
    let domain = behind_the_back(identifier).await.unwrap();
    assert_eq!(domain.uuid().to_string(), identifier.to_string());

    let xml = DomainXml::parse(&domain.xml().await.unwrap()).unwrap();
    let disks = xml.disks();
    let cdrom = disks.iter().find(|disk| disk.device == "cdrom").unwrap();
    assert_eq!(cdrom.source, None, "the cdrom got an image");
    let hard = disks.iter().find(|disk| disk.device == "disk").unwrap();
    let disk = &machine.disks()[0];
    assert_eq!(hard.source.as_ref(), Some(disk));
    let shown = Command::new("qemu-img")
        .args(["info", "--output=json"])
        .arg(disk)
        .output()
        .unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["format"], json!("vdi"), "{shown:#}");
    assert_eq!(shown.get("backing-filename"), None, "{shown:#}");
    assert_eq!(shown["virtual-size"], json!(8 << 20), "{shown:#}");

    // Nothing tells what the guest does, and yet it becomes known.
    let mut changes = machine.watch();
    let mut turn = environment.turn().await.unwrap();
    let running = SandboxChange::State(SandboxState::Running);
    let off = SandboxChange::State(SandboxState::Shutoff);
    turn.poweron().await.unwrap();
    assert_eq!(told(&mut changes).await, running);
    domain.shutdown(ShutdownMode::Default).await.unwrap();
    assert_eq!(told(&mut changes).await, off);
    // Also what it did between two looks, as it stands as it stood before.
    turn.poweron().await.unwrap();
    domain.shutdown(ShutdownMode::Default).await.unwrap();
    let mut last = told(&mut changes).await;
    if last == running {
        last = told(&mut changes).await;
    }
    assert_eq!(last, off);
    drop(turn);

    assert!(environment.deallocate().await.errors.is_empty());
    assert_eq!(remains(identifier).await, Vec::<String>::new());
    assert_eq!(std::fs::read(place.path("base.qcow2")).unwrap(), before);
    assert_eq!(
        std::fs::read_to_string(place.path("domain.xml")).unwrap(),
        DOMAIN
    );
    host.finish(LIMIT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_of_virtualboxs_is_recognised_by_its_domain() {
    let place = Place::new();
    let mut registries = Registries::new();
    see_context::register(&mut registries).unwrap();
    let ledger = Ledger::open_blocking(place.path("state")).unwrap();
    let host = Host::new(registries, ledger).unwrap();
    for document in [
        json!({ "domain": { "configuration": "domain.xml" }, "disk": { "image": "gone.qcow2" } }),
        json!({ "hypervisor": HYPERVISOR, "disk": { "image": "base.qcow2" } }),
    ] {
        let text = document.to_string();
        let context = Configuration::from_str(place.path("run.json"), &text).unwrap();
        let error = host
            .prepare(&context, &Default::default())
            .await
            .expect_err("it is not whole");
        // Whoever recognises it tells what is wrong with it.
        let text = error.chain();
        assert!(!text.contains("no backend"), "{text}");
        assert!(
            text.contains("gone.qcow2") || text.contains("domain"),
            "{text}"
        );
    }
}

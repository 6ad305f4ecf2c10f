//! What a killed process leaves is found and removed by another one.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::SystemTime;

use see_core::ledger::{CollectOptions, Ledger};
use see_core::{Identifier, Registries, SandboxChange, SandboxState};

use crate::support::{LIMIT, Lab, emulator_runs, until};

const VARIABLE: &str = "SEE_TEST_OWNER";
const NAME: &str = "collection::what_a_killed_owner_leaves_is_collected_by_another_process";
const PLAIN: &str =
    r#"{"acceleration": "tcg", "memory": "64MiB", "disk": {"image": "base.qcow2"}}"#;

/// The part of the owner: makes a sandbox, says so, and waits for its death.
async fn own() {
    let lab = Lab::new();
    let identifier = Identifier::random();
    let mut environment = lab.allocate(PLAIN, identifier).await.unwrap();
    environment.turn().await.unwrap().poweron().await.unwrap();
    let state = lab.folder.path().join("state");
    let said = PathBuf::from(std::env::var_os(VARIABLE).unwrap());
    let text = format!("{identifier}\n{}\n", state.display());
    std::fs::write(said.with_extension("new"), text).unwrap();
    std::fs::rename(said.with_extension("new"), said).unwrap();
    tokio::time::sleep(LIMIT * 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_owner_leaves_is_collected_by_another_process() {
    if std::env::var_os(VARIABLE).is_some() {
        return own().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let said = folder.path().join("said");
    let mut owner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(VARIABLE, &said)
        .env("TMPDIR", folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until("the owner's word", || async { said.exists() }).await;
    let text = std::fs::read_to_string(&said).unwrap();
    let (identifier, state) = text.trim_end().split_once('\n').unwrap();
    let identifier: Identifier = identifier.parse().unwrap();
    let ledger = Ledger::open_blocking(state).unwrap();
    let mut registries = Registries::new();
    see_context::register(&mut registries).unwrap();
    let options = CollectOptions::default();

    let report = ledger
        .collect(&registries.collectors, options.clone())
        .await
        .unwrap();
    assert!(
        emulator_runs(identifier),
        "a living owner's sandbox was collected: {report:?}"
    );

    owner.kill().unwrap();
    owner.wait().unwrap();
    assert!(emulator_runs(identifier), "the emulator outlives its owner");
    let report = ledger
        .collect(&registries.collectors, options.clone())
        .await
        .unwrap();
    assert!(report.is_clean(), "{report:#?}");
    until("the emulator's end", || async {
        !emulator_runs(identifier)
    })
    .await;
    for place in [folder.path(), "/tmp".as_ref(), "/var/tmp".as_ref()] {
        for entry in std::fs::read_dir(place).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let short = identifier.to_string().replace('-', "")[..16].to_owned();
            assert!(!name.contains(&identifier.to_string()), "{name} is left");
            assert_ne!(name, format!("see-{short}"), "the root is left");
        }
    }
    let records = ledger
        .collect(&registries.collectors, options.clone())
        .await
        .unwrap();
    assert!(records.records.is_empty(), "{records:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_kept_and_collects_itself_is_ended_by_the_libvirt_that_runs_it() {
    let lab = Lab::new();
    let identifier = Identifier::random();
    let mut environment = lab.allocate(PLAIN, identifier).await.unwrap();
    environment.turn().await.unwrap().poweron().await.unwrap();
    let machine = environment.machine().clone();
    let mut news = machine.watch();
    let kept = environment.keep(SystemTime::now() + LIMIT).await;
    assert!(kept.errors.is_empty(), "{kept:?}");
    assert!(emulator_runs(identifier), "it was not kept");

    let mut registries = Registries::new();
    see_context::register(&mut registries).unwrap();
    let options = CollectOptions {
        only: Some(identifier),
        include_kept: true,
        ..CollectOptions::default()
    };
    let ledger = lab.host.ledger();
    let report = ledger
        .collect(&registries.collectors, options)
        .await
        .unwrap();
    assert!(report.is_clean(), "{report:#?}");
    lab.assert_nothing_left(identifier);
    // Behind libvirt's back it would have crashed, and libvirt would note that in a root that is gone.
    let mut told = Vec::new();
    while !told.contains(&SandboxChange::State(SandboxState::Shutoff)) {
        let change = tokio::time::timeout(LIMIT, news.recv()).await;
        let change = change.unwrap_or_else(|_| panic!("its end is not told: {told:?}"));
        told.push(change.unwrap_or_else(|| panic!("the news ended: {told:?}")));
        assert!(!told.contains(&SandboxChange::State(SandboxState::Crashed)));
    }
}

//! The fake backend passes the suite.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use see_core::testing::conformance::{self, Candidate, GuestAct, Verdict};
use see_core::testing::{FakeBackend, FakeControl};
use see_core::{Identifier, Machine, Picture, Registries, Result, SandboxState, Usage};
use serde_json::{Value, json};

/// The fake, in a folder of its own.
#[derive(Debug)]
struct Fake(tempfile::TempDir);

#[async_trait]
impl Candidate for Fake {
    fn registries(&self) -> Result<Registries> {
        let mut registries = Registries::new();
        registries.backends.add::<FakeBackend>()?;
        Ok(registries)
    }

    fn context(&self) -> Value {
        json!({ "backend": "fake", "folder": self.0.path() })
    }

    async fn remains(&self, identifier: Identifier) -> Vec<String> {
        remains(self.0.path().to_owned(), identifier)
    }

    fn malformed(&self) -> Vec<Value> {
        vec![
            json!({ "backend": "fake" }),
            json!({ "backend": "fake", "folder": self.0.path(), "faults": { "disk": "explode" } }),
        ]
    }

    fn obeys_shutdown(&self) -> bool {
        true
    }

    async fn settle(&self, machine: &Machine) -> Result<()> {
        furnish(machine);
        Ok(())
    }

    async fn provoke(&self, machine: &Machine, act: GuestAct) -> Option<Result<()>> {
        let control = FakeControl::of(machine)?;
        match act {
            GuestAct::Poweroff => control.guest_becomes(SandboxState::Shutoff),
            GuestAct::Crash => control.guest_becomes(SandboxState::Crashed),
            GuestAct::Reboot => control.guest_reboots(),
        }
        Some(Ok(()))
    }

    async fn kill(&self, machine: &Machine) -> Option<Result<()>> {
        FakeControl::of(machine)?.guest_becomes(SandboxState::Shutoff);
        Some(Ok(()))
    }
}

/// What carries the identifier in the fake's folder.
pub(crate) fn remains(folder: PathBuf, identifier: Identifier) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.contains(&identifier.to_string()))
        .collect()
}

/// Gives the fake a picture to show, something that it takes, and somebody who answers.
pub(crate) fn furnish(machine: &Machine) {
    let control = FakeControl::of(machine).expect("it is a fake");
    control.show(Picture {
        mime_type: "image/png".to_owned(),
        bytes: b"\x89PNG".to_vec(),
    });
    control.takes(Usage {
        cpu: Some(Duration::from_secs(1)),
        ..Usage::default()
    });
    control.answer(|| Box::new(tokio::io::duplex(64).0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fake_passes_every_check() {
    let report = conformance::run(Fake(tempfile::TempDir::new().unwrap())).await;
    report.assert_passed();
    let passed = |name: &str| matches!(report.verdict(name), Some(Verdict::Passed(_)));
    for finding in report.findings() {
        assert!(passed(finding.name), "not shown:\n{report}");
    }
}

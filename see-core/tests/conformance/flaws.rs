//! The suite can fail: each of these fakes is wrong in one way, and the check that is meant for it says so.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use see_core::testing::FakeControl;
use see_core::testing::conformance::{self, Candidate, Verdict};
use see_core::{Identifier, Machine, Registries, Result, SandboxState};
use serde_json::{Value, json};

use crate::fake::{furnish, remains};
use crate::flawed::{Careless, Flaw, Flawed, Once};

#[derive(Debug)]
struct Suspect {
    folder: tempfile::TempDir,
    context: Value,
}

#[async_trait]
impl Candidate for Suspect {
    fn registries(&self) -> Result<Registries> {
        let mut registries = Registries::new();
        registries.backends.add::<Flawed>()?;
        registries.backends.add::<Careless>()?;
        registries.collectors.add(Arc::new(Once))?;
        Ok(registries)
    }

    fn context(&self) -> Value {
        self.context.clone()
    }

    async fn remains(&self, identifier: Identifier) -> Vec<String> {
        remains(self.folder.path().to_owned(), identifier)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn obeys_shutdown(&self) -> bool {
        true
    }

    async fn settle(&self, machine: &Machine) -> Result<()> {
        furnish(machine);
        Ok(())
    }

    async fn kill(&self, machine: &Machine) -> Option<Result<()>> {
        FakeControl::of(machine)?.guest_becomes(SandboxState::Shutoff);
        Some(Ok(()))
    }
}

async fn suspect(name: &str, context: impl FnOnce(&str) -> Value, check: &str) -> String {
    let folder = tempfile::TempDir::new().unwrap();
    let context = context(folder.path().to_str().unwrap());
    let suspect = Suspect { folder, context };
    let report = conformance::run_only(suspect, |wanted| wanted == check).await;
    match report.verdict(check) {
        Some(Verdict::Failed(why)) => why.clone(),
        other => panic!("{name} was not caught by {check}: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_flaw_is_caught_by_the_check_that_is_meant_for_it() {
    use Flaw::*;
    let flaws = [
        (UnwrittenFolder, "failing-allocation", "left behind: extra-"),
        (
            UnwrittenFolder,
            "panicking-allocation",
            "left behind: extra-",
        ),
        (UnwrittenFolder, "stopped-allocation", "left behind: extra-"),
        (UnwrittenFolder, "dropped-allocation", "left behind: extra-"),
        (UnwrittenFolder, "collection", "left behind: extra-"),
        (LeakedFolder, "release", "left behind: extra-"),
        (LeakedFolder, "parallel", "left behind: extra-"),
        (BlindToStop, "stopped-allocation", "never looks at its stop"),
        (DefiesStop, "stopped-allocation", "and went on"),
        (
            TakesDirtyFolder,
            "dirty-names",
            "the allocation went on with it",
        ),
        (SharedFolder, "parallel", "shared folder"),
        (UnknownKind, "collection", "mystery"),
        (
            LiesAboutPictures,
            "abilities",
            "screenshot: a picture is not supported",
        ),
        (NewClaims, "abilities", "claimed"),
        (
            AlwaysRuns,
            "lifecycle",
            "the machine is running, it should be shut off",
        ),
        (
            FalseSuspend,
            "lifecycle",
            "after pause: the machine is running",
        ),
        (
            TogglesPower,
            "illegal-transitions",
            "after a start of a machine that runs: the machine is shut off",
        ),
        (
            TogglesPause,
            "illegal-transitions",
            "after a resume of a machine that runs: the machine is paused",
        ),
        (Silent, "watch", "the news that it is running did not end"),
        (Deaf, "lifecycle", "shutdown"),
        (EndlessRelease, "release", "did not end within"),
        (
            CollectsOnce,
            "interrupted-release",
            "it failed for what is gone",
        ),
        (ReleasesOnlyTheLiving, "dead-machine", "it does not run"),
        (CrashesAtTheCut, "poweroff", "cut 10: its power was cut"),
        (HalfStarted, "interrupted-start", "neither on nor off"),
        (
            StartsSecondMachine,
            "illegal-transitions",
            "left behind: the process /proc/",
        ),
        (LeavesChild, "release", "left behind: the process /proc/"),
    ];
    for (flaw, check, words) in flaws {
        let context = |folder: &str| {
            let flaw = format!("{flaw:?}");
            let kebab: String = flaw
                .char_indices()
                .flat_map(|(at, c)| {
                    let dash = (at > 0 && c.is_uppercase()).then_some('-');
                    dash.into_iter().chain([c.to_ascii_lowercase()])
                })
                .collect();
            json!({ "backend": "flawed", "folder": folder, "flaw": kebab })
        };
        let why = suspect(&format!("{flaw:?}"), context, check).await;
        assert!(why.contains(words), "{flaw:?}, {check}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_takes_every_configuration_is_caught() {
    let context = |folder: &str| json!({ "backend": "careless", "folder": folder });
    let why = suspect("a careless backend", context, "configuration").await;
    assert!(why.contains("no-backend-has-this-key was taken"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_candidate_cannot_provoke_is_not_applicable_and_no_failure() {
    let folder = tempfile::TempDir::new().unwrap();
    let context = json!({ "backend": "careless", "folder": folder.path() });
    let report = conformance::run_only(Suspect { folder, context }, |check| check == "guest-power");
    let report = report.await;
    let verdict = report.verdict("guest-power");
    assert!(
        matches!(verdict, Some(Verdict::NotApplicable(_))),
        "{verdict:?}"
    );
    report.assert_passed();
}

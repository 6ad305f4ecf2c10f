//! The provider `dummy` passes the conformance suite. Those with servers do so beside the servers.

use std::path::PathBuf;

use async_trait::async_trait;
use see_core::testing::conformance::Verdict;
use see_core::testing::providers::{self, ImageCandidate};
use see_core::{Error, Registries, Result};
use serde_json::{Value, json};
use tempfile::TempDir;

#[derive(Debug)]
struct Files(TempDir);

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[async_trait]
impl ImageCandidate for Files {
    fn registries(&self) -> Result<Registries> {
        let mut registries = Registries::new();
        see_image_providers::register(&mut registries)?;
        Ok(registries)
    }

    fn section(&self, name: &str) -> Value {
        json!({ "provider": "dummy", "name": name, "provider_configuration": { "path": self.0.path() } })
    }

    async fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        std::fs::write(self.path(name), content).map_err(|error| Error::io("put", error))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        std::fs::remove_file(self.path(name)).map_err(|error| Error::io("remove", error))
    }

    fn malformed(&self) -> Vec<Value> {
        vec![
            json!({ "provider": "dummy" }),
            json!({ "provider": "dummy", "provider_configuration": { "path": 7 } }),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dummy_passes_every_check_that_applies() {
    let report = providers::run(Files(TempDir::new().unwrap())).await;
    report.assert_passed();
    for name in [
        "configuration",
        "image",
        "again",
        "changed",
        "crowd",
        "missing",
    ] {
        let verdict = report.verdict(name);
        assert!(matches!(verdict, Some(Verdict::Passed(_))), "{report}");
    }
}

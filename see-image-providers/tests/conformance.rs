//! The providers `dummy` and `http` pass the conformance suite. Those that need a real server do so beside it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use see_core::testing::conformance::Verdict;
use see_core::testing::providers::{self, ImageCandidate};
use see_core::{Error, Registries, Result};
use see_image_providers::cache::{Algorithm, Hasher};
use see_image_providers::testing::{Fault, FaultServer, Resource};
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

/// The provider `http` with a web server that does as it is told.
#[derive(Debug)]
struct Web {
    server: FaultServer,
    folder: TempDir,
    /// What lies there, and how often it was replaced.
    images: Mutex<HashMap<String, (Bytes, usize)>>,
}

const PASSWORD: &str = "a-password-for-the-web";

impl Web {
    async fn start() -> Self {
        Self {
            server: FaultServer::start().await,
            folder: TempDir::new().unwrap(),
            images: Mutex::default(),
        }
    }

    /// The image as it is now, with the digest beside it.
    fn resource(&self, name: &str) -> Resource {
        let images = self.images.lock().unwrap();
        let (content, version) = &images[name];
        Resource::new(content.clone()).entity_tag(&version.to_string())
    }

    fn with_fault(&self, name: &str, fault: Fault) {
        let faulty = self.resource(name).always(fault);
        self.server.put(&format!("/{name}"), faulty);
    }
}

#[async_trait]
impl ImageCandidate for Web {
    fn registries(&self) -> Result<Registries> {
        let mut registries = Registries::new();
        see_image_providers::register(&mut registries)?;
        Ok(registries)
    }

    fn section(&self, name: &str) -> Value {
        json!({ "provider": "http", "uri": self.server.url(&format!("/{name}")),
            "provider_configuration": {
                "checksums": format!("{name}.sha256"),
                "auth": { "username": "me", "password": PASSWORD },
                "cache": { "folder": self.folder.path().join("store"), "patience": "2s" },
        } })
    }

    async fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(content);
        let sums = format!("{}  {name}\n", hasher.finish().hex());
        {
            let mut images = self.images.lock().unwrap();
            let version = images.get(name).map_or(0, |(_, version)| version + 1);
            let content = Bytes::copy_from_slice(content);
            images.insert(name.to_owned(), (content, version));
        }
        self.server
            .put(&format!("/{name}.sha256"), Resource::new(sums));
        self.server.put(&format!("/{name}"), self.resource(name));
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.server.remove(&format!("/{name}"));
        self.server.remove(&format!("/{name}.sha256"));
        Ok(())
    }

    async fn spoil(&self, name: &str) -> Option<Result<()>> {
        self.with_fault(name, Fault::Flip(40_000));
        Some(Ok(()))
    }

    async fn stall(&self, name: &str) -> Option<Result<()>> {
        self.with_fault(name, Fault::Stall(100_000));
        Some(Ok(()))
    }

    async fn heal(&self) -> Result<()> {
        let names: Vec<String> = self.images.lock().unwrap().keys().cloned().collect();
        for name in names {
            self.server.put(&format!("/{name}"), self.resource(&name));
        }
        Ok(())
    }

    fn malformed(&self) -> Vec<Value> {
        vec![
            json!({ "provider": "http" }),
            json!({ "provider": "http", "uri": "ftp://host/image" }),
            json!({ "provider": "http", "uri": "http://host/image",
                "provider_configuration": { "checksum": "md5:00" } }),
        ]
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.to_owned()]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_passes_every_check_that_applies() {
    let report = providers::run(Web::start().await).await;
    report.assert_passed();
    for finding in report.findings() {
        let shown = matches!(finding.verdict, Verdict::Passed(_));
        assert!(shown || finding.name == "unreachable", "{report}");
    }
}

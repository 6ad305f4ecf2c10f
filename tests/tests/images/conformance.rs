//! The providers of real servers pass the conformance suite.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use see_core::testing::conformance::{Report, Verdict};
use see_core::testing::providers::{self, ImageCandidate};
use see_core::{Registries, Result};
use see_tests::services::{self, Glance, Swift};
use see_tests::{Home, rounds};
use serde_json::{Value, json};

/// What asks for some dozens of images, and is about the engine and the ledger: a campaign asks real servers, too.
const LONG: [&str; 3] = ["stopped", "failing", "panicking"];
fn registries() -> Result<Registries> {
    let mut registries = Registries::new();
    see_image_providers::register(&mut registries)?;
    Ok(registries)
}

/// Objects in a bucket of Swift.
#[derive(Debug)]
struct Objects {
    home: Home,
    swift: &'static Swift,
}

const BUCKET: &str = "conformance";

#[async_trait]
impl ImageCandidate for Objects {
    fn registries(&self) -> Result<Registries> {
        registries()
    }

    fn section(&self, name: &str) -> Value {
        json!({ "provider": "s3", "name": name, "provider_configuration": {
            "bucket_name": BUCKET,
            "auth": {
                "endpoint_url": self.swift.endpoint(), "region_name": Swift::REGION,
                "aws_access_key_id": Swift::KEY, "aws_secret_access_key": Swift::SECRET,
            },
            "cache": { "folder": self.home.path("store") },
        } })
    }

    async fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        self.swift.put(BUCKET, name, content);
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<()> {
        self.swift.delete(BUCKET, name);
        Ok(())
    }

    fn malformed(&self) -> Vec<Value> {
        vec![
            json!({ "provider": "s3", "name": "guest.img" }),
            json!({ "provider": "s3", "name": "guest.img",
                "provider_configuration": { "bucket_name": 7 } }),
        ]
    }

    fn secrets(&self) -> Vec<String> {
        vec![Swift::SECRET.to_owned()]
    }
}

/// Images of Glance: the newest of its name counts, so the one before goes.
#[derive(Debug)]
struct Images {
    home: Home,
    glance: &'static Glance,
    /// The identifiers by names.
    made: Mutex<HashMap<String, String>>,
    /// Whose content is another one.
    spoilt: Mutex<Vec<String>>,
}

/// The byte that is spoilt.
const SPOILT: u64 = 40_000;

impl Images {
    fn made(&self) -> MutexGuard<'_, HashMap<String, String>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spoilt(&self) -> MutexGuard<'_, Vec<String>> {
        self.spoilt.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ImageCandidate for Images {
    fn registries(&self) -> Result<Registries> {
        registries()
    }

    fn section(&self, name: &str) -> Value {
        let user = Glance::USER;
        json!({ "provider": "glance", "name": name, "provider_configuration": {
            "os_auth": {
                "auth_url": self.glance.identity_url(), "username": user.name,
                "password": user.password, "project_name": user.project,
                "user_domain_name": "Default", "project_domain_name": "Default",
            },
            "cache": { "folder": self.home.path("store") },
        } })
    }

    async fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        let id = self.glance.upload(name, content);
        let before = self.made().insert(name.to_owned(), id);
        if let Some(before) = before {
            self.glance.delete(&before);
        }
        Ok(())
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let made = self.made().remove(name);
        if let Some(id) = made {
            self.glance.delete(&id);
        }
        Ok(())
    }

    async fn spoil(&self, name: &str) -> Option<Result<()>> {
        let id = self.made().get(name)?.clone();
        self.glance.flip(&id, SPOILT);
        self.spoilt().push(id);
        Some(Ok(()))
    }

    async fn heal(&self) -> Result<()> {
        for id in self.spoilt().drain(..) {
            self.glance.flip(&id, SPOILT);
        }
        Ok(())
    }

    fn malformed(&self) -> Vec<Value> {
        vec![
            json!({ "provider": "glance", "name": "guest",
                "provider_configuration": { "os_auth": "nobody" } }),
            json!({ "provider": "glance", "name": "guest",
                "provider_configuration": { "interface": "secret" } }),
        ]
    }

    fn secrets(&self) -> Vec<String> {
        vec![Glance::USER.password.to_owned()]
    }
}

/// Runs it over a candidate, with more threads than requests of it that block.
fn report(candidate: impl ImageCandidate + 'static) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime");
    let wanted = |name: &str| rounds(0) > 0 || !LONG.contains(&name);
    runtime.block_on(providers::run_only(candidate, wanted))
}

/// Fails unless everything was shown but what this source cannot be made to do.
fn assert_shown(report: &Report, unable: &[&str]) {
    report.assert_passed();
    for finding in report.findings() {
        let shown = matches!(finding.verdict, Verdict::Passed(_));
        assert!(shown || unable.contains(&finding.name), "{report}");
    }
}

#[test]
fn s3_passes_the_conformance_suite_over_swift() {
    let swift = services::swift().shared();
    swift.bucket(BUCKET);
    let objects = Objects {
        home: Home::new(),
        swift: swift.server(),
    };
    let report = report(objects);
    assert_shown(&report, &["spoiled", "stalled", "unreachable"]);
}

#[test]
fn glance_passes_the_conformance_suite_over_keystone_and_glance() {
    let glance = services::glance().shared();
    let images = Images {
        home: Home::new(),
        glance: glance.server(),
        made: Mutex::default(),
        spoilt: Mutex::default(),
    };
    let report = report(images);
    assert_shown(&report, &["stalled", "unreachable"]);
}

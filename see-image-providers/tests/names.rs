//! Names of images that lead somewhere else, or are none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use see_core::config::Configuration;
use see_core::ledger::Ledger;
use see_core::{Error, ErrorKind, Identifier, ImageRequest, Registries, Stop};
use see_image_providers::testing::{Fault, FaultServer, Resource, noise};
use serde_json::{Value, json};

/// What is wrong with a name, and one of that kind.
fn names() -> [(&'static str, String); 10] {
    [
        ("up and away", "../outside.img".into()),
        ("up in the middle", "a/../../outside.img".into()),
        ("only up", "..".into()),
        ("up as on Windows", "..\\outside.img".into()),
        ("from a drive", "C:\\outside.img".into()),
        ("from the root", "/etc/hostname".into()),
        ("two lines", "guest.img\nX-Header: yes".into()),
        ("with an end in it", "guest.img\0.txt".into()),
        ("nothing", String::new()),
        ("300 characters", "ü".repeat(300)),
    ]
}

/// A folder with an image beside it that no name may reach, and a web server with no image at all.
struct World {
    folder: tempfile::TempDir,
    server: FaultServer,
}

impl World {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("images")).unwrap();
        std::fs::write(folder.path().join("outside.img"), "not to be reached").unwrap();
        let server = FaultServer::start().await;
        // Glance's list: empty.
        let none = Fault::Status(200, Vec::new(), r#"{"images": []}"#.into());
        server.put("/v2/images", Resource::new("").always(none));
        Self { folder, server }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Every provider, asked for this name.
    fn sections(&self, name: &str) -> Vec<Value> {
        let cache = json!({ "folder": self.path("store"), "patience": "1s" });
        let mut sections = vec![
            json!({ "provider": "dummy", "name": name,
                "provider_configuration": { "path": self.path("images") } }),
            json!({ "provider": "http", "name": name, "provider_configuration": {
                "url": self.server.url("/images/"), "cache": cache } }),
            json!({ "provider": "glance", "name": name, "provider_configuration": {
                "os_auth": { "auth_type": "none" }, "endpoint": self.server.url("/"),
                "path": self.path("images"), "cache": cache } }),
            json!({ "provider": "s3", "name": name, "provider_configuration": {
                "bucket_name": "images", "path": self.path("images"), "cache": cache,
                "auth": { "endpoint_url": self.server.url(""), "aws_access_key_id": "id",
                    "aws_secret_access_key": "secret" } } }),
        ];
        if cfg!(feature = "libvirt-pool") {
            // libvirt's own driver for tests, whose pool has no volume of such a name.
            sections.push(json!({ "provider": "libvirt-pool", "name": name,
                "provider_configuration": {
                    "hypervisor": "test:///default", "storage_pool": "default-pool" } }));
        }
        sections
    }

    async fn refusal(&self, section: &Value) -> Error {
        let mut registries = Registries::new();
        see_image_providers::register(&mut registries).unwrap();
        let section = Configuration::from_str(self.path("run.json"), &section.to_string()).unwrap();
        let source = match registries.images.prepare(&section) {
            Ok(source) => source,
            Err(error) => return error,
        };
        let ledger = Ledger::open(self.path("state")).await.unwrap();
        let record = ledger.begin(Identifier::random(), "").await.unwrap();
        let (stop, limit) = (Stop::new(), Duration::from_secs(60));
        let token = stop.token();
        let request = ImageRequest::new(&record, &token);
        let asked = tokio::time::timeout(limit, source.image(&request)).await;
        asked.expect("it ends").unwrap_err()
    }
}

/// All paths beneath a folder but those of the store and the ledger.
fn around(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_own = path.ends_with("store") || path.ends_with("state");
        if path.is_dir() && !is_own {
            found.extend(around(&path));
        }
        if !is_own {
            found.insert(path);
        }
    }
    found
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_or_is_none_is_refused_by_every_provider() {
    let world = World::new().await;
    let before = around(world.folder.path());
    for (what, name) in names() {
        for section in world.sections(&name) {
            let provider = section["provider"].as_str().unwrap();
            let error = world.refusal(&section).await;
            let text = error.chain().to_string();
            let told = format!("{what} for {provider}: {text}");
            let kinds = [ErrorKind::Configuration, ErrorKind::NotFound];
            assert!(kinds.contains(&error.kind()), "{:?}: {told}", error.kind());
            assert!(text.len() < 2000 && !text.contains('\0'), "{told}");
            // Glance's names are words of its users: one with dots is looked for, and is not there.
            let must_be_wrong = match provider {
                "glance" => false,
                // No other stroke parts the keys of objects.
                "s3" => name.split('/').any(|part| part == ".."),
                _ => name.contains(".."),
            } || name.is_empty()
                || name.contains(['\n', '\0']);
            if must_be_wrong {
                assert_eq!(error.kind(), ErrorKind::Configuration, "{told}");
            }
            assert_eq!(around(world.folder.path()), before, "{told}");
        }
    }
    // Whoever is asked is asked for what lies beneath.
    for seen in world.server.seen() {
        let target = seen.target;
        let (path, _) = target.split_once('?').unwrap_or((&target, ""));
        let is_beneath = path.starts_with("/images/") || ["/images", "/v2/images"].contains(&path);
        let is_up = path.split('/').any(|part| part == "..");
        assert!(is_beneath && !is_up, "{target}");
    }
}

#[tokio::test]
async fn a_server_that_tells_no_length_to_a_head_is_asked_for_it_otherwise() {
    let server = FaultServer::start().await;
    let resource = Resource::new(noise(200_000)).raw_entity_tag("abc");
    server.put("/image", resource.announcing(0));
    let folder = tempfile::tempdir().unwrap();
    let mut registries = Registries::new();
    see_image_providers::register(&mut registries).unwrap();
    let section = json!({ "provider": "http", "uri": server.url("/image"),
        "provider_configuration": { "cache": { "folder": folder.path().join("store") } } });
    let section = Configuration::from_str("run.json", &section.to_string()).unwrap();
    let source = registries.images.prepare(&section).unwrap();
    let ledger = Ledger::open(folder.path().join("state")).await.unwrap();
    let record = ledger.begin(Identifier::random(), "").await.unwrap();
    let stop = Stop::new();
    let token = stop.token();
    let request = ImageRequest::new(&record, &token);
    let image = source.image(&request).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(200_000));
}

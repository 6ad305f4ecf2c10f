//! VirtualBox, and libvirt's test driver by itself, as the conformance suite meets them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use async_trait::async_trait;
use see_core::ledger::Resource;
use see_core::testing::conformance::{self, Candidate, GuestAct, Stranger, Verdict};
use see_core::{Error, ErrorKind, Identifier, Machine, Registries, Result};
use see_libvirt::{Connection, Domain, ShutdownMode};
use serde_json::{Value, json};

/// The longest wait for anything.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The test driver behind the filter of what VirtualBox's lacks.
pub(crate) const HYPERVISOR: &str = "vbox+test:///default";

/// A domain as python-see's users have it, with a cdrom before the disk.
pub(crate) const DOMAIN: &str = "<domain type='vbox'><name>analyst</name><memory unit='MiB'>64</memory>\
    <os><type arch='x86_64'>hvm</type></os><devices>\
    <disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><readonly/></disk>\
    <disk type='file' device='disk'><source file='/somewhere/else.vdi'/><target dev='hda' bus='ide'/></disk>\
    </devices></domain>";

/// A folder with an image and a domain of VirtualBox's, or of the test driver's own.
#[derive(Debug)]
pub(crate) struct Place {
    folder: tempfile::TempDir,
    is_plain: bool,
}

impl Place {
    /// For VirtualBox.
    pub(crate) fn new() -> Self {
        Self::of(DOMAIN.to_owned(), false)
    }

    /// For a driver of which nothing but its scheme is known to the backend.
    pub(crate) fn plain() -> Self {
        Self::of(DOMAIN.replace("type='vbox'", "type='test'"), true)
    }

    fn of(domain: String, is_plain: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(folder.path().join("base.qcow2"))
            .arg("8M")
            .status()
            .expect("qemu-img is installed");
        assert!(made.success());
        std::fs::write(folder.path().join("domain.xml"), domain).unwrap();
        Self { folder, is_plain }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A section of the smallest machine, with absolute paths.
    pub(crate) fn context(&self) -> Value {
        let mut section = json!({
            "hypervisor": "test:///default",
            "domain": { "configuration": self.path("domain.xml") },
            "disk": { "image": self.path("base.qcow2") },
        });
        if !self.is_plain {
            section["backend"] = json!("vbox");
            section["hypervisor"] = json!(HYPERVISOR);
        }
        section
    }
}

fn failed(error: see_libvirt::Error) -> Error {
    Error::new(ErrorKind::Hypervisor, error.to_string())
}

/// The environment's domain for somebody who is not VirtualBox.
pub(crate) async fn behind_the_back(identifier: Identifier) -> Result<Domain> {
    let connection = Connection::open("test:///default", LIMIT)
        .await
        .map_err(failed)?;
    let name = identifier.to_string();
    connection.domain_by_name(&name).await.map_err(failed)
}

/// Folders and domains that carry the identifier.
pub(crate) async fn remains(identifier: Identifier) -> Vec<String> {
    let name = identifier.to_string();
    let mut found = Vec::new();
    for folder in ["/tmp", "/var/tmp"].map(Path::new) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.file_name().to_string_lossy().contains(&name) {
                found.push(entry.path().display().to_string());
            }
        }
    }
    if behind_the_back(identifier).await.is_ok() {
        found.push(format!("the domain {name}"));
    }
    found
}

#[async_trait]
impl Candidate for Place {
    fn registries(&self) -> Result<Registries> {
        let mut registries = Registries::new();
        see_context::register(&mut registries)?;
        Ok(registries)
    }

    fn context(&self) -> Value {
        self.context()
    }

    async fn remains(&self, identifier: Identifier) -> Vec<String> {
        remains(identifier).await
    }

    fn malformed(&self) -> Vec<Value> {
        let mut section = self.context();
        match self.is_plain {
            true => section["agent"] = json!({ "transport": "serial" }),
            false => section["disk"]["clone"] = json!({ "copy_on_write": true }),
        }
        vec![section]
    }

    /// The test driver's guests do at once.
    fn obeys_shutdown(&self) -> bool {
        true
    }

    async fn provoke(&self, machine: &Machine, act: GuestAct) -> Option<Result<()>> {
        // Only that it is off can be seen by asking.
        if act != GuestAct::Poweroff {
            return None;
        }
        let domain = match behind_the_back(machine.identifier()).await {
            Ok(domain) => domain,
            Err(error) => return Some(Err(error)),
        };
        let done = domain.shutdown(ShutdownMode::Default).await;
        Some(done.map_err(failed))
    }

    async fn kill(&self, machine: &Machine) -> Option<Result<()>> {
        let domain = match behind_the_back(machine.identifier()).await {
            Ok(domain) => domain,
            Err(error) => return Some(Err(error)),
        };
        let done = domain.destroy().await;
        Some(done.map_err(failed))
    }

    async fn plant(&self, resource: &Resource) -> Option<Result<Box<dyn Stranger>>> {
        if resource.kind != "libvirt.domain" {
            return None;
        }
        Some(plant(&resource.name).await)
    }
}

/// A domain of somebody else's, with a UUID of its own.
struct Planted(Domain);

async fn plant(name: &str) -> Result<Box<dyn Stranger>> {
    let connection = Connection::open("test:///default", LIMIT)
        .await
        .map_err(failed)?;
    let xml = DOMAIN.replace("analyst", name);
    let domain = connection.define_domain(&xml).await.map_err(failed)?;
    Ok(Box::new(Planted(domain)))
}

#[async_trait]
impl Stranger for Planted {
    async fn harm(&self) -> Option<String> {
        self.0.xml().await.err().map(|error| error.to_string())
    }

    async fn remove(self: Box<Self>) -> Result<()> {
        let removed = self.0.undefine().await;
        removed.map_err(failed)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn virtualbox_over_the_test_driver_passes_the_conformance_suite() {
    let report = conformance::run(Place::new()).await;
    report.assert_passed();
    for check in ["guest-power", "dirty-names", "collection", "dead-machine"] {
        let verdict = report.verdict(check);
        assert!(
            matches!(verdict, Some(Verdict::Passed(_))),
            "{check} was not shown:\n{report}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_test_driver_passes_the_conformance_suite_without_a_backend_of_its_own() {
    let report = conformance::run(Place::plain()).await;
    report.assert_passed();
    for check in ["lifecycle", "guest-power", "dirty-names", "collection"] {
        let verdict = report.verdict(check);
        assert!(
            matches!(verdict, Some(Verdict::Passed(_))),
            "{check} was not shown:\n{report}"
        );
    }
}

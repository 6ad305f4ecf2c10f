//! A host with a ledger of its own, and what is left on the machine.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use see_core::config::Configuration;
use see_core::ledger::Ledger;
use see_core::{
    AllocateOptions, Changes, Environment, Error, Host, Identifier, Registries, SandboxChange, Stop,
};

/// The longest wait for anything. The first open on a host probes the emulators.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A folder with an empty image, and a host.
pub(crate) struct Lab {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) host: Host,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("lab with ü ")
            .tempdir()
            .unwrap();
        let image = folder.path().join("base.qcow2");
        let made = Command::new("qemu-img")
            .args(["create", "-q", "-f", "qcow2"])
            .arg(&image)
            .arg("64M")
            .status()
            .expect("qemu-img is installed");
        assert!(made.success());
        let mut registries = Registries::new();
        see_context::register(&mut registries).unwrap();
        let ledger = Ledger::open_blocking(folder.path().join("state")).unwrap();
        Self {
            host: Host::new(registries, ledger).unwrap(),
            folder,
        }
    }

    pub(crate) fn image(&self) -> PathBuf {
        self.folder.path().join("base.qcow2")
    }

    /// The section as it would stand in a run file in the lab's folder.
    pub(crate) fn context(&self, json: &str) -> Configuration {
        Configuration::from_str(self.folder.path().join("run.json"), json).unwrap()
    }

    pub(crate) async fn prepare(&self, json: &str) -> Result<see_core::Prepared, Error> {
        self.host
            .prepare(&self.context(json), &Default::default())
            .await
    }

    pub(crate) async fn allocate(
        &self,
        json: &str,
        identifier: Identifier,
    ) -> Result<Environment, Error> {
        let prepared = self.prepare(json).await?;
        let options = AllocateOptions {
            identifier: Some(identifier),
            ..AllocateOptions::default()
        };
        self.host.allocate(prepared, options, Stop::new()).await
    }

    /// Fails when anything on this host still carries the identifier.
    pub(crate) fn assert_nothing_left(&self, identifier: Identifier) {
        let name = identifier.to_string();
        for folder in ["/tmp", "/var/tmp"] {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                let found = entry.file_name().to_string_lossy().into_owned();
                assert!(!found.contains(&name), "{folder}/{found} is left");
            }
        }
        assert!(!emulator_runs(identifier), "the emulator still runs");
        let records = self.folder.path().join("state");
        assert!(!contains(&records, &name), "the record is left");
    }
}

fn contains(folder: &Path, name: &str) -> bool {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| {
            entry.file_name().to_string_lossy().contains(name) || contains(&entry.path(), name)
        })
}

/// Whether a process has the identifier on its command line as a UUID.
pub(crate) fn emulator_runs(identifier: Identifier) -> bool {
    let wanted = format!("-uuid\0{identifier}\0");
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|process| std::fs::read(process.path().join("cmdline")).ok())
        .any(|line| {
            line.windows(wanted.len())
                .any(|part| part == wanted.as_bytes())
        })
}

/// Waits until the condition holds.
pub(crate) async fn until<F, Fut>(what: &str, mut condition: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let begin = Instant::now();
    while !condition().await {
        assert!(begin.elapsed() < LIMIT, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the sandbox tells of this change.
pub(crate) async fn told(changes: &mut Changes, wanted: SandboxChange) {
    let found = tokio::time::timeout(LIMIT, async {
        while let Some(change) = changes.recv().await {
            if change == wanted {
                return true;
            }
        }
        false
    })
    .await;
    assert_eq!(found, Ok(true), "{wanted:?} was not told");
}

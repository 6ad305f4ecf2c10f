//! Storage pools: where images are found, and where sandboxes have their disks.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use see_core::config::Configuration;
use see_core::ledger::Ledger;
use see_core::testing::conformance::Verdict;
use see_core::testing::providers::{self, ImageCandidate};
use see_core::{Error, ErrorKind, Identifier, Image, ImageRequest, Registries, Stop};
use see_tests::{Home, Lab};
use serde_json::{Value, json};

use crate::support::{runtime, virsh};

/// The system daemon's pools over a folder, running or only defined.
fn pools_over(folder: &Path) -> Vec<String> {
    let folder = format!("<path>{}</path>", folder.display());
    let all = virsh(&["pool-list", "--all", "--name"]);
    let names = all.lines().map(str::trim).filter(|name| !name.is_empty());
    names
        // Others make and remove pools meanwhile.
        .filter(|name| {
            see_tests::virsh("qemu:///system", ["pool-dumpxml", *name])
                .is_ok_and(|pool| pool.contains(&folder))
        })
        .map(str::to_owned)
        .collect()
}

/// What the provider gives for a volume of this pool.
fn image(home: &Home, volume: &str, pool: serde_json::Value) -> see_core::Result<Image> {
    let mut registries = Registries::new();
    see_image_providers::register(&mut registries)?;
    let section = json!({
        "provider": "see.image_providers.LibvirtPoolProvider",
        "name": volume,
        "provider_configuration": pool,
    });
    let section = Configuration::from_str("run.json", &section.to_string())?;
    let source = registries.images.prepare(&section)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let ledger = Ledger::open(home.path("state")).await?;
        let record = ledger.begin(Identifier::random(), "a test").await?;
        let stop = Stop::new();
        let found = source
            .image(&ImageRequest::new(&record, &stop.token()))
            .await;
        let left = record.close().await?;
        assert!(left.is_empty(), "the ledger still names {left:?}");
        found
    })
}

#[test]
fn an_image_in_a_folder_is_found_without_a_pool_and_none_is_made() {
    let home = Home::passable();
    let folder = home.path("images");
    std::fs::create_dir(&folder).expect("the home is writable");
    let guest = home.write("images/guest.img", vec![0; 4096]);
    let pool = json!({ "storage_pool_path": folder, "hypervisor": "nobody:///answers" });
    let found = image(&home, "guest.img", pool.clone()).expect("the image is found");
    assert_eq!(found.path, guest);
    let missing = image(&home, "never.img", pool).expect_err("there is none");
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    assert!(missing.to_string().contains("never.img"), "{missing}");
    assert_eq!(pools_over(&folder), Vec::<String>::new());
}

#[test]
fn an_image_added_to_an_existing_pool_is_found_and_the_pool_stays_as_it_is() {
    let home = Home::passable();
    let folder = home.path("images");
    std::fs::create_dir(&folder).expect("the home is writable");
    let name = format!("see-test-{}", Identifier::random());
    let path = folder.to_str().expect("a test's paths are UTF-8");
    virsh(&["pool-create-as", &name, "dir", "--target", path]);
    let late = home.write("images/late.img", vec![0; 4096]);
    let by_path = image(&home, "late.img", json!({ "storage_pool_path": folder }));
    let by_name = image(&home, "late.img", json!({ "storage_pool": name }));
    let missing = image(&home, "never.img", json!({ "storage_pool": name }));
    let after = pools_over(&folder);
    virsh(&["pool-destroy", &name]);
    assert_eq!(by_path.expect("it is found").path, late);
    assert_eq!(by_name.expect("it is found").path, late);
    let missing = missing.expect_err("there is none");
    assert_eq!(missing.kind(), ErrorKind::NotFound, "{missing}");
    assert!(
        missing.to_string().contains("it has `late.img`"),
        "{missing}"
    );
    assert_eq!(after, std::slice::from_ref(&name));
    let gone = image(&home, "late.img", json!({ "storage_pool": name })).expect_err("it is gone");
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
}

/// Whether the system daemon would know a pool after it was stopped.
fn is_persistent(name: &str) -> bool {
    let info = virsh(&["pool-info", name]);
    let line = info
        .lines()
        .find_map(|line| line.strip_prefix("Persistent:"));
    line.expect("virsh says so").trim() != "no"
}

#[test]
fn the_pool_of_a_sandbox_is_transient_and_goes_with_it() {
    let home = Home::passable();
    let folder = home.path("pool");
    std::fs::create_dir(&folder).expect("the home is writable");
    let run_file = home.run_file(json!({
        "hypervisor": "qemu:///system",
        "memory": "64MiB",
        "disk": { "image": home.guest("guest.qcow2"), "clone": { "storage_pool_path": "pool" } },
    }));
    runtime().block_on(async {
        let lab = Lab::new(&home);
        let watched = lab.allocate(&run_file).await.expect("a sandbox");
        let identifier = watched.identifier();
        assert!(!is_persistent(&identifier), "it outlives its end");
        watched.end().await;
        lab.finish().await;
        let all = virsh(&["pool-list", "--all", "--name"]);
        assert!(!all.contains(&identifier), "{all}");
    });
}

/// The provider with a folder, or with the pool over it.
#[derive(Debug)]
struct Pools {
    home: Home,
    pool: Option<String>,
}

impl Pools {
    fn new(pool: Option<String>) -> Self {
        let home = Home::passable();
        std::fs::create_dir(home.path("images")).expect("the home is writable");
        Self { home, pool }
    }

    fn folder(&self) -> PathBuf {
        self.home.path("images")
    }
}

#[async_trait]
impl ImageCandidate for Pools {
    fn registries(&self) -> see_core::Result<Registries> {
        let mut registries = Registries::new();
        see_context::register(&mut registries)?;
        see_image_providers::register(&mut registries)?;
        Ok(registries)
    }

    fn section(&self, name: &str) -> Value {
        let configuration = match &self.pool {
            Some(pool) => json!({ "storage_pool": pool }),
            None => json!({ "storage_pool_path": self.folder() }),
        };
        json!({ "provider": "libvirt-pool", "name": name, "provider_configuration": configuration })
    }

    async fn put(&self, name: &str, content: &[u8]) -> see_core::Result<()> {
        self.home.write(&format!("images/{name}"), content);
        Ok(())
    }

    async fn remove(&self, name: &str) -> see_core::Result<()> {
        std::fs::remove_file(self.folder().join(name)).map_err(|error| Error::io("remove", error))
    }

    async fn remains(&self, _: Identifier) -> Vec<String> {
        // The provider makes no pool, not even for a moment.
        let mut pools = pools_over(&self.folder());
        pools.retain(|name| Some(name) != self.pool.as_ref());
        pools
    }
}

fn passes(candidate: Pools) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let wanted = ["configuration", "image", "again", "changed", "missing"];
    let report = runtime.block_on(providers::run_only(candidate, |name| {
        wanted.contains(&name)
    }));
    report.assert_passed();
    for finding in report.findings() {
        assert!(matches!(finding.verdict, Verdict::Passed(_)), "{report}");
    }
}

#[test]
fn libvirt_pool_passes_the_conformance_suite_with_a_folder_and_makes_no_pool() {
    passes(Pools::new(None));
}

#[test]
fn libvirt_pool_passes_the_conformance_suite_with_a_pool_and_makes_no_other() {
    let name = format!("see-test-{}", Identifier::random());
    let candidate = Pools::new(Some(name.clone()));
    let path = candidate.folder();
    let path = path.to_str().expect("a test's paths are UTF-8");
    virsh(&["pool-create-as", &name, "dir", "--target", path]);
    let passed = std::panic::catch_unwind(AssertUnwindSafe(|| passes(candidate)));
    virsh(&["pool-destroy", &name]);
    passed.unwrap_or_else(|cause| std::panic::resume_unwind(cause));
}

//! Images while environments use them: leases, progress, and what a context asks for.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use see_core::config::{Configuration, HooksSection, Located};
use see_core::ledger::{CollectOptions, Ledger};
use see_core::testing::FakeBackend;
use see_core::{
    AllocateOptions, Environment, ErrorKind, Host, Image, ImagePhase, ImageProgress, ImageProvider,
    ImageRequest, Registries, Result, Stop,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A provider with a store of its own, from which somebody might remove images.
struct Shelf(PathBuf);

#[derive(Deserialize)]
struct ShelfConfiguration {
    /// The store: the file `image`, and the folder `leases`.
    store: PathBuf,
}

#[async_trait]
impl ImageProvider for Shelf {
    const NAME: &'static str = "shelf";
    type Configuration = ShelfConfiguration;

    fn prepare(configuration: ShelfConfiguration, _: Option<Located<String>>) -> Result<Self> {
        Ok(Self(configuration.store))
    }

    fn describe(&self) -> String {
        self.0.display().to_string()
    }

    async fn image(&self, request: &ImageRequest<'_>) -> Result<Image> {
        request.lease(&self.0.join("leases")).await?;
        request.phase(ImagePhase::Fetching, Some(10));
        request.progress(10, Some(10));
        let path = self.0.join("image");
        Ok(Image::new(path))
    }
}

struct Place {
    folder: TempDir,
    host: Host,
}

impl Place {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        for made in ["made", "store", "store/leases"] {
            std::fs::create_dir(path(made)).unwrap();
        }
        std::fs::write(path("store/image"), "an image").unwrap();
        let ledger = Ledger::open_blocking(path("state")).unwrap();
        let host = Host::new(registries(), ledger).unwrap();
        Self { folder, host }
    }

    fn context(&self) -> Configuration {
        Configuration::from_json(context(self.folder.path(), json!({})))
    }

    async fn allocate(
        &self,
        context: &Configuration,
        progress: ImageProgress,
    ) -> Result<Environment> {
        let hooks = HooksSection::default();
        let prepared = self.host.prepare(context, &hooks).await?;
        let options = AllocateOptions {
            progress,
            ..AllocateOptions::default()
        };
        self.host.allocate(prepared, options, Stop::new()).await
    }

    async fn environment(&self) -> Environment {
        let progress = ImageProgress::new();
        self.allocate(&self.context(), progress).await.unwrap()
    }

    fn leases(&self) -> Vec<String> {
        let leases = std::fs::read_dir(self.folder.path().join("store/leases")).unwrap();
        leases
            .map(|lease| lease.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    async fn collect(&self, include_kept: bool) -> bool {
        let options = CollectOptions {
            include_kept,
            ..CollectOptions::default()
        };
        let collectors = &self.host.registries().collectors;
        let report = self.host.ledger().collect(collectors, options).await;
        report.unwrap().is_clean()
    }
}

fn registries() -> Registries {
    let mut registries = Registries::new();
    registries.backends.add::<FakeBackend>().unwrap();
    registries.images.add::<Shelf>().unwrap();
    registries
}

fn context(folder: &Path, faults: Value) -> Value {
    json!({
        "backend": "fake",
        "folder": folder.join("made"),
        "faults": faults,
        "image": { "provider": "shelf", "provider_configuration": { "store": folder.join("store") } },
    })
}

#[tokio::test]
async fn a_lease_names_its_environment_and_ends_with_it() {
    let place = Place::new();
    let environment = place.environment().await;
    let leases = place.leases();
    assert_eq!(leases.len(), 1, "{leases:?}");
    let identifier = environment.identifier().to_string();
    assert!(leases[0].starts_with(&identifier), "{leases:?}");
    let teardown = environment.deallocate().await;
    assert!(teardown.is_clean(), "{teardown:?}");
    assert_eq!(place.leases(), Vec::<String>::new());
    assert!(place.host.ledger().list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_kept_environment_keeps_its_lease_until_it_is_collected() {
    let place = Place::new();
    let environment = place.environment().await;
    let until = SystemTime::now() + Duration::from_secs(3600);
    assert!(environment.keep(until).await.is_clean());
    assert!(place.collect(false).await);
    assert_eq!(place.leases().len(), 1, "collected before its time");
    assert!(place.collect(true).await);
    assert_eq!(place.leases(), Vec::<String>::new());
}

#[tokio::test]
async fn an_allocation_that_fails_leaves_no_lease() {
    let place = Place::new();
    let faulty = context(place.folder.path(), json!({ "domain": "fail" }));
    let faulty = Configuration::from_json(faulty);
    let error = place.allocate(&faulty, ImageProgress::new()).await;
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Hypervisor);
    assert_eq!(place.leases(), Vec::<String>::new());
    assert!(place.host.ledger().list().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_lease_stays_while_something_is_left_that_may_use_the_image() {
    let place = Place::new();
    let faulty = context(place.folder.path(), json!({ "removal": "fail" }));
    let faulty = Configuration::from_json(faulty);
    let progress = ImageProgress::new();
    let environment = place.allocate(&faulty, progress).await.unwrap();
    assert!(!environment.deallocate().await.is_clean());
    assert_eq!(place.leases().len(), 1);
    let made = std::fs::read_dir(place.folder.path().join("made")).unwrap();
    for folder in made {
        std::fs::remove_dir(folder.unwrap().path()).unwrap();
    }
    // Whoever collects the rest ends it.
    assert!(place.collect(false).await);
    assert_eq!(place.leases(), Vec::<String>::new());
}

#[tokio::test]
async fn whoever_allocates_hears_how_far_the_image_is() {
    let place = Place::new();
    let progress = ImageProgress::new();
    let mut listener = progress.listen();
    let environment = place.allocate(&place.context(), progress).await.unwrap();
    let heard = *listener.borrow_and_update();
    assert_eq!(
        (heard.provider, heard.phase),
        ("shelf", ImagePhase::Fetching)
    );
    assert_eq!((heard.done, heard.total), (10, Some(10)));
    environment.deallocate().await;
}

#[tokio::test]
async fn a_context_tells_its_images_without_an_allocation() {
    let place = Place::new();
    let registries = registries();
    let context = place.context();
    let asked = registries.backends.images(&context, &registries.images);
    let asked = asked.await.unwrap();
    let described: Vec<String> = asked.iter().map(see_core::ImageSource::describe).collect();
    let store = place.folder.path().join("store").display().to_string();
    assert_eq!(described, [store]);
    assert_eq!(place.leases(), Vec::<String>::new());
}

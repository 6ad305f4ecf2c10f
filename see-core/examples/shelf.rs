//! An image provider of one's own, with `see-core` alone: one file, and two lines where programs list what
//! they know (`mod shelf;` and `registries.images.add::<Shelf>()?`). The source is a folder, on a network
//! drive say; what is asked for is copied into a store on this host first. The test at the end runs the whole
//! conformance suite over it; `cargo run -p see-core --example shelf -- FOLDER NAME` gets one image.
#![expect(clippy::print_stdout, reason = "an example shows something")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use async_trait::async_trait;
use see_core::config::{ConfigPath, Configuration, Located};
use see_core::ledger::Ledger;
use see_core::{
    Error, ErrorKind, Identifier, Image, ImagePhase, ImageProgress, ImageProvider, ImageRequest,
    Registries, Result, Stop, StopToken,
};
use serde::Deserialize;

/// The provider `shelf`: images that lie in a folder and are copied to this host.
#[derive(Debug)]
struct Shelf {
    folder: PathBuf,
    store: PathBuf,
    name: String,
}

/// What stands under `provider_configuration`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShelfConfiguration {
    /// The folder that the images lie in.
    folder: ConfigPath,
    /// The folder on this host that they are copied to.
    store: ConfigPath,
}

#[async_trait]
impl ImageProvider for Shelf {
    const NAME: &'static str = "shelf";
    type Configuration = ShelfConfiguration;

    fn prepare(configuration: ShelfConfiguration, name: Option<Located<String>>) -> Result<Self> {
        let name = name.ok_or_else(|| {
            Error::new(
                ErrorKind::Configuration,
                "the provider `shelf` is told no image",
            )
            .advice("give its `name` in the folder")
        })?;
        // A name, and no way out of the folder.
        if name.contains('/') || name.starts_with('.') {
            let wrong = "found a path, expected the plain name of a file";
            return Err(Error::configuration(name.place().clone(), wrong));
        }
        Ok(Self {
            folder: configuration
                .folder
                .existing_folder("the folder of the images")?,
            store: configuration.store.existing_folder("a folder for copies")?,
            name: name.into_inner(),
        })
    }

    fn describe(&self) -> String {
        self.folder.join(&self.name).display().to_string()
    }

    async fn image(&self, request: &ImageRequest<'_>) -> Result<Image> {
        request.stop().check("copy the image")?;
        let (source, store) = (self.folder.join(&self.name), self.store.clone());
        let (progress, stop) = (request.reporter(), request.stop().clone());
        // Files block, so not on an async thread; the copy itself looks at the stop.
        let copying = move || copy(&source, &store, &progress, &stop);
        let path = tokio::task::spawn_blocking(copying)
            .await
            .map_err(|failed| {
                Error::new(ErrorKind::Internal, "the copy failed").caused_by(failed)
            })??;
        Ok(Image::stored(path))
    }
}

/// Copies the image into the store, unless this version is there already. What is half done has another name,
/// that of nobody else, and goes whatever happens; the rename makes it the image in one step.
fn copy(
    source: &Path,
    store: &Path,
    progress: &ImageProgress,
    stop: &StopToken,
) -> Result<PathBuf> {
    let name = source.file_name().unwrap_or_default().to_string_lossy();
    let failed = |what: &'static str| {
        move |error: io::Error| Error::io(what, error).subject(source.display())
    };
    let mut from = File::open(source).map_err(|error| {
        failed("the folder has no such image")(error).advice("list the folder for its images")
    })?;
    let found = from.metadata().map_err(failed("it cannot be looked at"))?;
    let changed = found.modified().unwrap_or(SystemTime::UNIX_EPOCH);
    let age = changed
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let image = store.join(format!("{name}.{}.{}", found.len(), age.as_nanos()));
    if image.exists() {
        return Ok(image);
    }
    let partial = Partial(store.join(format!(".{}", Identifier::random())));
    let mut to = File::create_new(&partial.0).map_err(failed("the store cannot be written"))?;
    let total = Some(found.len());
    progress.phase(ImagePhase::Fetching, total);
    let (mut piece, mut done) = (vec![0; 64 << 10], 0);
    loop {
        stop.check("copy the image")?;
        let count = from.read(&mut piece).map_err(failed("it cannot be read"))?;
        if count == 0 {
            break;
        }
        to.write_all(&piece[..count])
            .map_err(failed("the store cannot be written"))?;
        done += count as u64;
        progress.report(done.min(found.len()), total);
    }
    if done != found.len() {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "the image changed while it was copied",
        )
        .subject(source.display())
        .advice("ask again once it is complete"));
    }
    to.sync_all()
        .and_then(|()| fs::rename(&partial.0, &image))
        .map_err(failed("the store cannot be written"))?;
    Ok(image)
}

/// A file that is removed again, unless it was renamed before.
struct Partial(PathBuf);

impl Drop for Partial {
    fn drop(&mut self) {
        // It is gone where all went well.
        let _ = fs::remove_file(&self.0);
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(name)) = (arguments.next(), arguments.next()) else {
        return Err(Error::new(ErrorKind::Configuration, "expected FOLDER NAME"));
    };
    let store = std::env::temp_dir().join(format!("see-shelf-{}", std::process::id()));
    let failed = |error| Error::io("the store cannot be made or removed", error);
    fs::create_dir(&store).map_err(failed)?;
    let mut registries = Registries::new();
    registries.images.add::<Shelf>()?;
    let section = serde_json::json!({
        "provider": "shelf", "name": name,
        "provider_configuration": { "folder": folder, "store": store },
    });
    let source = registries
        .images
        .prepare(&Configuration::from_json(section))?;
    // Who asks is an environment; its record would name what a provider makes on the host.
    let ledger = Ledger::open(store.join("ledger")).await?;
    let record = ledger.begin(Identifier::random(), "an example").await?;
    let stop = Stop::new();
    let image = source
        .image(&ImageRequest::new(&record, &stop.token()))
        .await?;
    println!("{}", image.path.display());
    record.close().await?;
    fs::remove_dir_all(&store).map_err(failed)
}

#[cfg(test)]
mod tests {
    use see_core::testing::conformance::Verdict;
    use see_core::testing::providers::{self, ImageCandidate};
    use serde_json::Value;
    use tempfile::TempDir;

    use super::*;

    /// The provider with a folder that the suite fills.
    #[derive(Debug)]
    struct Candidate(TempDir);

    impl Candidate {
        fn source(&self, name: &str) -> PathBuf {
            self.0.path().join("source").join(name)
        }
    }

    #[async_trait]
    impl ImageCandidate for Candidate {
        fn registries(&self) -> Result<Registries> {
            let mut registries = Registries::new();
            registries.images.add::<Shelf>()?;
            Ok(registries)
        }

        fn section(&self, name: &str) -> Value {
            let folder = |name| self.0.path().join(name);
            serde_json::json!({
                "provider": "shelf", "name": name,
                "provider_configuration": { "folder": folder("source"), "store": folder("store") },
            })
        }

        async fn put(&self, name: &str, content: &[u8]) -> Result<()> {
            fs::write(self.source(name), content).map_err(|error| Error::io("put", error))
        }

        async fn remove(&self, name: &str) -> Result<()> {
            fs::remove_file(self.source(name)).map_err(|error| Error::io("remove", error))
        }

        fn malformed(&self) -> Vec<Value> {
            vec![serde_json::json!({
                "provider": "shelf", "name": "../../etc/passwd",
                "provider_configuration": { "folder": self.0.path(), "store": self.0.path() },
            })]
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_outsiders_provider_passes_the_conformance_suite() {
        let folder = TempDir::new().unwrap();
        for name in ["source", "store"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let report = providers::run(Candidate(folder)).await;
        report.assert_passed();
        // It makes nothing that the ledger should know of, is given no secret, and its source, a folder,
        // neither lies nor stalls.
        let rest = ["spoiled", "unreachable", "stalled", "failing", "secrets"];
        for finding in report.findings() {
            let shown = matches!(finding.verdict, Verdict::Passed(_));
            assert!(shown || rest.contains(&finding.name), "{report}");
        }
    }
}

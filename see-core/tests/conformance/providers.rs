//! The suite of image providers can fail: each of these is wrong in one way, and the check that is meant for it
//! says so.

use std::fs;
use std::path::PathBuf;

use async_trait::async_trait;
use see_core::config::Located;
use see_core::ledger::Resource;
use see_core::testing::conformance::Verdict;
use see_core::testing::providers::{self, ImageCandidate};
use see_core::{
    Error, Identifier, Image, ImagePhase, ImageProvider, ImageRequest, Registries, Result,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

/// What is wrong with the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Flaw {
    None,
    Short,
    Elsewhere,
    Rewritten,
    Stale,
    Silent,
    Leaky,
    Deaf,
    Littering,
    Boasting,
    Talkative,
    Logging,
    Described,
}

/// Copies from a folder into another one, with a flaw.
struct Flawed {
    settings: Settings,
    name: String,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    folder: PathBuf,
    flaw: Flaw,
    password: String,
}

#[async_trait]
impl ImageProvider for Flawed {
    const NAME: &'static str = "flawed";
    type Configuration = Settings;

    fn prepare(settings: Settings, name: Option<Located<String>>) -> Result<Self> {
        let name = name.map(Located::into_inner).unwrap_or_default();
        Ok(Self { settings, name })
    }

    fn describe(&self) -> String {
        match self.settings.flaw {
            Flaw::Described => format!("http://user:{}@host/", self.settings.password),
            _ => self.name.clone(),
        }
    }

    async fn image(&self, request: &ImageRequest<'_>) -> Result<Image> {
        let Settings {
            folder,
            flaw,
            password,
        } = &self.settings;
        let source = folder.join("source").join(&self.name);
        let image = folder.join("store").join(&self.name);
        let failed = |error| Error::io("the image cannot be had", error);
        if *flaw == Flaw::Logging {
            tracing_line(password);
        }
        let mark = Resource::folder(folder.join("store"), format!(".{}", request.identifier()))?;
        let entry = match request.record().intend_one(mark).await {
            Err(_) if *flaw == Flaw::Deaf => None,
            other => Some(other?),
        };
        if *flaw != Flaw::Deaf {
            request.stop().check("get the image")?;
        }
        if let Some(entry) = entry {
            entry.create_folder().await?;
            // Without its entry, nobody finds it any more.
            if *flaw != Flaw::Littering {
                let made = entry.path().unwrap_or_default();
                fs::remove_dir(made).map_err(failed)?;
            }
            entry.gone().await?;
        }
        let mut bytes = fs::read(&source).map_err(|error| match flaw {
            Flaw::Silent => failed(error),
            Flaw::Talkative => failed(error).advice(format!("is the password {password} right?")),
            _ => failed(error).advice("look into the folder"),
        })?;
        match flaw {
            Flaw::Short => bytes.truncate(bytes.len() / 2),
            Flaw::Stale if image.exists() => return Ok(Image::stored(image)),
            Flaw::Elsewhere => {
                let path = folder.join("store").join(Identifier::random().to_string());
                fs::write(&path, bytes).map_err(failed)?;
                return Ok(Image::stored(path));
            }
            _ => {}
        }
        let total = bytes.len() as u64;
        request.phase(ImagePhase::Fetching, Some(total));
        let boast = u64::from(*flaw == Flaw::Boasting);
        request.progress(total + boast, Some(total));
        let there = fs::read(&image).unwrap_or_default();
        if there != bytes || *flaw == Flaw::Rewritten {
            let partial = folder.join("store").join(Identifier::random().to_string());
            fs::write(&partial, bytes).map_err(failed)?;
            fs::rename(partial, &image).map_err(failed)?;
        }
        if *flaw == Flaw::Leaky {
            let left = folder.join("store").join(request.identifier().to_string());
            fs::write(left, "").map_err(failed)?;
        }
        Ok(Image::stored(image))
    }
}

fn tracing_line(password: &str) {
    tracing::trace!(password, "logs in");
}

#[derive(Debug)]
struct Suspect {
    folder: TempDir,
    flaw: &'static str,
}

const PASSWORD: &str = "a-password-of-the-suite";

#[async_trait]
impl ImageCandidate for Suspect {
    fn registries(&self) -> Result<Registries> {
        let mut registries = Registries::new();
        registries.images.add::<Flawed>()?;
        Ok(registries)
    }

    fn section(&self, name: &str) -> Value {
        let folder = self.folder.path();
        json!({ "provider": "flawed", "name": name, "provider_configuration": {
            "folder": folder, "flaw": self.flaw, "password": PASSWORD } })
    }

    async fn put(&self, name: &str, content: &[u8]) -> Result<()> {
        let source = self.folder.path().join("source").join(name);
        fs::write(source, content).map_err(|error| Error::io("put", error))
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let source = self.folder.path().join("source").join(name);
        fs::remove_file(source).map_err(|error| Error::io("remove", error))
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.to_owned()]
    }

    async fn remains(&self, identifier: Identifier) -> Vec<String> {
        crate::fake::remains(self.folder.path().join("store"), identifier)
    }
}

fn suspect(flaw: &'static str) -> Suspect {
    let folder = TempDir::new().unwrap();
    for name in ["source", "store"] {
        fs::create_dir(folder.path().join(name)).unwrap();
    }
    Suspect { folder, flaw }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_without_a_flaw_passes() {
    let report = providers::run(suspect("None")).await;
    report.assert_passed();
    let unable = ["spoiled", "unreachable", "stalled"];
    for finding in report.findings() {
        let shown = matches!(finding.verdict, Verdict::Passed(_));
        assert!(shown || unable.contains(&finding.name), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_flaw_of_a_provider_fails_the_check_that_is_meant_for_it() {
    for (flaw, check, told) in [
        ("Short", "image", "the source's image 1500000"),
        ("Elsewhere", "again", "then"),
        ("Rewritten", "again", "became"),
        ("Stale", "changed", "the source's image 210000"),
        ("Silent", "missing", "nothing of what would be right"),
        ("Leaky", "image", "left behind"),
        ("Deaf", "failing", "refused to write"),
        ("Littering", "image", "left behind"),
        ("Boasting", "progress", "more done than there is"),
        ("Talkative", "secrets", "missing: "),
        ("Logging", "secrets", "<the secret>"),
        ("Described", "secrets", "http://user:<the secret>@host/"),
    ] {
        let report = providers::run_only(suspect(flaw), |name| name == check).await;
        let verdict = report.verdict(check);
        match verdict {
            Some(Verdict::Failed(why)) => assert!(why.contains(told), "{flaw}: {why}"),
            other => panic!("{flaw}: {other:?}"),
        }
        let said = report.to_string();
        assert!(!said.contains(PASSWORD), "the report tells it: {said}");
    }
}

//! Images as a program asks the providers for them, and as a user does.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use see_core::config::Configuration;
use see_core::ledger::{Ledger, Record};
use see_core::{
    Identifier, Image, ImagePhase, ImageProgress, ImageRequest, ImageSource, Registries, Result,
    Stop,
};
use see_tests::{Home, Outcome};
use serde_json::{Value, json};

/// The longest that one image may take on a busy host.
pub(crate) const PULL: Duration = Duration::from_secs(360);

/// Somebody who asks for images: with a store, a ledger and a stop of its own.
pub(crate) struct Desk {
    home: Home,
    registries: Registries,
    record: Record,
    stop: Stop,
}

impl Desk {
    /// A new one, whose store is empty.
    pub(crate) fn new() -> Self {
        let home = Home::new();
        let mut registries = Registries::new();
        see_image_providers::register(&mut registries).expect("no name is there twice");
        let ledger = Ledger::open_blocking(home.path("state")).expect("the home is writable");
        let record = ledger
            .begin_blocking(Identifier::random(), "images")
            .expect("the home is writable");
        Self {
            home,
            registries,
            record,
            stop: Stop::new(),
        }
    }

    /// Where its store is.
    pub(crate) fn store(&self) -> PathBuf {
        self.home.path("store")
    }

    /// The provider that the section of an image names. The store is this one's, whatever the section says of it.
    pub(crate) fn source(&self, section: &Value) -> Result<ImageSource> {
        let mut section = section.clone();
        let configuration = &mut section["provider_configuration"];
        if configuration.is_null() {
            *configuration = json!({});
        }
        if configuration["cache"].is_null() {
            configuration["cache"] = json!({});
        }
        configuration["cache"]["folder"] = json!(self.store());
        let place = self.home.path("run.json");
        let section = Configuration::from_str(place, &section.to_string())?;
        self.registries.images.prepare(&section)
    }

    /// The image of a section such as `{"provider": "http", "uri": …}`.
    pub(crate) async fn pull(&self, section: &Value) -> Result<Image> {
        self.pull_telling(section, ImageProgress::new()).await
    }

    /// The same, told how far it is.
    ///
    /// # Panics
    /// When it is not there in time.
    pub(crate) async fn pull_telling(
        &self,
        section: &Value,
        progress: ImageProgress,
    ) -> Result<Image> {
        let source = self.source(section)?;
        let listener = progress.listen();
        let stop = self.stop.token();
        let request = ImageRequest::new(&self.record, &stop).with_progress(progress);
        let pulled = tokio::time::timeout(PULL, source.image(&request)).await;
        pulled.unwrap_or_else(|_| {
            let report = *listener.borrow();
            panic!("waited {PULL:?} for {section}, and it is at {report:?}")
        })
    }

    /// The same, while `act` is done as soon as so many bytes of the image are there.
    pub(crate) async fn pull_while(
        &self,
        section: &Value,
        bytes: u64,
        act: impl Future<Output = ()>,
    ) -> Result<Image> {
        let progress = ImageProgress::new();
        let mut listener = progress.listen();
        let acting = async {
            let reached = listener
                .wait_for(|report| report.phase == ImagePhase::Fetching && report.done >= bytes)
                .await
                .is_ok();
            if reached {
                act.await;
            }
            reached
        };
        let (image, reached) = tokio::join!(self.pull_telling(section, progress), acting);
        // One that failed before says why.
        let is_early = image.is_ok() && !reached;
        assert!(!is_early, "{bytes} bytes come before the end: {section}");
        image
    }
}

/// Somebody who pulls an image with `seectl`, with a home and a store of its own.
pub(crate) struct User {
    home: Home,
}

impl User {
    /// One who wants the image of this section.
    pub(crate) fn of(section: &Value) -> Self {
        let home = Home::new();
        let user = Self { home };
        user.want(section);
        user
    }

    /// From now on another image.
    pub(crate) fn want(&self, section: &Value) {
        let run = json!({ "version": 1, "context": { "disk": { "image": section } } });
        self.home.write("run.json", run.to_string());
    }

    /// Where the store is; made by the first pull.
    pub(crate) fn store(&self) -> PathBuf {
        self.home.path("store")
    }

    /// Makes a folder of the store, and those above it, as the store wants them: closed to others.
    pub(crate) fn make(&self, folder: &Path) {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.expect("the home is writable");
    }

    /// The folder around the store.
    pub(crate) fn home(&self) -> &Home {
        &self.home
    }

    /// The command that pulls it.
    pub(crate) fn pull(&self) -> Command {
        let mut command = self.home.seectl();
        command
            .args(["image", "pull", "run.json", "--output", "json"])
            .env("SEE_IMAGE_STORE", self.store());
        command
    }

    /// The pull, begun by a shell whose mounts nobody else sees: `"$0" "$@"` in its script.
    pub(crate) fn pull_within(&self, script: &str) -> Command {
        assert!(
            rustix::process::geteuid().is_root(),
            "a test's own mounts need root: run `sudo -E cargo xtask test`"
        );
        let pull = self.pull();
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "sh", "-ec", script])
            .arg(pull.get_program())
            .args(pull.get_args());
        self.home.furnish(&mut command);
        command.env("SEE_IMAGE_STORE", self.store());
        command
    }

    /// The pull on a host that knows no names but these, and knows them as its own.
    pub(crate) fn pull_knowing(&self, names: &str) -> Command {
        self.home.write("hosts", format!("127.0.0.1 {names}\n"));
        self.pull_within("mount --bind hosts /etc/hosts; exec \"$0\" \"$@\"")
    }
}

/// The path that a pull gave.
pub(crate) fn pulled_path(outcome: &Outcome) -> PathBuf {
    let result = outcome.result();
    let result = result.get("result").unwrap_or(&result);
    let path = result["images"][0]["path"].as_str();
    PathBuf::from(path.unwrap_or_else(|| panic!("no path in {outcome:#?}")))
}

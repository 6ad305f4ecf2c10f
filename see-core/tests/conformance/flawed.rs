//! A backend around the fake that is wrong in one way.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use see_core::config::Configuration;
use see_core::ledger::{CollectRequest, Collected, Collector, Resource};
use see_core::testing::{FakeBackend, FakeConfiguration, FakeControl};
use see_core::{
    Address, Allocation, Backend, ChangeSender, Driver, Error, ErrorKind, GuestChannel, Identifier,
    Picture, Preparation, Result, SandboxState, Screenshot, Stop,
};
use serde::Deserialize;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Flaw {
    /// It makes a folder that it removes at the release, and writes it down nowhere.
    UnwrittenFolder,
    /// It makes a folder that it never removes.
    LeakedFolder,
    /// It never looks at its stop.
    BlindToStop,
    /// It looks at its stop, and goes on.
    DefiesStop,
    /// Where a folder has the name that it wants, it takes that.
    TakesDirtyFolder,
    /// All its machines have the same folder.
    SharedFolder,
    /// It makes something that nobody knows how to collect.
    UnknownKind,
    /// It claims pictures, and takes none.
    LiesAboutPictures,
    /// It claims pictures once it runs.
    NewClaims,
    /// Its machine always seems to run.
    AlwaysRuns,
    /// It says that it suspends, and does not.
    FalseSuspend,
    /// A start of a running machine switches it off.
    TogglesPower,
    /// A resume of a running machine suspends it.
    TogglesPause,
    /// It tells its watchers nothing.
    Silent,
    /// Its guest never obeys.
    Deaf,
    /// The first release never ends.
    EndlessRelease,
    /// Its collector fails for what is gone.
    CollectsOnce,
    /// It cannot release a machine that is off.
    ReleasesOnlyTheLiving,
    /// It tells one in ten machines whose power is cut as crashed.
    CrashesAtTheCut,
    /// A start fails, and leaves it neither on nor off.
    HalfStarted,
    /// A start of a running machine starts a second one, of which it forgets the first.
    StartsSecondMachine,
    /// Its machine starts a process that outlives it.
    LeavesChild,
}

#[derive(Debug, Deserialize)]
pub(crate) struct FlawedConfiguration {
    folder: PathBuf,
    flaw: Flaw,
}

#[derive(Debug)]
pub(crate) struct Flawed(FlawedConfiguration);

#[async_trait]
impl Backend for Flawed {
    const NAME: &'static str = "flawed";
    type Configuration = FlawedConfiguration;

    async fn prepare(
        configuration: FlawedConfiguration,
        _preparation: &Preparation<'_>,
    ) -> Result<Self> {
        Ok(Self(configuration))
    }

    async fn allocate(&self, allocation: &Allocation) -> Result<Box<dyn Driver>> {
        let FlawedConfiguration { folder, flaw } = &self.0;
        let extra = folder.join(format!("extra-{}", allocation.identifier));
        match flaw {
            Flaw::UnwrittenFolder | Flaw::LeakedFolder => {
                std::fs::create_dir(&extra).expect("the folder is writable");
            }
            Flaw::TakesDirtyFolder if !extra.exists() => {
                let name = extra.file_name().unwrap_or_default();
                let resource = Resource::folder(folder, Path::new(name))?;
                let made = allocation.record.intend_one(resource).await?;
                made.create_folder().await?;
            }
            Flaw::SharedFolder => std::fs::create_dir(folder.join("shared"))
                .map_err(|error| Error::io("the shared folder cannot be made", error))?,
            Flaw::UnknownKind => {
                let resource = Resource::new("mystery", "a thing", "somewhere");
                let _ = allocation.record.intend_one(resource).await?;
            }
            Flaw::CollectsOnce => {
                let resource = Resource::new(Once.kind(), extra.to_string_lossy(), "here");
                let _ = allocation.record.intend_one(resource).await?;
                std::fs::create_dir(&extra).expect("the folder is writable");
            }
            _ => {}
        }
        let never = Stop::new();
        let mut allocation = allocation.clone();
        if *flaw == Flaw::DefiesStop {
            let _ = allocation.stop.is_stopped();
        }
        if matches!(flaw, Flaw::BlindToStop | Flaw::DefiesStop) {
            allocation.stop = never.token();
        }
        if *flaw == Flaw::Silent {
            allocation.changes = ChangeSender::new();
        }
        let mut inner = FakeConfiguration::new(folder);
        inner.deaf = *flaw == Flaw::Deaf;
        let made = FakeBackend::new(inner).allocate(&allocation).await;
        if made.is_err() && *flaw == Flaw::SharedFolder {
            let _ = std::fs::remove_dir(folder.join("shared"));
        }
        Ok(Box::new(Wrong {
            inner: made?,
            flaw: *flaw,
            extra,
            started: AtomicBool::new(false),
            cuts: AtomicUsize::new(0),
            identifier: allocation.identifier,
            process: Mutex::default(),
        }))
    }
}

#[derive(Debug)]
struct Wrong {
    inner: Box<dyn Driver>,
    flaw: Flaw,
    extra: PathBuf,
    started: AtomicBool,
    cuts: AtomicUsize,
    identifier: Identifier,
    /// The process that it knows of.
    process: Mutex<Option<Child>>,
}

impl Wrong {
    fn control(&self) -> &FakeControl {
        let native = self.inner.native().and_then(|native| native.downcast_ref());
        native.expect("it is a fake")
    }

    /// Starts a process, which would end by itself long after the test.
    fn spawn(&self) {
        let child = Command::new("sleep")
            .arg("60")
            .env("FLAWED_MACHINE", self.identifier.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        *self.process.lock().expect("no holder panics") = Some(child.expect("it starts"));
    }

    fn kill(&self) {
        if let Some(mut child) = self.process.lock().expect("no holder panics").take() {
            child
                .kill()
                .and_then(|()| child.wait())
                .expect("it is killed");
        }
    }
}

#[async_trait]
impl Driver for Wrong {
    async fn state(&self) -> Result<SandboxState> {
        match self.flaw {
            Flaw::AlwaysRuns => Ok(SandboxState::Running),
            _ => self.inner.state().await,
        }
    }

    async fn start(&self) -> Result<()> {
        self.started.store(true, Ordering::SeqCst);
        match self.flaw {
            Flaw::TogglesPower if self.inner.state().await? == SandboxState::Running => {
                self.inner.destroy().await
            }
            Flaw::HalfStarted => {
                self.control().guest_becomes(SandboxState::ShuttingDown);
                Err(Error::new(ErrorKind::Hypervisor, "it is stuck"))
            }
            Flaw::StartsSecondMachine | Flaw::LeavesChild => {
                self.spawn();
                self.inner.start().await
            }
            _ => self.inner.start().await,
        }
    }

    async fn destroy(&self) -> Result<()> {
        let cuts = self.cuts.fetch_add(1, Ordering::SeqCst);
        if self.flaw == Flaw::CrashesAtTheCut && cuts % 10 == 9 {
            self.control().guest_becomes(SandboxState::Crashed);
        }
        if self.flaw == Flaw::StartsSecondMachine {
            self.kill();
        }
        self.inner.destroy().await
    }

    async fn suspend(&self) -> Result<()> {
        match self.flaw {
            Flaw::FalseSuspend => Ok(()),
            _ => self.inner.suspend().await,
        }
    }

    async fn resume(&self) -> Result<()> {
        match self.flaw {
            Flaw::TogglesPause if self.inner.state().await? == SandboxState::Running => {
                self.inner.suspend().await
            }
            _ => self.inner.resume().await,
        }
    }

    async fn shutdown(&self) -> Result<()> {
        self.inner.shutdown().await
    }

    async fn reboot(&self) -> Result<()> {
        self.inner.reboot().await
    }

    async fn addresses(&self) -> Result<Vec<Address>> {
        self.inner.addresses().await
    }

    fn has_network(&self) -> bool {
        self.inner.has_network()
    }

    async fn release(&self) -> Result<()> {
        match self.flaw {
            Flaw::EndlessRelease => std::future::pending().await,
            Flaw::ReleasesOnlyTheLiving if self.inner.state().await?.is_off() => {
                return Err(Error::new(ErrorKind::Hypervisor, "it does not run"));
            }
            Flaw::UnwrittenFolder => drop(std::fs::remove_dir(&self.extra)),
            Flaw::SharedFolder => {
                drop(std::fs::remove_dir(self.extra.with_file_name("shared")));
            }
            Flaw::StartsSecondMachine => self.kill(),
            _ => {}
        }
        self.inner.release().await
    }

    fn screenshot(&self) -> Option<&dyn Screenshot> {
        match self.flaw {
            Flaw::LiesAboutPictures => Some(self),
            Flaw::NewClaims if !self.started.load(Ordering::SeqCst) => None,
            _ => self.inner.screenshot(),
        }
    }

    fn guest_channel(&self) -> Option<&dyn GuestChannel> {
        self.inner.guest_channel()
    }

    fn disks(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    fn native(&self) -> Option<&dyn Any> {
        self.inner.native()
    }
}

#[async_trait]
impl Screenshot for Wrong {
    async fn take(&self) -> Result<Picture> {
        Err(Error::unsupported("a picture"))
    }
}

/// Removes a folder, and fails where there is none any more.
#[derive(Debug)]
pub(crate) struct Once;

#[async_trait]
impl Collector for Once {
    fn kind(&self) -> &str {
        "once"
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        std::fs::remove_dir(&request.resource.name)
            .map(|()| Collected::Removed)
            .map_err(|error| Error::io("it failed for what is gone", error))
    }
}

/// A backend that takes every configuration.
#[derive(Debug)]
pub(crate) struct Careless(FakeBackend);

#[async_trait]
impl Backend for Careless {
    const NAME: &'static str = "careless";
    type Configuration = Configuration;

    async fn prepare(configuration: Configuration, _: &Preparation<'_>) -> Result<Self> {
        let folder = configuration.get("folder");
        let folder = folder.and_then(Configuration::as_str).unwrap_or("/nowhere");
        Ok(Self(FakeBackend::new(FakeConfiguration::new(folder))))
    }

    async fn allocate(&self, allocation: &Allocation) -> Result<Box<dyn Driver>> {
        self.0.allocate(allocation).await
    }
}

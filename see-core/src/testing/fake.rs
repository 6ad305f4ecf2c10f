//! A backend without a hypervisor. What it "makes" are real folders, written down in the ledger like
//! anything else, so that a leak is a folder that is still there.

mod fault;

use std::any::Any;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;
use tokio::sync::Notify;

pub use self::fault::{Fault, FaultAt};
use crate::config::{Configuration, DurationValue};
use crate::ledger::Resource;
use crate::sync::lock;
use crate::{
    Address, Allocation, Backend, ChangeSender, ChannelStream, Closed, Driver, Error, ErrorKind,
    GuestChannel, ImageSource, Isolation, Machine, Meter, Picture, Preparation, Result,
    SandboxChange, SandboxState, Screenshot, StopToken, Usage,
};

/// The configuration of the fake backend.
#[derive(Debug, Clone, Deserialize)]
pub struct FakeConfiguration {
    /// An existing folder, in which one folder is made for each resource.
    pub folder: PathBuf,
    /// What goes wrong, at which step.
    #[serde(default)]
    pub faults: BTreeMap<FaultAt, Fault>,
    /// How long a stalled step waits. 60 s.
    pub stall: Option<DurationValue>,
    /// Whether the guest ignores a shutdown.
    #[serde(default)]
    pub deaf: bool,
    /// Whether the guest has a network, and with it the address 192.0.2.1.
    #[serde(default)]
    pub network: bool,
    /// Whether there are walls around that network.
    #[serde(default)]
    pub walls: bool,
    /// An image section: the image is asked for by each allocation, as by a real backend, and nothing is
    /// done with it.
    pub image: Option<Configuration>,
}

impl FakeConfiguration {
    /// A backend that makes its folders in `folder` and never fails.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            faults: BTreeMap::new(),
            stall: None,
            deaf: false,
            network: false,
            walls: false,
            image: None,
        }
    }

    /// The same with a fault.
    #[must_use]
    pub fn fault(mut self, at: FaultAt, fault: Fault) -> Self {
        self.faults.insert(at, fault);
        self
    }
}

/// A backend without a hypervisor; its name in configurations is `fake`.
#[derive(Debug)]
pub struct FakeBackend {
    configuration: FakeConfiguration,
    image: Option<ImageSource>,
}

impl FakeBackend {
    /// A backend that behaves like this. It asks for no image: only one that is prepared knows where from.
    pub fn new(configuration: FakeConfiguration) -> Self {
        Self {
            configuration,
            image: None,
        }
    }
}

#[async_trait]
impl Backend for FakeBackend {
    const NAME: &'static str = "fake";
    type Configuration = FakeConfiguration;

    async fn prepare(
        configuration: FakeConfiguration,
        preparation: &Preparation<'_>,
    ) -> Result<Self> {
        let image = configuration.image.as_ref();
        let image = image
            .map(|section| preparation.image(section))
            .transpose()?;
        Ok(Self {
            configuration,
            image,
        })
    }

    async fn allocate(&self, allocation: &Allocation) -> Result<Box<dyn Driver>> {
        if let Some(image) = &self.image {
            image.image(&allocation.image_request()).await?;
        }
        let control = FakeControl(Arc::new(Inner {
            configuration: self.configuration.clone(),
            world: Mutex::new(World {
                state: SandboxState::Shutoff,
                faults: self.configuration.faults.clone(),
                calls: Vec::new(),
                picture: None,
                usage: Usage::default(),
                dial: None,
                disk: None,
                closed: None,
            }),
            walls_changed: Notify::new(),
            changes: allocation.changes.clone(),
        }));
        let driver = FakeDriver(control);
        driver.make(allocation).await?;
        Ok(Box::new(driver))
    }
}

type Dial = Box<dyn Fn() -> Box<dyn ChannelStream> + Send + Sync>;

/// The hands of a test inside a fake machine: what [`Machine::native`] of it is.
#[derive(Clone)]
pub struct FakeControl(Arc<Inner>);

struct Inner {
    configuration: FakeConfiguration,
    world: Mutex<World>,
    walls_changed: Notify,
    changes: ChangeSender,
}

struct World {
    state: SandboxState,
    faults: BTreeMap<FaultAt, Fault>,
    calls: Vec<FaultAt>,
    picture: Option<Picture>,
    usage: Usage,
    dial: Option<Dial>,
    disk: Option<PathBuf>,
    closed: Option<Vec<Closed>>,
}

impl std::fmt::Debug for FakeControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeControl")
            .field("state", &lock(&self.0.world).state)
            .finish_non_exhaustive()
    }
}

impl FakeControl {
    /// The control of a machine that the fake backend made.
    pub fn of(machine: &Machine) -> Option<Self> {
        machine.native()?.downcast_ref::<Self>().cloned()
    }

    /// The guest does this to its own power.
    pub fn guest_becomes(&self, state: SandboxState) {
        self.turn_to(state);
    }

    /// The guest restarts by itself.
    pub fn guest_reboots(&self) {
        self.tell(SandboxChange::Rebooted);
    }

    /// From now on this goes wrong at that step; with `None` nothing does.
    pub fn set_fault(&self, at: FaultAt, fault: Option<Fault>) {
        let faults = &mut lock(&self.0.world).faults;
        match fault {
            Some(fault) => faults.insert(at, fault),
            None => faults.remove(&at),
        };
    }

    /// What the screen shows.
    pub fn show(&self, picture: Picture) {
        lock(&self.0.world).picture = Some(picture);
    }

    /// What it takes of the host from now on.
    pub fn takes(&self, usage: Usage) {
        lock(&self.0.world).usage = usage;
    }

    /// What answers at the guest's end of the channel, for each connection.
    pub fn answer(&self, dial: impl Fn() -> Box<dyn ChannelStream> + Send + Sync + 'static) {
        lock(&self.0.world).dial = Some(Box::new(dial));
    }

    /// What the walls have to keep the guest from; from now on it has to prove that.
    pub fn close(&self, closed: Vec<Closed>) {
        lock(&self.0.world).closed = Some(closed);
    }

    /// The walls may have changed, as their watcher hears.
    pub fn change_walls(&self) {
        self.0.walls_changed.notify_one();
    }

    /// Every step that was asked for, in order.
    pub fn calls(&self) -> Vec<FaultAt> {
        lock(&self.0.world).calls.clone()
    }

    fn turn_to(&self, state: SandboxState) {
        lock(&self.0.world).state = state;
        self.tell(SandboxChange::State(state));
    }

    fn tell(&self, change: SandboxChange) {
        self.0.changes.send(change);
    }

    async fn step(&self, at: FaultAt, stop: Option<&StopToken>) -> Result<()> {
        let fault = {
            let mut world = lock(&self.0.world);
            world.calls.push(at);
            world.faults.get(&at).copied()
        };
        match fault {
            None => Ok(()),
            Some(Fault::Fail) => Err(Error::new(
                ErrorKind::Hypervisor,
                format!("the fault injected at {at:?}"),
            )),
            Some(Fault::Panic) => panic!("the panic injected at {at:?}"),
            Some(Fault::Stall) => {
                let stall = self.0.configuration.stall.as_ref();
                let stall = stall.map_or(Duration::from_secs(60), |stall| stall.0);
                match stop {
                    Some(stop) => stop.or("allocate", tokio::time::sleep(stall)).await,
                    None => {
                        tokio::time::sleep(stall).await;
                        Ok(())
                    }
                }
            }
        }
    }
}

#[derive(Debug)]
struct FakeDriver(FakeControl);

impl FakeDriver {
    async fn make(&self, allocation: &Allocation) -> Result<()> {
        let root = &self.0.0.configuration.folder;
        let names =
            FaultAt::ALLOCATION.map(|step| format!("{}-{}", step.folder(), allocation.identifier));
        let resources: Result<Vec<_>> = names
            .iter()
            .map(|name| Resource::folder(root, name))
            .collect();
        let entries = allocation.record.intend(resources?).await?;
        for (step, entry) in FaultAt::ALLOCATION.into_iter().zip(entries) {
            allocation.stop.check("allocate")?;
            self.0.step(step, Some(&allocation.stop)).await?;
            let folder = entry.create_folder().await?;
            lock(&self.0.0.world).disk.get_or_insert(folder);
        }
        Ok(())
    }

    /// Puts another folder in the place of the first, which no collector takes for it.
    fn replace_disk(&self) -> std::io::Result<()> {
        let disk = lock(&self.0.0.world).disk.clone().unwrap_or_default();
        let another = disk.with_extension("another");
        std::fs::create_dir(&another)?;
        std::fs::remove_dir_all(&disk)?;
        std::fs::rename(another, disk)
    }

    async fn change(&self, at: FaultAt, state: SandboxState) -> Result<()> {
        self.0.step(at, None).await?;
        self.0.turn_to(state);
        Ok(())
    }
}

#[async_trait]
impl Driver for FakeDriver {
    async fn state(&self) -> Result<SandboxState> {
        self.0.step(FaultAt::State, None).await?;
        Ok(lock(&self.0.0.world).state)
    }

    async fn start(&self) -> Result<()> {
        self.change(FaultAt::Start, SandboxState::Running).await
    }

    async fn destroy(&self) -> Result<()> {
        self.change(FaultAt::Destroy, SandboxState::Shutoff).await
    }

    async fn suspend(&self) -> Result<()> {
        self.change(FaultAt::Suspend, SandboxState::Paused).await
    }

    async fn resume(&self) -> Result<()> {
        self.change(FaultAt::Resume, SandboxState::Running).await
    }

    async fn shutdown(&self) -> Result<()> {
        self.0.step(FaultAt::Shutdown, None).await?;
        if !self.0.0.configuration.deaf {
            self.0.turn_to(SandboxState::Shutoff);
        }
        Ok(())
    }

    async fn reboot(&self) -> Result<()> {
        self.0.step(FaultAt::Reboot, None).await?;
        self.0.tell(SandboxChange::Rebooted);
        Ok(())
    }

    async fn addresses(&self) -> Result<Vec<Address>> {
        self.0.step(FaultAt::Addresses, None).await?;
        let running = lock(&self.0.0.world).state == SandboxState::Running;
        let address = Address {
            mac: "52:54:00:00:00:01".to_owned(),
            ip: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        };
        Ok(Vec::from_iter(
            (running && self.has_network()).then_some(address),
        ))
    }

    fn has_network(&self) -> bool {
        self.0.0.configuration.network
    }

    async fn release(&self) -> Result<()> {
        self.0.step(FaultAt::Release, None).await?;
        self.0.turn_to(SandboxState::Shutoff);
        if self.0.step(FaultAt::Removal, None).await.is_err() {
            let replaced = self.replace_disk();
            replaced.map_err(|error| Error::io("the disk cannot be replaced", error))?;
        }
        Ok(())
    }

    fn screenshot(&self) -> Option<&dyn Screenshot> {
        Some(self)
    }

    fn guest_channel(&self) -> Option<&dyn GuestChannel> {
        Some(self)
    }

    fn meter(&self) -> Option<&dyn Meter> {
        Some(self)
    }

    fn isolation(&self) -> Option<&dyn Isolation> {
        self.0.0.configuration.walls.then_some(self)
    }

    fn native(&self) -> Option<&dyn Any> {
        Some(&self.0)
    }
}

#[async_trait]
impl Meter for FakeDriver {
    async fn usage(&self) -> Result<Usage> {
        Ok(lock(&self.0.0.world).usage.clone())
    }
}

#[async_trait]
impl Isolation for FakeDriver {
    fn is_verified(&self) -> bool {
        lock(&self.0.0.world).closed.is_some()
    }

    async fn closed(&self) -> Result<Vec<Closed>> {
        let closed = lock(&self.0.0.world).closed.clone();
        Ok(closed.unwrap_or_default())
    }

    async fn check(&self) -> Result<()> {
        let looked = self.0.step(FaultAt::Walls, None).await;
        looked.map_err(|error| Error::new(ErrorKind::Isolation, error.message().to_owned()))
    }

    async fn changed(&self) {
        self.0.0.walls_changed.notified().await;
    }
}

#[async_trait]
impl Screenshot for FakeDriver {
    async fn take(&self) -> Result<Picture> {
        let picture = lock(&self.0.0.world).picture.clone();
        picture.ok_or_else(|| Error::unsupported("a picture of a screen that shows nothing"))
    }
}

#[async_trait]
impl GuestChannel for FakeDriver {
    async fn open(&self) -> Result<Box<dyn ChannelStream>> {
        let world = lock(&self.0.0.world);
        match &world.dial {
            Some(dial) => Ok(dial()),
            None => Err(Error::new(
                ErrorKind::Unavailable,
                "nobody answers in the guest",
            )),
        }
    }
}

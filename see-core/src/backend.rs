//! Hypervisors: what makes machines.

use std::fmt;
use std::sync::Mutex;

use async_trait::async_trait;
use serde::de::DeserializeOwned;

use crate::config::{Configuration, Place};
use crate::image::{ImageRegistry, ImageSource};
use crate::ledger::Record;
use crate::sync::lock;
use crate::{ChangeSender, Driver, Identifier, ImageProgress, ImageRequest, Result, StopToken};

/// A kind of hypervisor that can be named in a configuration.
///
/// [`Backend::prepare`] checks everything that can be checked before the first resource is made;
/// [`Backend::allocate`] then makes a whole machine, or leaves nothing. The example crate in this
/// repository, `see-core/examples/namespaces`, is a complete one, and passes the conformance suite.
#[async_trait]
pub trait Backend: Send + Sync + Sized + 'static {
    /// The name in configurations.
    const NAME: &'static str;
    /// Other names that mean the same.
    const ALIASES: &'static [&'static str] = &[];
    /// The `context` section of the run file, without the keys that name the backend.
    type Configuration: DeserializeOwned + Send;

    /// Whether a context section that names no backend is meant for this one, say by its hypervisor URI.
    fn recognises(context: &Configuration) -> bool {
        let _ = context;
        false
    }

    /// Checks the configuration against the host. Makes nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) and the place, where it cannot work.
    async fn prepare(
        configuration: Self::Configuration,
        preparation: &Preparation<'_>,
    ) -> Result<Self>;

    /// Makes a machine.
    ///
    /// Every resource is [intended](Record::intend) before it is made. The future is never dropped
    /// midway; long steps look at the allocation's `stop`.
    ///
    /// # Errors
    /// After an error core removes what the record still names, by what was recorded of it: a backend undoes
    /// nothing by itself. It [strikes off](crate::ledger::Entry::gone) only what was certainly not made. What cannot
    /// be removed stays in the ledger.
    async fn allocate(&self, allocation: &Allocation) -> Result<Box<dyn Driver>>;
}

/// What a backend may use to prepare.
#[derive(Debug)]
pub struct Preparation<'a> {
    /// The image providers that are known.
    pub images: &'a ImageRegistry,
    /// Where the `context` section stands.
    pub place: Place,
    /// The images that were asked for.
    pub(crate) asked: Mutex<Vec<ImageSource>>,
}

impl Preparation<'_> {
    /// Prepares the provider that an image section names: a path, or an object with `provider`.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) where the section, the provider's name
    /// or its configuration is wrong.
    pub fn image(&self, section: &Configuration) -> Result<ImageSource> {
        let source = self.images.prepare(section)?;
        lock(&self.asked).push(source.clone());
        Ok(source)
    }
}

/// What a backend makes a machine with.
#[derive(Debug, Clone)]
pub struct Allocation {
    /// The environment's identifier: the name of everything that is made.
    pub identifier: Identifier,
    /// The environment's record in the ledger.
    pub record: Record,
    /// Looked at between long steps.
    pub stop: StopToken,
    /// Where it is told how far the fetch of images is.
    pub progress: ImageProgress,
    /// Where the driver tells of the changes of its machine.
    pub changes: ChangeSender,
}

impl Allocation {
    /// An allocation of the environment that the record belongs to; nobody hears of its progress or its changes yet.
    pub fn new(record: Record, stop: StopToken) -> Self {
        Self {
            identifier: record.identifier(),
            record,
            stop,
            progress: ImageProgress::new(),
            changes: ChangeSender::new(),
        }
    }

    /// What an image is asked for with, on behalf of the environment.
    pub fn image_request(&self) -> ImageRequest<'_> {
        ImageRequest::new(&self.record, &self.stop).with_progress(self.progress.clone())
    }
}

/// A backend that is prepared, whatever its type.
pub struct PreparedBackend {
    name: &'static str,
    allocate: Box<dyn Allocate>,
}

#[async_trait]
trait Allocate: Send + Sync {
    async fn allocate(&self, allocation: &Allocation) -> Result<Box<dyn Driver>>;
}

#[async_trait]
impl<T: Backend> Allocate for T {
    async fn allocate(&self, allocation: &Allocation) -> Result<Box<dyn Driver>> {
        Backend::allocate(self, allocation).await
    }
}

impl PreparedBackend {
    /// A backend that is ready to allocate.
    pub fn new<T: Backend>(backend: T) -> Self {
        Self {
            name: T::NAME,
            allocate: Box::new(backend),
        }
    }

    /// The backend's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Makes a machine, as [`Backend::allocate`].
    ///
    /// # Errors
    /// What the backend reports.
    pub async fn allocate(&self, allocation: &Allocation) -> Result<Box<dyn Driver>> {
        self.allocate.allocate(allocation).await
    }
}

impl fmt::Debug for PreparedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PreparedBackend").field(&self.name).finish()
    }
}

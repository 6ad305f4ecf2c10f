//! What a provider gets an image with.

use std::path::Path;

use super::{ImagePhase, ImageProgress};
use crate::ledger::{Record, Resource};
use crate::{Identifier, Result, StopToken};

/// What a provider gets an image with: who wants it, a ledger to write down what is made on the host, a stop
/// to look at, and ears for its progress.
///
/// # What is made on the way
/// What would outlive a killed process, a storage pool say, is [intended](Record::intend) in
/// [`ImageRequest::record`] before it is made, and leaves it once it is gone. A provider's own store of
/// images is not of that kind: it is made to stay, and cares for its own broken pieces.
///
/// # Images that might be removed
/// A provider that removes images by itself, to keep a store small say, must not remove one that somebody
/// uses. It gives each image a folder for its leases, calls [`ImageRequest::lease`] with it before it looks
/// whether the image is there, and removes an image only after the folder for its leases could be removed,
/// which the file system allows for an empty one alone. Leases end with the environment; those of one that
/// is kept or was killed are removed by whoever collects it.
#[derive(Debug, Clone)]
pub struct ImageRequest<'a> {
    record: &'a Record,
    stop: &'a StopToken,
    progress: ImageProgress,
}

impl<'a> ImageRequest<'a> {
    /// A request of the environment with this record; nobody listens to its progress.
    pub fn new(record: &'a Record, stop: &'a StopToken) -> Self {
        Self {
            record,
            stop,
            progress: ImageProgress::new(),
        }
    }

    /// The same, which tells its progress there.
    #[must_use]
    pub fn with_progress(mut self, progress: ImageProgress) -> Self {
        self.progress = progress;
        self
    }

    /// Who wants the image.
    pub fn identifier(&self) -> Identifier {
        self.record.identifier()
    }

    /// Where is written down what is made on the host, before it is made.
    pub fn record(&self) -> &'a Record {
        self.record
    }

    /// Looked at between long steps, and waited for during them.
    pub fn stop(&self) -> &'a StopToken {
        self.stop
    }

    /// Says that a phase begins, with what there is to do where that is known, in bytes.
    pub fn phase(&self, phase: ImagePhase, total: Option<u64>) {
        self.progress.phase(phase, total);
    }

    /// Says how many bytes of the phase are done, of how many where that is known. It costs so little that
    /// it may be said with every piece that arrives.
    pub fn progress(&self, done: u64, total: Option<u64>) {
        self.progress.report(done, total);
    }

    /// The same ears, for tasks that outlive the borrow of the request.
    pub fn reporter(&self) -> ImageProgress {
        self.progress.clone()
    }

    /// Says in `folder`, which exists, that the environment uses what the folder stands for: by an empty
    /// file whose name begins with the identifier. It stays until the environment's sandbox is gone, also when
    /// the environment is kept after its process ended, or its process was killed.
    ///
    /// # Errors
    /// Where the folder is not there, which for a store means that the image was removed just now, or is not
    /// to be written; and as [`Record::intend`].
    pub async fn lease(&self, folder: &Path) -> Result<()> {
        // One environment may use an image for several disks, which are asked for at the same time.
        let name = format!("{}.{}", self.identifier(), Identifier::random());
        let lease = Resource::lease(folder, name)?;
        // Whatever becomes of it, the record knows of it: the environment's end removes it.
        let entry = self.record.intend_one(lease).await?;
        entry.create_file().await.map(drop)
    }
}

//! Where a provider is asked: a ledger of its own, and the eye for what is left.

use std::future::Future;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::candidate::ImageCandidate;
use crate::config::Configuration;
use crate::fault::Faults;
use crate::ledger::{Ledger, Record};
use crate::testing::report::{Outcome, Stumble, ensure};
use crate::testing::suite;
use crate::{
    Error, Identifier, Image, ImageProgress, ImageRequest, ImageSource, Registries, Result, Stop,
};

pub(super) struct Bench {
    pub(super) candidate: Arc<dyn ImageCandidate>,
    pub(super) registries: Registries,
    ledger: Ledger,
    folder: PathBuf,
}

/// One ask.
pub(super) struct Ask {
    pub(super) outcome: Result<Image>,
    record: Record,
}

/// How an ask is made.
#[derive(Default)]
pub(super) struct Way {
    pub(super) stop: Stop,
    pub(super) faults: Faults,
    pub(super) progress: ImageProgress,
}

impl suite::Bench for Bench {
    type Candidate = dyn ImageCandidate;

    fn new(candidate: Arc<dyn ImageCandidate>) -> Outcome<Self> {
        let folder = std::env::temp_dir().join(format!("see-conformance-{}", Identifier::random()));
        let registries = candidate.registries()?;
        Ok(Self {
            candidate,
            registries,
            ledger: Ledger::open_blocking(&folder)?,
            folder,
        })
    }

    /// Heals the source, so that the next check finds it as it should be, and removes the ledger, which must
    /// be empty.
    async fn finish(self: Arc<Self>) -> Outcome<()> {
        let healed = self.candidate.heal().await;
        let left = self.ledger.list().await;
        let removed = std::fs::remove_dir_all(&self.folder);
        healed?;
        let left = left?;
        ensure(left.is_empty(), || {
            format!("{} records are left in the ledger", left.len())
        })?;
        removed.map_err(|error| Error::io("the ledger's folder cannot be removed", error))?;
        Ok(())
    }
}

impl Bench {
    /// Waits for a step, up to the candidate's patience.
    pub(super) async fn within<T>(&self, what: &str, step: impl Future<Output = T>) -> Outcome<T> {
        suite::within(self.candidate.patience(), what, step).await
    }

    /// The provider, prepared for the image of this name.
    pub(super) fn source(&self, name: &str) -> Result<ImageSource> {
        let section = Configuration::from_json(self.candidate.section(name));
        self.registries.images.prepare(&section)
    }

    /// Asks for an image, in a task of its own; what is left of the ask is still in its record.
    pub(super) async fn ask(&self, name: &str, way: Way) -> Outcome<Ask> {
        let ledger = self.ledger.with_faults(way.faults.clone());
        let record = ledger.begin(Identifier::random(), "conformance").await?;
        let source = match self.source(name) {
            Ok(source) => source,
            Err(error) => {
                let outcome = Err(error);
                return Ok(Ask { outcome, record });
            }
        };
        let (lent, stop) = (record.clone(), way.stop.with_faults(way.faults));
        let progress = way.progress;
        let work = tokio::spawn(async move {
            let token = stop.token();
            let request = ImageRequest::new(&lent, &token).with_progress(progress);
            source.image(&request).await
        });
        let ended = self.within("the ask for the image", work).await?;
        let outcome = suite::survived("the provider", ended)?;
        Ok(Ask { outcome, record })
    }

    /// Asks as users do, and looks at what comes: the whole image, as the source has it.
    pub(super) async fn right(&self, name: &str, content: &[u8]) -> Outcome<PathBuf> {
        let ask = self.ask(name, Way::default()).await?;
        let looked = match &ask.outcome {
            Ok(image) => whole(&image.path, content),
            Err(error) => Err(Stumble::Failed(error.chain())),
        };
        self.settle(&ask).await?;
        looked?;
        Ok(ask.outcome.map(|image| image.path)?)
    }

    /// What the end of an environment does: removes what the record still names, and looks whether all of
    /// it is gone.
    pub(super) async fn settle(&self, ask: &Ask) -> Outcome<()> {
        let patience = self.candidate.patience();
        let collectors = &self.registries.collectors;
        let outcomes = ask.record.collect(collectors, patience).await?;
        let left = ask.record.close().await?;
        ensure(left.is_empty(), || {
            let stuck = outcomes.iter().filter(|(_, outcome)| !outcome.is_gone());
            let stuck: Vec<String> = stuck
                .map(|(resource, outcome)| {
                    format!("{} {}: {outcome:?}", resource.kind, resource.name)
                })
                .collect();
            format!("the ledger still holds {}", stuck.join(", "))
        })?;
        let remains = self.candidate.remains(ask.record.identifier());
        let remains = self.within("the look for remains", remains).await?;
        ensure(remains.is_empty(), || {
            format!("left behind: {}", remains.join(", "))
        })
    }
}

/// A file as it must not change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Look {
    inode: u64,
    size: u64,
    written: (i64, i64),
    owner: (u32, u32),
    mode: u32,
}

impl Look {
    pub(super) fn at(path: &Path) -> Outcome<Self> {
        let found = std::fs::metadata(path)
            .map_err(|error| Error::io("the image cannot be looked at", error))?;
        Ok(Self {
            inode: found.ino(),
            size: found.size(),
            written: (found.mtime(), found.mtime_nsec()),
            owner: (found.uid(), found.gid()),
            mode: found.mode(),
        })
    }
}

/// Whether an absolute path leads to a file of this content.
pub(super) fn whole(path: &Path, content: &[u8]) -> Outcome<()> {
    let shown = path.display();
    ensure(path.is_absolute(), || format!("{shown} is not absolute"))?;
    let found = std::fs::symlink_metadata(path)
        .map_err(|error| Error::io("the image is not there", error).subject(shown.to_string()))?;
    ensure(found.is_file(), || format!("{shown} is no regular file"))?;
    let bytes = std::fs::read(path).map_err(|error| Error::io("it cannot be read", error))?;
    ensure(bytes == content, || {
        let differs = bytes.iter().zip(content).position(|(a, b)| a != b);
        format!(
            "{shown} has {} bytes, the source's image {}; they differ from byte {} on",
            bytes.len(),
            content.len(),
            differs.unwrap_or(bytes.len().min(content.len()))
        )
    })
}

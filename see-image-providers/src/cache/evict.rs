//! Making room: what the store no longer needs, the least recently used first.

use std::time::Duration;

use see_core::Result;

use super::digest::Digest;
use super::folder::Folder;
use super::place::is_gone;
use super::record::{CopyRecord, OriginRecord, digest_of};
use super::store::{Folders, Store};

/// How long a download that nobody continues is kept.
const STALE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a collection took away.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// The images that were removed.
    pub images: Vec<Digest>,
    /// How many bytes these had.
    pub image_bytes: u64,
    /// How many downloads that nobody continued were removed.
    pub partials: usize,
    /// How many bytes these had.
    pub partial_bytes: u64,
    /// How many bytes of complete images are left.
    pub left: u64,
    /// How many bytes of the images that are left are in use, so that they stay whatever the limit.
    pub in_use: u64,
}

impl Store {
    /// Takes away downloads that nobody continued for a week, and, where a limit is given, images until what
    /// is left has at most so many bytes: the least recently used first, and never one that an environment
    /// uses. So go records that lead to no image any more: of copies at a `path` that were removed or changed, and of
    /// origins. That of a copy on a disk that is not mounted stays.
    ///
    /// # Errors
    /// Where the store cannot be read or written.
    pub fn collect(&self, limit: Option<u64>) -> Result<Collected> {
        self.collect_now(limit, None)
    }

    /// Takes away every download that broke off, however lately; those that go on stay.
    ///
    /// # Errors
    /// Where the store cannot be read or written.
    pub fn collect_partial(&self) -> Result<Collected> {
        let mut collected = Collected::default();
        self.collect_partials(Duration::ZERO, &mut collected)?;
        Ok(collected)
    }

    /// The same, which spares one image that somebody is about to use.
    pub(crate) fn collect_now(
        &self,
        limit: Option<u64>,
        spared: Option<&Digest>,
    ) -> Result<Collected> {
        let mut collected = Collected::default();
        self.collect_partials(STALE, &mut collected)?;
        self.collect_temporary()?;
        let _lock = self.lock()?;
        self.collect_remains()?;
        let images = self.list()?;
        collected.left = images.iter().map(|image| image.size).sum();
        for image in images {
            let over = limit.is_some_and(|limit| collected.left > limit);
            if over && spared != Some(&image.digest) && self.remove_locked(&image.digest)? {
                collected.left -= image.size;
                collected.image_bytes += image.size;
                collected.images.push(image.digest);
            } else if image.leases > 0 {
                collected.in_use += image.size;
            }
        }
        self.collect_records()?;
        Ok(collected)
    }

    fn collect_partials(&self, stale: Duration, collected: &mut Collected) -> Result<()> {
        let partial = &self.folders().partial;
        let mut keys: Vec<String> = partial
            .names()?
            .into_iter()
            .map(|name| name.split('.').next().unwrap_or_default().to_owned())
            .filter(|key| !key.is_empty())
            .collect();
        keys.dedup();
        for key in keys {
            let files = super::partial::names(&key);
            let youngest = files.iter().filter_map(|name| age(partial, name)).min();
            if youngest.is_some_and(|age| age < stale) {
                continue;
            }
            // Whoever downloads it holds the lock.
            let Some(_lock) = partial.lock(&super::partial::lock_name(&key))? else {
                continue;
            };
            let bytes: u64 = files.iter().map(|name| partial.length(name)).sum();
            for name in &files {
                partial.remove(name)?;
            }
            partial.remove(&super::partial::lock_name(&key))?;
            if youngest.is_some() {
                collected.partials += 1;
                collected.partial_bytes += bytes;
            }
        }
        Ok(())
    }

    /// What a process that was killed while it wrote a record left: a file whose name begins with a dot. The images'
    /// own are collected with them, under the lock.
    fn collect_temporary(&self) -> Result<()> {
        /// Writing one takes no longer.
        const WRITTEN: Duration = Duration::from_secs(60 * 60);
        let folders = self.folders();
        for folder in [&folders.origins, &folders.copies, &folders.partial] {
            for name in folder.names()? {
                if name.starts_with('.') && age(folder, &name).is_some_and(|age| age > WRITTEN) {
                    folder.remove(&name)?;
                }
            }
        }
        Ok(())
    }

    /// What a process that was killed between two steps left: an image without its record, and the reverse.
    fn collect_remains(&self) -> Result<()> {
        let images = &self.folders().images;
        for name in images.names()? {
            match digest_of(name.strip_suffix(".json").unwrap_or(&name)) {
                Some(digest) if self.stored(&digest)?.is_none() => {
                    self.remove_locked(&digest)?;
                }
                None if name.starts_with('.') => images.remove(&name)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Records that lead to nothing: of copies that are no longer there, of origins whose image is neither stored nor
    /// copied, and of origins that an image no longer names since so many others lead to it.
    fn collect_records(&self) -> Result<()> {
        let Folders {
            copies, origins, ..
        } = self.folders();
        let mut copied = Vec::new();
        for name in copies.names()? {
            match copies.record::<CopyRecord>(&name)? {
                Some(record) if is_gone(&record) => copies.remove(&name)?,
                Some(record) => copied.push(record.image),
                None => {}
            }
        }
        for name in origins.names()? {
            let Some(record) = origins.record::<OriginRecord>(&name)? else {
                continue;
            };
            let leads_there = match self.stored(&record.image)? {
                Some(image) => image.origins.contains(&record.shown()),
                None => copied.contains(&record.image),
            };
            if !leads_there {
                origins.remove(&name)?;
            }
        }
        Ok(())
    }
}

/// How long ago a file was last changed.
fn age(folder: &Folder, name: &str) -> Option<Duration> {
    folder.modified(name)?.elapsed().ok()
}

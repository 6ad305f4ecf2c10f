//! Making room: what the store no longer needs, the least recently used first.

use std::time::{Duration, SystemTime};

use see_core::Result;

use super::digest::Digest;
use super::store::Store;

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
    /// uses.
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
            let age = |name: &String| {
                let modified = partial.read(name).ok().flatten()?.metadata().ok()?;
                SystemTime::now()
                    .duration_since(modified.modified().ok()?)
                    .ok()
            };
            let youngest = files.iter().filter_map(age).min();
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
                let age = || {
                    let found = folder.read(&name).ok()??.metadata().ok()?;
                    SystemTime::now()
                        .duration_since(found.modified().ok()?)
                        .ok()
                };
                if name.starts_with('.') && age().is_some_and(|age| age > WRITTEN) {
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
            let base = name.strip_suffix(".json").unwrap_or(&name);
            let is_ours = name.starts_with('.') || super::record::digest_of(base).is_some();
            let is_whole = super::record::digest_of(base)
                .map(|digest| self.stored(&digest))
                .transpose()?
                .flatten()
                .is_some();
            if is_ours && !is_whole {
                match super::record::digest_of(base) {
                    Some(digest) => drop(self.remove_locked(&digest)?),
                    None => images.remove(&name)?,
                }
            }
        }
        Ok(())
    }
}

//! One download from its lock to its place in the store.

use see_core::{Error, ErrorKind, ImageFormat, ImagePhase, Result};
use tokio::sync::Mutex;

use super::Fetch;
use crate::cache::digest::{Algorithm, Digest};
use crate::cache::failure::{no_room, too_large};
use crate::cache::folder::Lock;
use crate::cache::origin::Object;
use crate::cache::partial::{Partial, Plan, Whole};
use crate::cache::record::{ImageRecord, PartialRecord, boot, now};
use crate::cache::transfer::{Login, Room, Transfer};
use crate::cache::{blocking, inspect};

/// What is left free for others by an image whose size is not declared: this, or a tenth of a small disk's room.
const SPARED: u64 = 1 << 30;

/// What became of a download.
pub(super) enum Downloaded {
    /// It is in the store, and leased.
    Image(Digest),
    /// The server has another image by now, or said something wrong about this one.
    Changed(Error),
}

impl Fetch<'_> {
    /// Downloads this version; `continues` what is there of it.
    pub(super) async fn download(
        &self,
        object: &Object,
        lock: Lock,
        continues: bool,
    ) -> Result<Downloaded> {
        let expected: Vec<Digest> = object
            .digests
            .iter()
            .chain(&self.delivery.digests)
            .cloned()
            .collect();
        // What is packed is no larger than what it holds, so that the limit is one of what is sent, too.
        if let (Some(limit), Some(size)) = (self.delivery.max_size, object.size)
            && size > limit
        {
            return Err(too_large(size, limit));
        }
        // Pieces of two versions are told apart by a mark, or in the end by a digest; without either, what comes
        // in one answer alone is sure to be of one.
        let tells_versions = object.validator.is_some() || !expected.is_empty();
        let (partial, room) = self.begin(object, &expected, lock, continues).await?;
        let was_continued = partial.was_continued();
        self.request.phase(ImagePhase::Fetching, object.size);
        self.request.progress(partial.length(), object.size);
        let mut transfer = Transfer {
            origin: self.origin,
            object,
            settings: self.settings,
            request: self.request,
            limit: self.delivery.max_size,
            room,
            total: object.size,
            validator: object.validator.clone(),
            is_pinned: self.delivery.digests.iter().any(Digest::is_strong),
            server: None,
            has_mirrors: false,
            ranges: true,
            login: Mutex::new(Login::default()),
            is_several: self.settings.streams > 1 && tells_versions,
        };
        let (mut partial, ended) = transfer.run(partial).await?;
        let is_all_there = matches!(ended, Ok(None));
        let published = match ended {
            Ok(Some(changed)) => return Ok(Downloaded::Changed(changed)),
            Err(error) => Err(error),
            Ok(None) => {
                let (expected, limit) = (expected.clone(), self.delivery.max_size);
                let looked;
                (partial, looked) = blocking(move || {
                    let looked = look(&mut partial, &expected, limit);
                    Ok((partial, looked))
                })
                .await?;
                match looked {
                    Ok((whole, format)) => self.publish(object, whole, format).await,
                    Err(error) => Err(error),
                }
            }
        };
        let image = match published {
            Ok(image) => image,
            Err(error) => {
                // Of no use to a later try: it is wrong, too large, or fills the disk, whose space others need.
                if matches!(error.kind(), ErrorKind::Guest | ErrorKind::Exhausted) {
                    blocking(move || partial.discard()).await?;
                }
                // What was there before may be what is wrong, or pieces of two mirrors.
                let may_be_mixed = was_continued || (transfer.has_mirrors && continues);
                return match is_all_there && may_be_mixed && error.kind() == ErrorKind::Guest {
                    true => Ok(Downloaded::Changed(error)),
                    false => Err(error),
                };
            }
        };
        let (limit, spared) = (self.settings.limit, image.clone());
        self.on_store(move |store, _| {
            partial.discard()?;
            if limit.is_some() {
                let collected = store.collect_now(limit, Some(&spared))?;
                tracing::info!(?collected, "the image store was kept within its limit");
            }
            Ok(())
        })
        .await?;
        if expected.is_empty() {
            transfer
                .server
                .iter()
                .for_each(crate::client::warn_if_unproven);
        } else if !expected.iter().any(Digest::is_strong) {
            tracing::warn!(
                image = self.identity,
                "nothing but an MD5 or a SHA-1 was promised of the image, which finds accidents and no forgery: \
                 pin a `checksum`"
            );
        }
        Ok(Downloaded::Image(image))
    }

    /// Opens the download; there is room for it.
    async fn begin(
        &self,
        object: &Object,
        expected: &[Digest],
        lock: Lock,
        continues: bool,
    ) -> Result<(Partial, Room)> {
        let mut algorithms: Vec<Algorithm> = expected.iter().map(Digest::algorithm).collect();
        if !algorithms.iter().any(|algorithm| algorithm.is_strong()) {
            algorithms.push(Algorithm::Sha256);
        }
        algorithms.sort_unstable();
        algorithms.dedup();
        let store = self.store.clone();
        let (progress, stop) = (self.request.reporter(), self.request.stop().clone());
        let max_size = self.delivery.max_size;
        let total = object.size;
        let record = PartialRecord {
            identity: self.identity.clone(),
            version: object.version.clone(),
            total,
            boot: boot(),
        };
        let (key, unpack) = (self.key.clone(), self.delivery.unpack);
        blocking(move || {
            let folder = &store.folders().partial;
            let length = folder.length(&key);
            let free = folder.free()?;
            let missing = total.map_or(0, |total| total.saturating_sub(length));
            if missing > free {
                return Err(
                    no_room(length + missing, length + free).subject(store.folder().display())
                );
            }
            let spared = SPARED.min(free / 10);
            let room = Room {
                known: length.saturating_add(free),
                unknown: length.saturating_add(free - spared),
            };
            let limit = max_size.unwrap_or_else(|| free.saturating_sub(missing + spared));
            let plan = Plan {
                key,
                record,
                algorithms,
                unpack,
                limit,
            };
            if length > 0 {
                progress.phase(ImagePhase::Verifying, Some(length));
            }
            let opened = Partial::open(store.clone(), plan, lock, continues, &mut |done| {
                progress.report(done, Some(length));
                !stop.is_stopped()
            });
            Ok((opened?, room))
        })
        .await
    }

    /// Moves a whole image among the others, leased, and writes down what leads to it.
    async fn publish(&self, object: &Object, whole: Whole, format: ImageFormat) -> Result<Digest> {
        let image = whole.digest.clone();
        // The lease comes first, so that the image is never there for the taking.
        let mut tries = 0;
        loop {
            let digest = image.clone();
            self.on_store(move |store, _| store.open_leases(&digest))
                .await?;
            if self.lease(&image).await? {
                break;
            }
            tries += 1;
            if tries > 100 {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    "the image's lease is removed again and again",
                ));
            }
        }
        let record = ImageRecord {
            digest: image.clone(),
            size: whole.size,
            format: format.name().to_owned(),
            completed: now(),
            origins: Vec::new(),
        };
        let name = whole.name;
        self.on_store(move |store, _| store.publish(&name, &record))
            .await?;
        self.learn(object, image.clone(), whole.sent, whole.unpacked)
            .await?;
        Ok(image)
    }
}

/// Compares the digests and looks at the header of an image that is all there.
fn look(
    partial: &mut Partial,
    expected: &[Digest],
    limit: Option<u64>,
) -> Result<(Whole, ImageFormat)> {
    let whole = partial.finish()?;
    for expected in expected {
        let same = |found: &&Digest| found.algorithm() == expected.algorithm();
        match whole.sent.iter().find(same) {
            Some(found) if found == expected => {}
            Some(found) => return Err(wrong(expected, found)),
            None => {
                let message = "a digest that is expected was not computed";
                return Err(Error::new(ErrorKind::Internal, message));
            }
        }
    }
    if let Some(limit) = limit.filter(|limit| whole.size > *limit) {
        return Err(too_large(whole.size, limit));
    }
    let format = inspect::format_of(&partial.open_file(&whole.name)?)?;
    Ok((whole, format))
}

/// The bytes are not those that were promised.
pub(super) fn wrong(expected: &Digest, found: &Digest) -> Error {
    Error::new(
        ErrorKind::Guest,
        format!("the image is not the one that was promised: expected {expected}, found {found}"),
    )
    .advice(
        "it was changed at its server or on its way: compare the digest with whoever publishes it",
    )
}

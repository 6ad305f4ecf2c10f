//! From a question to a path: what is in the store, who downloads, and what is done with the result.

mod download;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use see_core::{Error, ErrorKind, ImagePhase, ImageRequest, Result};

use self::download::Downloaded;
use super::digest::Digest;
use super::failure::too_large;
use super::folder::Lock;
use super::origin::{Object, Origin};
use super::place;
use super::record::{OriginRecord, PartialRecord, key};
use super::settings::{Delivery, Settings, Unpack};
use super::store::{Store, StoredImage, record_name};
use super::{blocking, open, partial};
use crate::client::with_fallback;

/// How often the server may have another image, or take back what it said, before that is an error.
const ROUNDS: usize = 4;
/// How often a waiting process looks whether it is its turn.
const LOOK: Duration = Duration::from_millis(100);
const STEP: &str = "get the image";

struct Fetch<'a> {
    settings: &'a Settings,
    store: Store,
    origin: &'a dyn Origin,
    delivery: &'a Delivery,
    request: &'a ImageRequest<'a>,
    identity: String,
    key: String,
}

pub(super) async fn fetch(
    settings: &Settings,
    origin: &dyn Origin,
    delivery: &Delivery,
    request: &ImageRequest<'_>,
) -> Result<PathBuf> {
    let identity = origin.identity();
    let fetch = Fetch {
        settings,
        store: open(settings.folder.clone()).await?,
        origin,
        delivery,
        request,
        key: key(&identity, delivery.unpack, origin.client().is_insecure()),
        identity,
    };
    fetch.run().await
}

impl Fetch<'_> {
    async fn run(&self) -> Result<PathBuf> {
        if let Some(path) = self.pinned().await? {
            return Ok(path);
        }
        let mut continues = true;
        let mut changed = None;
        for _ in 0..ROUNDS {
            self.request.phase(ImagePhase::Asking, None);
            let object = match self.resolve().await? {
                Ok(object) => object,
                Err(older) => return Ok(older),
            };
            let lock = match self.present_or_turn(&object).await? {
                Ok(path) => return Ok(path),
                Err(lock) => lock,
            };
            match self.download(&object, lock, continues).await? {
                Downloaded::Image(image) => return self.deliver(&image, &object.name).await,
                Downloaded::Changed(error) => {
                    tracing::warn!(error = %error.chain(), "the image is looked for again");
                    changed = Some(error);
                    // What was got of it is not to be believed either.
                    continues = false;
                }
            }
        }
        Err(match changed {
            Some(error) if error.advice_text().is_some() => error,
            Some(error) => error.advice("the server said so again and again"),
            None => Error::new(
                ErrorKind::Unavailable,
                "the image left the store again and again",
            ),
        })
    }

    /// The image that a pinned digest proves, wherever it came from: no server has to be asked.
    async fn pinned(&self) -> Result<Option<PathBuf>> {
        let pins = self.delivery.digests.clone();
        if pins.is_empty() || !pins.iter().all(Digest::is_strong) {
            return Ok(None);
        }
        let unpack = self.delivery.unpack;
        let (known, images) = self
            .on_store(move |store, key| Ok((store.origin(key)?, store.proven(&pins, unpack)?)))
            .await?;
        let path = self.delivery.path.as_deref();
        let name = known.map(|known| known.name).or_else(|| self.origin.name());
        let name = match (name, path) {
            (Some(name), _) => name,
            // Only a folder wants to know it.
            (None, Some(path)) if place::is_folder(path) => return Ok(None),
            (None, _) => String::new(),
        };
        for image in images {
            if let Some(path) = self.give(&image, &name).await? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// What the server has now, or an older image that serves while it cannot be asked.
    async fn resolve(&self) -> Result<Result<Object, PathBuf>> {
        let resolving = self.origin.resolve(self.request.stop());
        let resolved = match self.settings.offline && self.has_older().await? {
            true => with_fallback(resolving).await,
            false => resolving.await,
        };
        let error = match resolved {
            Ok(object) => return Ok(Ok(object)),
            Err(error) => error,
        };
        if self.settings.offline
            && self.origin.older_serves(&error)
            && let Some(path) = self.older(&error).await?
        {
            return Ok(Err(path));
        }
        Err(error)
    }

    /// Whether the image that the identity gave last is here, and is what is pinned.
    async fn has_older(&self) -> Result<bool> {
        let Some(record) = self.on_store(Store::origin).await? else {
            return Ok(false);
        };
        if !self.check_pins(&record.sent).unwrap_or(false) {
            return Ok(false);
        }
        let is_copied = self.copied(&record.image, &record.name).await?.is_some();
        Ok(is_copied || self.stored(&record.image).await?.is_some())
    }

    /// The image that the identity gave last.
    async fn older(&self, error: &Error) -> Result<Option<PathBuf>> {
        let Some(record) = self.on_store(Store::origin).await? else {
            return Ok(None);
        };
        // What is pinned by a digest that was not computed then, nobody can vouch for now.
        if !self.check_pins(&record.sent)? {
            return Ok(None);
        }
        let path = self.give(&record.image, &record.name).await?;
        if path.is_some() {
            tracing::warn!(
                image = self.identity,
                version = record.version,
                error = %error.chain(),
                "an image that was got before serves, since the server cannot give it now"
            );
        }
        Ok(path)
    }

    /// The image, where it is there already; else the right to download it, once others who do are done.
    async fn present_or_turn(&self, object: &Object) -> Result<Result<PathBuf, Lock>> {
        if let Some(path) = self.present(object).await? {
            return Ok(Ok(path));
        }
        // Somebody who makes progress may take long; one who makes none has given up by himself by then.
        let limit = self.settings.patience * 2 + self.settings.stall;
        let mut seen = (None, Instant::now());
        let mut waits = false;
        loop {
            let look = |store: &Store, key: &str| {
                let folder = &store.folders().partial;
                let lock = folder.lock(&partial::lock_name(key))?;
                // Whoever reads again what there is makes nothing longer, and says so here.
                let sign = folder.modified(&partial::lock_name(key));
                let record: Option<PartialRecord> = folder.record(&record_name(key))?;
                let total = record.and_then(|record| record.total);
                Ok((lock, (folder.length(key), sign), total))
            };
            let (lock, state, total) = self.on_store(look).await?;
            if let Some(lock) = lock {
                // Whoever had it may have been done with it.
                return Ok(match self.present(object).await? {
                    Some(path) => Ok(path),
                    None => Err(lock),
                });
            }
            if !waits {
                waits = true;
                self.request.phase(ImagePhase::Waiting, total);
            }
            self.request.progress(state.0, total.or(object.size));
            if seen.0 != Some(state) {
                seen = (Some(state), Instant::now());
            } else if seen.1.elapsed() > limit {
                let what = "another process that downloads the image, and gets no further";
                let lock = self.store.folders().partial.path();
                return Err(Error::timeout(what, limit)
                    .subject(lock.join(partial::lock_name(&self.key)).display())
                    .advice("look what holds that file, and end it"));
            }
            self.request
                .stop()
                .or(STEP, tokio::time::sleep(LOOK))
                .await?;
        }
    }

    /// The image of this version, where it is complete in the store or at its path.
    async fn present(&self, object: &Object) -> Result<Option<PathBuf>> {
        let record = self.on_store(Store::origin).await?;
        if let Some(record) = record.filter(|record| record.version == object.version) {
            return match self.check_pins(&record.sent)? {
                true => self.give(&record.image, &object.name).await,
                false => Ok(None),
            };
        }
        if self.delivery.unpack != Unpack::Never {
            return Ok(None);
        }
        // Other bytes with this digest cannot be made, so it does not matter where they came from.
        for digest in object.digests.iter().filter(|digest| digest.is_strong()) {
            if self.check_pins(std::slice::from_ref(digest))?
                && let Some(path) = self.give(digest, &object.name).await?
            {
                self.learn(object, digest.clone(), vec![digest.clone()], false)
                    .await?;
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Whether what was computed covers what the configuration pins.
    fn check_pins(&self, sent: &[Digest]) -> Result<bool> {
        let mut covers = true;
        for pinned in &self.delivery.digests {
            let found = sent
                .iter()
                .find(|found| found.algorithm() == pinned.algorithm());
            match found {
                Some(found) if found != pinned => return Err(download::wrong(pinned, found)),
                Some(_) => {}
                None => covers = false,
            }
        }
        Ok(covers)
    }

    /// Works on the store, for the key of this identity, where that blocks nobody.
    async fn on_store<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store, &str) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (store, key) = (self.store.clone(), self.key.clone());
        blocking(move || work(&store, &key)).await
    }

    async fn stored(&self, digest: &Digest) -> Result<Option<StoredImage>> {
        let digest = digest.clone();
        self.on_store(move |store, _| store.stored(&digest)).await
    }

    /// The image as it is wanted: the copy at its path, where that is the one that was made of it, whether it is stored
    /// or not; else out of the store. `None` where neither is there, or it was removed just now.
    async fn give(&self, image: &Digest, name: &str) -> Result<Option<PathBuf>> {
        if let Some(copy) = self.copied(image, name).await? {
            return Ok(Some(copy));
        }
        let Some(stored) = self.stored(image).await? else {
            return Ok(None);
        };
        if let Some(limit) = self.delivery.max_size.filter(|limit| stored.size > *limit) {
            return Err(too_large(stored.size, limit));
        }
        if !self.lease(image).await? || self.stored(image).await?.is_none() {
            return Ok(None);
        }
        self.deliver(image, name).await.map(Some)
    }

    /// The copy at the path that is wanted, where it is the one that was made of this image.
    async fn copied(&self, image: &Digest, name: &str) -> Result<Option<PathBuf>> {
        let Some(path) = self.delivery.path.clone() else {
            return Ok(None);
        };
        let (image, name) = (image.clone(), name.to_owned());
        self.on_store(move |store, _| {
            let target = place::target(&path, &name)?;
            Ok(place::is_current(store, &target, &image).then_some(target))
        })
        .await
    }

    /// Says that the environment uses the image; `false` where it was removed just now.
    async fn lease(&self, digest: &Digest) -> Result<bool> {
        match self.request.lease(&self.store.leases(digest)).await {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            // Where nobody can write, nobody can remove an image.
            Err(_) if self.store.is_read_only() => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// A leased image's path, or that of the copy that is wanted of it.
    async fn deliver(&self, image: &Digest, name: &str) -> Result<PathBuf> {
        let (digest, name) = (image.clone(), name.to_owned());
        let path = self.delivery.path.clone();
        let (progress, stop) = (self.request.reporter(), self.request.stop().clone());
        self.on_store(move |store, _| {
            store.touch(&digest);
            let Some(path) = path else {
                return Ok(store.path(&digest));
            };
            let target = place::target(&path, &name)?;
            if !place::is_current(store, &target, &digest) {
                place::copy(store, &digest, &target, &progress, &stop)?;
            }
            Ok(target)
        })
        .await
    }

    /// Writes down which image the identity leads to.
    async fn learn(
        &self,
        object: &Object,
        image: Digest,
        sent: Vec<Digest>,
        unpacked: bool,
    ) -> Result<()> {
        let record = OriginRecord {
            identity: self.identity.clone(),
            version: object.version.clone(),
            name: object.name.clone(),
            image,
            sent,
            unpacked,
            insecure: self.origin.client().is_insecure(),
        };
        self.on_store(move |store, key| store.learn(key, &record))
            .await
    }
}

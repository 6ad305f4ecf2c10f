//! Images on another host: each is uploaded once, by its content, and shared by all sandboxes there that use it.
//!
//! They lie in one folder of the daemon's, a storage pool, for all users and from all hosts. What is known of them is
//! the names of its volumes, since creating and deleting a volume are the only steps that the daemon makes at once:
//!
//! | volume | means |
//! |---|---|
//! | `DIGEST.ENVIRONMENT.lease` | this environment uses the content, or is about to |
//! | `DIGEST.claim` | somebody uploads it; the others wait |
//! | `DIGEST.ENVIRONMENT.img` | the content, uploaded by this environment, maybe in part |
//! | `DIGEST.ENVIRONMENT.whole` | all of that arrived |
//!
//! An image is used only with its mark `whole`, by one who made a lease *before* looking for the mark. Who removes an
//! image deletes the mark first and looks for leases *after* that. So either the one sees that there is no mark, or the
//! other sees the lease. The name of an image says who uploads it, so no mark can ever belong to another's upload. The
//! claim only saves work: where it is lost, the content is uploaded twice, and no more than that.
//!
//! An environment that releases the last lease on a content removes the image, and an empty folder with its pool.

mod content;
mod folder;
mod piece;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use see_core::ledger::{CollectRequest, Collected, Collector, Details, Entry, Resource};
use see_core::{Error, ErrorKind, Identifier, ImageFormat, ImagePhase, Result};
use see_libvirt::{Connection, Volume};

pub(super) use self::content::Content;
use self::folder::Folder;
use self::piece::Piece;
use crate::allocation::{Site, refused};
use crate::error::libvirt;
use crate::hypervisor;

/// The kind of the ledger's entries for a lease on an uploaded image.
pub(super) const LEASE: &str = "libvirt.image-lease";

/// The details of such an entry: the folder, and the digest of the content.
const FOLDER: &str = "path";
const DIGEST: &str = "digest";

/// Longer than an uploader itself waits for any progress.
const STALLED: Duration = Duration::from_secs(90);

/// The longest wait for another's upload, however well it goes on.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// The pauses between two looks for another's upload: short first, since many images are small.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// One environment's use of one content in the folder of a host.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    folder: Folder,
    digest: String,
    owner: Identifier,
    /// How long another's upload may bring nothing before it is taken for dead.
    patience: Duration,
}

/// An image that is all there.
#[derive(Debug)]
pub(super) struct Uploaded {
    pub(super) path: PathBuf,
    pub(super) format: ImageFormat,
}

impl Lease {
    /// What is written down before a lease is made in the daemon's folder of images below `parent`.
    ///
    /// # Errors
    /// What libvirt reports.
    pub(super) async fn intent(
        parent: &str,
        digest: &str,
        connection: &Connection,
        site: &Site<'_>,
    ) -> Result<Resource> {
        let folder = Folder::below(parent, connection).await?;
        let lease = Piece::Lease(site.identifier).name(digest);
        Ok(Resource::new(LEASE, lease, &site.location)
            .detail(FOLDER, folder.path)
            .detail(DIGEST, digest))
    }

    /// Makes the lease that was intended.
    ///
    /// # Errors
    /// [`ErrorKind::AlreadyExists`] where it is there, or where the folder holds what is none of SEE's.
    pub(super) async fn make(entry: Entry, connection: &Connection) -> Result<Self> {
        let lease = Self::of(entry.resource(), entry.identifier(), connection.clone())?;
        match lease.take().await {
            Ok(()) => entry.created(Details::new()).await.map(|()| lease),
            Err(error) => Err(refused(entry, error).await),
        }
    }

    /// The lease that an entry of the ledger tells of, made or not.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] where it does not say which.
    fn of(resource: &Resource, owner: Identifier, connection: Connection) -> Result<Self> {
        let detail = |key| {
            let text = resource.details.get(key).and_then(|value| value.as_str());
            text.map(str::to_owned).ok_or_else(|| {
                Error::new(ErrorKind::Internal, "the ledger does not say which image").subject(key)
            })
        };
        Ok(Self {
            folder: Folder {
                connection,
                path: detail(FOLDER)?,
            },
            digest: detail(DIGEST)?,
            owner,
            patience: STALLED,
        })
    }

    /// Creates its volume.
    async fn take(&self) -> Result<()> {
        let error = match self.create(Piece::Lease(self.owner), 0).await {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => Error::new(
                ErrorKind::AlreadyExists,
                "the hypervisor's host has a lease of that name already",
            )
            .subject(Piece::Lease(self.owner).name(&self.digest)),
            Err(error) => error,
        };
        if let Err(error) = self.folder.remove_if_empty().await {
            tracing::debug!(%error, "an empty folder of images may stay on the hypervisor's host");
        }
        Err(error)
    }

    /// The image, uploaded unless it is there; where another uploads it, waits for that. The lease must be made.
    ///
    /// # Errors
    /// What libvirt reports, a file that changed meanwhile, and [`ErrorKind::Stopped`].
    pub(super) async fn image(&self, content: &Content, site: &Site<'_>) -> Result<Uploaded> {
        let begin = Instant::now();
        let mut progress = (Instant::now(), 0);
        let mut pause = FIRST_PAUSE;
        loop {
            site.stop.check("upload the image")?;
            let pieces = self.pieces().await?;
            if let Some(found) = self.find(&pieces, content).await? {
                return Ok(found);
            }
            // Asked for only where nobody has it, since the daemon logs each refusal.
            let is_claimed = pieces.iter().any(|(piece, _)| *piece == Piece::Claim);
            if !is_claimed && self.create(Piece::Claim, 0).await?.is_some() {
                let uploaded = self.upload_unless_there(content, site).await;
                let deleted = self.delete(Piece::Claim).await;
                uploaded?;
                deleted?;
                continue;
            }
            let arrived = arrived(&pieces).await?;
            if pause == FIRST_PAUSE {
                site.progress
                    .phase(ImagePhase::Waiting, Some(content.length));
            }
            // The parts of uploads that were cut off are among it.
            let done = arrived.min(content.length);
            site.progress.report(done, Some(content.length));
            if arrived != progress.1 {
                progress = (Instant::now(), arrived);
            } else if progress.0.elapsed() > self.patience {
                tracing::warn!(
                    digest = self.digest,
                    "another's upload of the image stands still: it is uploaded anew"
                );
                self.delete(Piece::Claim).await?;
                progress.0 = Instant::now();
            }
            if begin.elapsed() > LONGEST {
                return Err(Error::timeout("another's upload of the image", LONGEST));
            }
            let paused = tokio::time::sleep(pause);
            site.stop.or("upload the image", paused).await?;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    /// A whole image among these pieces with this content, of the right size.
    async fn find(
        &self,
        pieces: &[(Piece, Volume)],
        content: &Content,
    ) -> Result<Option<Uploaded>> {
        for (piece, volume) in pieces {
            let Piece::Image(uploader) = *piece else {
                continue;
            };
            if !pieces
                .iter()
                .any(|(mark, _)| *mark == Piece::Whole(uploader))
            {
                continue;
            }
            let size = match content::size(volume).await {
                Err(error) if error.is_no_volume() => continue,
                size => size.map_err(libvirt)?,
            };
            if size == Some(content.length) {
                return Ok(Some(Uploaded {
                    path: volume.path().await.map_err(libvirt)?,
                    format: content.format,
                }));
            }
            tracing::warn!(
                image = volume.name(),
                "an uploaded image has not the size that it had, and is not used"
            );
        }
        Ok(None)
    }

    /// Uploads the content and marks it as whole, unless another has ended that since it was looked for. Where this
    /// fails, what there is of it goes with the lease.
    async fn upload_unless_there(&self, content: &Content, site: &Site<'_>) -> Result<()> {
        if self.find(&self.pieces().await?, content).await?.is_some() {
            return Ok(());
        }
        let image = self.create(Piece::Image(self.owner), content.length);
        let Some(image) = image.await? else {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "the image that this environment uploaded is there, and is not whole",
            )
            .subject(Piece::Image(self.owner).name(&self.digest)));
        };
        content.upload(&image, site).await?;
        self.create(Piece::Whole(self.owner), 0).await.map(drop)
    }

    /// Ends the lease, and removes what nobody has a lease on any more; in a dry run it changes nothing.
    async fn release(&self, dry_run: bool) -> Result<Collected> {
        let has_lease = if dry_run {
            let name = Piece::Lease(self.owner).name(&self.digest);
            self.folder.may_hold(&name).await?
        } else {
            self.end().await?
        };
        Ok(match has_lease {
            true => Collected::Removed,
            false => Collected::AlreadyGone,
        })
    }

    /// Ends the lease; whether there was one.
    async fn end(&self) -> Result<bool> {
        let pieces = self.names().await?;
        let (lease, own) = (Piece::Lease(self.owner), Piece::Image(self.owner));
        let has_lease = pieces.contains(&lease);
        // Without a lease of its own, what is there without its mark may be another's to use: one who saw the mark.
        let is_partial =
            has_lease && pieces.contains(&own) && !pieces.contains(&Piece::Whole(self.owner));
        if is_partial {
            self.delete(Piece::Claim).await?;
            self.delete(own).await?;
        }
        self.delete(lease).await?;
        self.clear().await?;
        Ok(has_lease)
    }

    /// Removes the content where nobody has a lease on it, and the folder where it is empty.
    async fn clear(&self) -> Result<()> {
        let is_leased =
            |pieces: &[Piece]| pieces.iter().any(|piece| matches!(piece, Piece::Lease(_)));
        let pieces = self.names().await?;
        if !is_leased(&pieces) {
            for piece in pieces {
                if matches!(piece, Piece::Whole(_)) {
                    self.delete(piece).await?;
                }
            }
            // Who has made a lease since may have seen a mark: the image is then left to the last of these.
            let pieces = self.names().await?;
            if !is_leased(&pieces) {
                for piece in pieces {
                    self.delete(piece).await?;
                }
            }
        }
        self.folder.remove_if_empty().await
    }

    /// Creates a piece of this size; `None` where it exists.
    async fn create(&self, piece: Piece, length: u64) -> Result<Option<Volume>> {
        let is_image = matches!(piece, Piece::Image(_));
        let name = piece.name(&self.digest);
        self.folder.create(&name, length, is_image).await
    }

    /// Deletes a piece; one that is gone is no error.
    async fn delete(&self, piece: Piece) -> Result<()> {
        self.folder.delete(&piece.name(&self.digest)).await
    }

    /// What there is of this content.
    async fn pieces(&self) -> Result<Vec<(Piece, Volume)>> {
        let volumes = self.folder.volumes().await?.into_iter();
        let pieces = volumes.filter_map(|volume| {
            let (digest, piece) = Piece::parse(volume.name())?;
            (digest == self.digest).then_some((piece, volume))
        });
        Ok(pieces.collect())
    }

    /// The same without the volumes.
    async fn names(&self) -> Result<Vec<Piece>> {
        let pieces = self.pieces().await?;
        Ok(pieces.into_iter().map(|(piece, _)| piece).collect())
    }
}

/// How much there is of all images among these, whole or not: it changes whenever more arrives.
async fn arrived(pieces: &[(Piece, Volume)]) -> Result<u64> {
    let mut arrived = 0;
    for (piece, volume) in pieces {
        if matches!(piece, Piece::Image(_)) {
            match volume.info().await {
                Ok(info) => arrived += info.allocation + 1,
                Err(error) if error.is_no_volume() => {}
                Err(error) => return Err(libvirt(error)),
            }
        }
    }
    Ok(arrived)
}

/// Ends leases, each with the image that nobody else has one on. A lease needs nothing that was intended before it.
#[derive(Debug)]
pub(crate) struct ImageLeases;

#[async_trait]
impl Collector for ImageLeases {
    fn kind(&self) -> &str {
        LEASE
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        let connection = hypervisor::open(request).await?;
        let lease = Lease::of(&request.resource, request.identifier, connection)?;
        lease.release(request.dry_run).await
    }
}

#[cfg(test)]
mod tests;

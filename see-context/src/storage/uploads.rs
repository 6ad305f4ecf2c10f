//! Images on another host: each is uploaded once, by its content, and shared by all sandboxes there that use it.
//!
//! They lie in one folder, a storage pool of libvirt's, for all users and from all hosts. What is known of them is
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
use see_core::{Error, ErrorKind, Identifier, ImageFormat, Result, StopToken};
use see_libvirt::xml::Document;
use see_libvirt::{Connection, Volume};

pub(super) use self::content::Content;
use self::folder::{Folder, PAUSE, TRIES};
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
    pub(super) volume: Volume,
    pub(super) path: PathBuf,
    pub(super) format: ImageFormat,
}

impl Lease {
    /// What is written down before a lease is made in the images' folder below `parent`.
    pub(super) fn intent(parent: &str, content: &Content, site: &Site<'_>) -> Resource {
        let lease = Piece::Lease(site.identifier).name(&content.digest);
        Resource::new(LEASE, lease, &site.location)
            .detail(FOLDER, format!("{parent}/see-images"))
            .detail(DIGEST, content.digest.clone())
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
    pub(super) async fn image(&self, content: &Content, stop: &StopToken) -> Result<Uploaded> {
        let begin = Instant::now();
        let mut progress = (Instant::now(), 0);
        loop {
            stop.check("upload the image")?;
            if let Some(found) = self.find(content).await? {
                return Ok(found);
            }
            if self.create(Piece::Claim, 0).await?.is_some() {
                // Another may have ended between the two looks.
                let found = match self.find(content).await {
                    Ok(None) => self.upload(content, stop).await.map(|()| None),
                    other => other,
                };
                let deleted = self.delete(Piece::Claim).await;
                let found = found?;
                deleted?;
                match found {
                    Some(found) => return Ok(found),
                    None => continue,
                }
            }
            let arrived = self.arrived().await?;
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
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A whole image with this content, of the right size.
    async fn find(&self, content: &Content) -> Result<Option<Uploaded>> {
        let volumes = self.folder.volumes().await?;
        let marked = |uploader| {
            let whole = (self.digest.as_str(), Piece::Whole(uploader));
            let mut pieces = volumes.iter();
            pieces.any(|volume| Piece::parse(volume.name()) == Some(whole))
        };
        for volume in &volumes {
            match Piece::parse(volume.name()) {
                Some((digest, Piece::Image(uploader)))
                    if digest == self.digest && marked(uploader) => {}
                _ => continue,
            }
            let size = match size(volume).await {
                Err(error) if error.is_no_volume() => continue,
                size => size.map_err(libvirt)?,
            };
            if size == Some(content.length) {
                return Ok(Some(Uploaded {
                    path: volume.path().await.map_err(libvirt)?,
                    volume: volume.clone(),
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

    /// Uploads the content, and marks it as whole. Where this fails, what there is of it goes with the lease.
    async fn upload(&self, content: &Content, stop: &StopToken) -> Result<()> {
        let failed = |error| libvirt(error).during("upload the image");
        let image = self.create(Piece::Image(self.owner), content.length);
        let Some(image) = image.await? else {
            return Err(Error::new(
                ErrorKind::AlreadyExists,
                "the image that this environment uploaded is there, and is not whole",
            )
            .subject(Piece::Image(self.owner).name(&self.digest)));
        };
        let source = content.file.try_clone();
        let source = source.map_err(|error| Error::io("the disk image cannot be read", error))?;
        let stopped = stop.clone();
        let uploaded = image.upload(source, content.length, move || !stopped.is_stopped());
        let uploaded = uploaded.await;
        stop.check("upload the image")?;
        uploaded.map_err(failed)?;
        content.check_unchanged()?;
        let size = size(&image).await.map_err(failed)?;
        if size != Some(content.length) {
            return Err(Error::new(
                ErrorKind::Hypervisor,
                format!(
                    "the hypervisor's host has {size:?} of the {} bytes that were uploaded",
                    content.length
                ),
            ));
        }
        self.create(Piece::Whole(self.owner), 0).await?;
        Ok(())
    }

    /// How much there is of all images with this content, marked or not, in bytes.
    async fn arrived(&self) -> Result<u64> {
        let mut arrived = 0;
        for volume in self.folder.volumes().await? {
            if let Some((digest, Piece::Image(_))) = Piece::parse(volume.name())
                && digest == self.digest
            {
                match volume.info().await {
                    Ok(info) => arrived += info.allocation + 1,
                    Err(error) if error.is_no_volume() => {}
                    Err(error) => return Err(libvirt(error)),
                }
            }
        }
        Ok(arrived)
    }

    /// Ends the lease, and removes what nobody has a lease on any more. In a dry run it only says whether there is
    /// anything of this environment's.
    async fn release(&self, dry_run: bool) -> Result<Collected> {
        let pieces = self.pieces().await?;
        let (lease, own) = (Piece::Lease(self.owner), Piece::Image(self.owner));
        let has_lease = pieces.contains(&lease);
        // Without a lease of its own, what is there without its mark may be another's to use: one who saw the mark.
        let is_partial =
            has_lease && pieces.contains(&own) && !pieces.contains(&Piece::Whole(self.owner));
        if !dry_run {
            if is_partial {
                self.delete(Piece::Claim).await?;
                self.delete(own).await?;
            }
            self.delete(lease).await?;
            self.clear().await?;
        }
        Ok(match has_lease {
            true => Collected::Removed,
            false => Collected::AlreadyGone,
        })
    }

    /// Removes the content where nobody has a lease on it, and the folder where it is empty.
    async fn clear(&self) -> Result<()> {
        let is_leased =
            |pieces: &[Piece]| pieces.iter().any(|piece| matches!(piece, Piece::Lease(_)));
        let pieces = self.pieces().await?;
        if !is_leased(&pieces) {
            for piece in pieces {
                if matches!(piece, Piece::Whole(_)) {
                    self.delete(piece).await?;
                }
            }
            // Who has made a lease since may have seen a mark: the image is then left to the last of these.
            let pieces = self.pieces().await?;
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
    async fn pieces(&self) -> Result<Vec<Piece>> {
        let volumes = self.folder.volumes().await?;
        let pieces = volumes
            .iter()
            .filter_map(|volume| Piece::parse(volume.name()))
            .filter(|(digest, _)| *digest == self.digest);
        Ok(pieces.map(|(_, piece)| piece).collect())
    }
}

impl Uploaded {
    /// Has libvirt see what was uploaded, where it is to read it itself: until then it takes each image for raw bytes.
    ///
    /// # Errors
    /// What libvirt reports, and [`ErrorKind::Hypervisor`] where it finds another format.
    pub(super) async fn recognised(&self, lease: &Lease) -> Result<()> {
        let mut refusal = None;
        for _ in 0..TRIES {
            let text = self.volume.xml().await.map_err(libvirt)?;
            let found = Document::parse(&text).ok().and_then(|xml| {
                let format = xml.root().at(&["target", "format"])?;
                format.attribute("type").map(str::to_owned)
            });
            if found.as_deref() == Some(self.format.name()) {
                return Ok(());
            }
            // Refused while anything is made in the pool.
            refusal = lease.folder.running().await?.0.refresh().await.err();
            tokio::time::sleep(PAUSE).await;
        }
        let error = Error::new(
            ErrorKind::Hypervisor,
            format!("libvirt does not see the image as {}", self.format.name()),
        );
        Err(match refusal {
            Some(refusal) => error.caused_by(refusal),
            None => error,
        })
    }
}

/// The size of a volume's file, in bytes; `None` where libvirt does not tell it.
async fn size(volume: &Volume) -> Result<Option<u64>, see_libvirt::Error> {
    let text = volume.xml().await?;
    let document = Document::parse(&text).ok();
    Ok(document.and_then(|xml| xml.root().child("physical")?.text().trim().parse().ok()))
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
mod tests {
    use std::fs::File;
    use std::io::Write;

    use see_core::Stop;

    use super::content::State;
    use super::*;

    /// Leases of two environments on one content, in libvirt's test driver: it makes volumes, and takes no upload.
    async fn two_leases(digest: &str) -> [Lease; 2] {
        let limit = Duration::from_secs(30);
        let connection = Connection::open("test:///default", limit).await.unwrap();
        [(); 2].map(|()| Lease {
            folder: Folder {
                connection: connection.clone(),
                path: "/there/see-images".to_owned(),
            },
            digest: digest.to_owned(),
            owner: Identifier::random(),
            patience: Duration::from_millis(300),
        })
    }

    fn content(file: File, digest: String) -> Content {
        let state = State::of(&file).unwrap();
        Content {
            length: file.metadata().unwrap().len(),
            file,
            format: ImageFormat::Raw,
            digest,
            state,
        }
    }

    async fn create(lease: &Lease, pieces: &[Piece]) {
        for piece in pieces {
            assert!(lease.create(*piece, 4096).await.unwrap().is_some());
        }
    }

    #[tokio::test]
    async fn an_image_goes_with_its_last_lease_whoever_uploaded_it_and_the_folder_with_it() {
        let [one, two] = two_leases(&"a".repeat(64)).await;
        one.take().await.unwrap();
        create(&one, &[Piece::Image(one.owner), Piece::Whole(one.owner)]).await;
        two.take().await.unwrap();
        assert_eq!(one.release(true).await.unwrap(), Collected::Removed);
        assert_eq!(one.release(false).await.unwrap(), Collected::Removed);
        assert_eq!(one.release(false).await.unwrap(), Collected::AlreadyGone);
        let image = [Piece::Image(one.owner), Piece::Whole(one.owner)];
        let left = two.pieces().await.unwrap();
        assert!(image.iter().all(|piece| left.contains(piece)), "{left:?}");
        assert_eq!(two.release(false).await.unwrap(), Collected::Removed);
        assert!(two.folder.pool().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_image_stays_for_one_who_took_a_lease_while_another_removed_its_mark() {
        let [one, two] = two_leases(&"b".repeat(64)).await;
        one.take().await.unwrap();
        create(&one, &[Piece::Image(one.owner)]).await;
        // Its removal got this far: the lease and the mark are gone. The other had seen the mark.
        one.delete(Piece::Lease(one.owner)).await.unwrap();
        two.take().await.unwrap();
        // Cut off, and begun again by a collection.
        for _ in 0..2 {
            one.clear().await.unwrap();
            one.release(false).await.unwrap();
            let left = two.pieces().await.unwrap();
            assert!(left.contains(&Piece::Image(one.owner)), "{left:?}");
        }
        assert_eq!(one.release(true).await.unwrap(), Collected::AlreadyGone);
        two.release(false).await.unwrap();
        assert!(two.folder.pool().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn an_upload_that_stands_still_is_taken_for_dead_and_left_to_its_owner() {
        let digest = "c".repeat(64);
        let [dead, next] = two_leases(&digest).await;
        dead.take().await.unwrap();
        create(&dead, &[Piece::Claim, Piece::Image(dead.owner)]).await;
        next.take().await.unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 4096]).unwrap();
        let content = content(file, digest);
        let stop = Stop::new();
        // It gets to its own upload, of which the test driver knows nothing.
        let error = next.image(&content, &stop.token()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
        next.release(false).await.unwrap();
        let left = next.pieces().await.unwrap();
        assert_eq!(left.len(), 2, "{left:?}");
        assert_eq!(dead.release(false).await.unwrap(), Collected::Removed);
        assert!(dead.folder.pool().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_wait_for_another_upload_ends_with_a_stop() {
        let digest = "d".repeat(64);
        let [busy, next] = two_leases(&digest).await;
        busy.take().await.unwrap();
        create(&busy, &[Piece::Claim]).await;
        next.take().await.unwrap();
        let content = content(tempfile::tempfile().unwrap(), digest);
        let stop = Stop::new();
        stop.stop();
        let error = next.image(&content, &stop.token()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Stopped, "{error:?}");
    }
}

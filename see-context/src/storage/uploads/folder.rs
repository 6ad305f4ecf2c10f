//! The folder of images on another host: a storage pool that many use at once, and that anybody may remove once it is
//! empty.

use std::time::Duration;

use ring::digest::SHA256;
use see_core::{Error, ErrorKind, ImageFormat, Result};
use see_libvirt::xml::{Document, Element};
use see_libvirt::{Connection, StoragePool, Volume};
use uuid::{Builder, Uuid};

use super::content::hex;
use super::piece::Piece;
use crate::driver::is_session;
use crate::error::libvirt;
use crate::storage::account;

/// How often a step is tried again whose pool was removed or stopped by another in between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(100);

/// Such a folder.
#[derive(Debug, Clone)]
pub(super) struct Folder {
    pub(super) connection: Connection,
    pub(super) path: String,
}

impl Folder {
    /// The folder of images below `parent`. Each daemon has one of its own, by the UUID of its host: one that shares
    /// `parent` with others, on a network's file system or by another path, does not see what these make there, so
    /// leases in one folder would be missed.
    ///
    /// # Errors
    /// What libvirt reports, and [`ErrorKind::Hypervisor`] where it does not tell the UUID.
    pub(super) async fn below(parent: &str, connection: &Connection) -> Result<Self> {
        let capabilities = connection.capabilities().await.map_err(libvirt)?;
        let host = Document::parse(&capabilities)
            .ok()
            .and_then(|xml| Some(xml.root().at(&["host", "uuid"])?.text()))
            .ok_or_else(|| {
                let message = "the hypervisor does not tell the UUID of its host";
                Error::new(ErrorKind::Hypervisor, message)
            })?;
        let daemon = if is_session(connection.uri()) {
            "session"
        } else {
            "system"
        };
        let key = digest(&format!("{host} {daemon} {parent}"))?;
        Ok(Self {
            connection: connection.clone(),
            path: format!("{parent}/see-images-{}", hex(&key[..4])),
        })
    }

    /// Everything in the folder; nothing where there is no pool.
    pub(super) async fn volumes(&self) -> Result<Vec<Volume>> {
        let found = self.with_pool(|pool| async move { pool.volumes().await });
        let found = found.await?;
        Ok(found.unwrap_or_default())
    }

    /// Whether there is a volume of this name, asked without a change to anything. A pool that does not run tells of
    /// none, and counts as one that holds it.
    pub(super) async fn may_hold(&self, name: &str) -> Result<bool> {
        let mut tries = 0;
        while let Some(pool) = self.pool().await? {
            match pool.volume(name).await {
                Ok(_) => return Ok(true),
                Err(error) if error.is_no_volume() => return Ok(false),
                // Another may be about to remove it.
                Err(error) if is_passing(&error) && tries < TRIES => tries += 1,
                Err(error) if is_passing(&error) => return Ok(true),
                Err(error) => return Err(libvirt(error)),
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(false)
    }

    /// Creates a volume of this size; `None` where it exists.
    pub(super) async fn create(
        &self,
        name: &str,
        length: u64,
        is_image: bool,
    ) -> Result<Option<Volume>> {
        let failed = |error| libvirt(error).during("create a volume for the image");
        let mut permissions = Element::new("permissions");
        if is_image {
            // The emulators may read it, and not write it.
            let group = account::of_emulators(&self.connection).await?;
            let mode = if group.is_some() { "0640" } else { "0644" };
            permissions = permissions.with_child(Element::new("mode").with_text(mode));
            if let Some((_, group)) = group {
                permissions =
                    permissions.with_child(Element::new("group").with_text(group.to_string()));
            }
        } else {
            permissions = permissions.with_child(Element::new("mode").with_text("0600"));
        }
        let xml = Element::new("volume")
            .with_child(Element::new("name").with_text(name))
            .with_child(Element::new("capacity").with_text(length.to_string()))
            .with_child(Element::new("allocation").with_text("0"))
            .with_child(
                Element::new("target")
                    .with_child(Element::new("format").with("type", ImageFormat::Raw.name()))
                    .with_child(permissions),
            );
        let xml = Document::of(xml).to_string();
        let mut tries = 0;
        loop {
            let pool = self.running().await?;
            self.admit(&pool).await?;
            match pool.create_volume(&xml).await {
                Ok(volume) => return Ok(Some(volume)),
                // It may be gone again by now.
                Err(error) if error.is_existing() => return Ok(None),
                // Drivers have further errors for a name that is taken.
                Err(error)
                    if error.code().is_some()
                        && !error.is_connection_lost()
                        && pool.volume(name).await.is_ok() =>
                {
                    return Ok(None);
                }
                // Another has emptied the folder, and stopped its pool.
                Err(error) if is_passing(&error) && tries < TRIES => tries += 1,
                Err(error) => return Err(failed(error)),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Deletes a volume; one that is gone is no error.
    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        let delete = |pool: StoragePool| async move { pool.volume(name).await?.delete().await };
        self.with_pool(delete).await.map(drop)
    }

    /// Does something in the running pool, and again where another stopped that in between; `None` where what it is
    /// about, or the pool, is not there.
    async fn with_pool<T, F>(&self, work: impl Fn(StoragePool) -> F) -> Result<Option<T>>
    where
        F: Future<Output = Result<T, see_libvirt::Error>>,
    {
        let mut tries = 0;
        loop {
            let Some(pool) = self.pool().await? else {
                return Ok(None);
            };
            match work(pool.clone()).await {
                Err(error) if error.is_no_storage_pool() || error.is_no_volume() => {
                    return Ok(None);
                }
                Err(error) if error.is_invalid_state() && tries < TRIES => tries += 1,
                done => return done.map(Some).map_err(libvirt),
            }
            tokio::time::sleep(PAUSE).await;
            passing(start(&pool).await)?;
        }
    }

    /// The pool of the folder, running or not; `None` where there is none.
    pub(super) async fn pool(&self) -> Result<Option<StoragePool>> {
        let (name, uuid) = self.pool_identity()?;
        let pool = match self.connection.storage_pool(&name).await {
            Ok(pool) => pool,
            Err(error) if error.is_no_storage_pool() => return Ok(None),
            Err(error) => return Err(libvirt(error)),
        };
        if pool.uuid() == uuid {
            return Ok(Some(pool));
        }
        Err(Error::new(
            ErrorKind::AlreadyExists,
            "the hypervisor has a storage pool of that name, which is not SEE's",
        )
        .subject(name)
        .advice("rename that pool, or set `disk.clone.storage_pool_path` to another folder"))
    }

    /// The pool, defined and running.
    async fn running(&self) -> Result<StoragePool> {
        let failed = |error| libvirt(error).during("make the storage pool of images");
        let (mut tries, mut defined) = (0, false);
        loop {
            let pool = match self.pool().await? {
                Some(pool) => pool,
                None => {
                    defined = true;
                    self.define().await?
                }
            };
            match start(&pool).await {
                Ok(()) => return Ok(pool),
                // Another starts it too, or has just removed it.
                Err(error) if is_passing(&error) && tries < TRIES => tries += 1,
                Err(error) => {
                    // Of a folder that cannot be made or shown nothing is left.
                    if defined {
                        passing(pool.undefine().await)?;
                    }
                    return Err(failed(error));
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn define(&self) -> Result<StoragePool> {
        let (name, uuid) = self.pool_identity()?;
        let permissions =
            Element::new("permissions").with_child(Element::new("mode").with_text("0711"));
        let xml = Element::new("pool")
            .with("type", "dir")
            .with_child(Element::new("name").with_text(name))
            .with_child(Element::new("uuid").with_text(uuid.to_string()))
            .with_child(
                Element::new("target")
                    .with_child(Element::new("path").with_text(&*self.path))
                    .with_child(permissions),
            );
        self.connection
            .define_storage_pool(&Document::of(xml).to_string())
            .await
            .map_err(|error| libvirt(error).during("define the storage pool of images"))
    }

    /// Refuses a folder that holds what is none of SEE's; where it holds nothing else, its pool goes.
    async fn admit(&self, pool: &StoragePool) -> Result<()> {
        let volumes = match pool.volumes().await {
            Err(error) if is_passing(&error) => return Ok(()),
            volumes => volumes.map_err(libvirt)?,
        };
        let is_ours = |volume: &&Volume| Piece::parse(volume.name()).is_some();
        let Some(stranger) = volumes.iter().find(|volume| !is_ours(volume)) else {
            return Ok(());
        };
        if !volumes.iter().any(|volume| is_ours(&volume)) {
            passing(pool.destroy().await)?;
            passing(pool.undefine().await)?;
        }
        Err(Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "the folder for images on the hypervisor's host holds `{}`, which is not SEE's",
                stranger.name().escape_debug()
            ),
        )
        .subject(&self.path)
        .advice("remove it yourself, or set `disk.clone.storage_pool_path` to another folder"))
    }

    /// Name and UUID of the pool, which follow from its folder alone.
    fn pool_identity(&self) -> Result<(String, Uuid)> {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        Ok((
            name.to_owned(),
            Builder::from_custom_bytes(digest(&self.path)?).into_uuid(),
        ))
    }

    /// Removes the folder with its pool, where it is empty.
    pub(super) async fn remove_if_empty(&self) -> Result<()> {
        let Some(pool) = self.pool().await? else {
            return Ok(());
        };
        if self.volumes().await?.is_empty() {
            match pool.destroy().await {
                // Refused while a volume is made in it, which tells no other error apart: it is used again.
                Err(error) if !is_passing(&error) && !self.volumes().await?.is_empty() => {
                    tracing::debug!(%error, "the folder of images is used again");
                    return Ok(());
                }
                ended => passing(ended)?,
            }
            // Of a folder that is not empty any more the kernel refuses the removal.
            match pool.delete().await {
                Ok(()) => passing(pool.undefine().await)?,
                Err(error) => {
                    tracing::debug!(%error, "the folder of images is used again");
                    passing(pool.start().await)?;
                }
            }
        }
        Ok(())
    }
}

/// The first half of the SHA-256 of a text.
fn digest(text: &str) -> Result<[u8; 16]> {
    let digest = ring::digest::digest(&SHA256, text.as_bytes());
    let half = digest.as_ref().first_chunk::<16>().copied();
    half.ok_or_else(|| Error::new(ErrorKind::Internal, "a digest is too short"))
}

/// Starts a pool with its folder, unless it runs.
async fn start(pool: &StoragePool) -> Result<(), see_libvirt::Error> {
    if pool.is_active().await? {
        return Ok(());
    }
    pool.build().await?;
    pool.start().await
}

/// Whether others who use the folder at the same time make this error: they start, stop, fill and remove it.
fn is_passing(error: &see_libvirt::Error) -> bool {
    error.is_no_storage_pool() || error.is_no_volume() || error.is_invalid_state()
}

fn passing(result: Result<(), see_libvirt::Error>) -> Result<()> {
    match result {
        Err(error) if is_passing(&error) => Ok(()),
        other => other.map_err(libvirt),
    }
}

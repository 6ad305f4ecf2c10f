//! The disk of a sandbox on another host: the image goes there through libvirt, into a pool of the sandbox's own,
//! and libvirt makes the overlay.
//!
//! The pool is persistent, so that it is found and removed with everything in it also after the daemon there was
//! restarted. Nothing of it is shared between sandboxes: each uploads the image.

use std::fs::File;
use std::time::Duration;

use async_trait::async_trait;
use see_core::ledger::{CollectRequest, Collected, Collector, Details, Entry, Resource};
use see_core::{Error, ErrorKind, Image, ImageFormat, Result, StopToken};
use see_libvirt::xml::{Backing, DiskSource, Document, Element};
use see_libvirt::{Connection, StoragePool, Volume};

use super::pool::{self, Found, PATH};
use crate::allocation::{Site, exactly, refused};
use crate::error::{blocking, libvirt};
use crate::hypervisor;

/// The kind of the ledger's entries for a pool with all that is in it.
const VOLUMES: &str = "libvirt.volumes";

/// What the ledger says of a pool whose folder was found empty: all that is in it came from us.
const EMPTY: &str = "was_empty";

/// The longest that the host of the hypervisor may take for a full copy.
const COPY_LIMIT: Duration = Duration::from_secs(60 * 60);

/// How a sandbox gets a disk on another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volumes {
    /// The folder there in which each sandbox gets one, absolute.
    pub(crate) parent: String,
    /// An overlay over the uploaded image, or the image itself made writable.
    pub(crate) copy_on_write: bool,
}

impl Default for Volumes {
    fn default() -> Self {
        Self {
            parent: "/var/lib/libvirt/images".to_owned(),
            copy_on_write: true,
        }
    }
}

/// A disk of a sandbox's own on another host, over an image of this one.
#[derive(Debug)]
pub(crate) struct RemoteDisk {
    volumes: Volumes,
    image: Image,
}

impl RemoteDisk {
    /// A disk over this image.
    ///
    /// # Errors
    /// When it is not a regular file with an absolute path.
    pub(crate) fn new(volumes: Volumes, image: Image) -> Result<Self> {
        super::check_image(&image.path)?;
        Ok(Self { volumes, image })
    }
}

impl RemoteDisk {
    /// One entry for the pool, its folder, and the volumes in it.
    pub(crate) fn intents(&self, site: &Site<'_>) -> Vec<Resource> {
        let name = site.identifier.to_string();
        let folder = format!("{}/see-{name}", self.volumes.parent);
        vec![Resource::new(VOLUMES, name, &site.location).detail(PATH, folder)]
    }

    /// Makes the pool and what is in it: the volume that grows as the guest writes, and how the domain gets it.
    pub(crate) async fn make(
        &self,
        entries: Vec<Entry>,
        connection: &Connection,
        site: &Site<'_>,
    ) -> Result<(Volume, DiskSource)> {
        let [entry] = exactly(entries)?;
        let name = site.identifier.to_string();
        let folder = entry
            .resource()
            .details
            .get(PATH)
            .and_then(|path| path.as_str())
            .unwrap_or_default();
        let defined = match define(connection, &name, folder).await {
            Ok(pool) => pool,
            Err(error) => return Err(refused(entry, error).await),
        };
        let mut identity = Details::new();
        identity.insert("uuid".to_owned(), defined.uuid().to_string().into());
        entry.created(identity.clone()).await?;
        start(&defined).await?;
        identity.insert(EMPTY.to_owned(), true.into());
        entry.created(identity).await?;
        site.stop.check("upload the image")?;
        self.fill(&defined, site.stop).await
    }

    /// Makes the volumes.
    async fn fill(&self, pool: &StoragePool, stop: &StopToken) -> Result<(Volume, DiskSource)> {
        let path = self.image.path.clone();
        let (file, length, format) = blocking("open the disk image", move || {
            let format = ImageFormat::of_path(&path)?;
            let failed =
                |error| Error::io("the disk image cannot be read", error).subject(path.display());
            let file = File::open(&path).map_err(failed)?;
            let length = file.metadata().map_err(failed)?.len();
            Ok((file, length, format))
        })
        .await?;
        let base = upload(pool, file, length, stop).await?;
        // Only then libvirt sees what was uploaded.
        pool.refresh().await.map_err(libvirt)?;
        let beneath = Backing {
            file: base.path().await.map_err(libvirt)?,
            format: format.name().to_owned(),
            relabel: true,
        };
        stop.check("create the disk")?;
        let copy_on_write = self.volumes.copy_on_write;
        let disk = if copy_on_write {
            overlay(pool, &beneath).await?
        } else {
            full_copy(pool, base).await?
        };
        let source = DiskSource {
            file: disk.path().await.map_err(libvirt)?,
            format: ImageFormat::Qcow2.name().to_owned(),
            backing: copy_on_write.then_some(beneath).into_iter().collect(),
            relabel: true,
        };
        Ok((disk, source))
    }
}

/// Defines a pool, unless there is one of that name.
async fn define(connection: &Connection, name: &str, folder: &str) -> Result<StoragePool> {
    pool::check_free(connection, name).await?;
    let permissions =
        Element::new("permissions").with_child(Element::new("mode").with_text("0711"));
    let xml = Element::new("pool")
        .with("type", "dir")
        .with_child(Element::new("name").with_text(name))
        .with_child(Element::new("uuid").with_text(name))
        .with_child(
            Element::new("target")
                .with_child(Element::new("path").with_text(folder))
                .with_child(permissions),
        );
    connection
        .define_storage_pool(&Document::of(xml).to_string())
        .await
        .map_err(|error| libvirt(error).during("define the storage pool"))
}

/// Makes the pool's folder and starts it; a folder that holds something is somebody else's.
async fn start(pool: &StoragePool) -> Result<()> {
    let failed = |error| libvirt(error).during("make the storage pool");
    pool.build().await.map_err(failed)?;
    pool.start().await.map_err(failed)?;
    if pool.volumes().await.map_err(failed)?.is_empty() {
        Ok(())
    } else {
        Err(Error::new(
            ErrorKind::AlreadyExists,
            "the folder of the storage pool holds something already",
        )
        .subject(pool.name())
        .advice("it is none of this sandbox's: remove it yourself, or start anew, which takes another name"))
    }
}

/// A volume with the image in it, byte for byte.
async fn upload(pool: &StoragePool, file: File, length: u64, stop: &StopToken) -> Result<Volume> {
    let xml = volume("base.img", ImageFormat::Raw)
        .with_child(Element::new("capacity").with_text(length.to_string()))
        .with_child(Element::new("allocation").with_text("0"));
    let failed = |error| libvirt(error).during("upload the image");
    let base = pool
        .create_volume(&Document::of(xml).to_string())
        .await
        .map_err(failed)?;
    let stopped = stop.clone();
    let uploaded = base.upload(file, length, move || !stopped.is_stopped());
    let uploaded = uploaded.await;
    stop.check("upload the image")?;
    uploaded.map_err(failed)?;
    Ok(base)
}

async fn overlay(pool: &StoragePool, beneath: &Backing) -> Result<Volume> {
    let backing = Element::new("backingStore")
        .with_child(Element::new("path").with_text(beneath.file.to_string_lossy()))
        .with_child(Element::new("format").with("type", &*beneath.format));
    let xml = volume("disk.qcow2", ImageFormat::Qcow2).with_child(backing);
    pool.create_volume(&Document::of(xml).to_string())
        .await
        .map_err(|error| libvirt(error).during("create the overlay"))
}

/// The image converted on its host; the upload is not needed any more.
async fn full_copy(pool: &StoragePool, base: Volume) -> Result<Volume> {
    let failed = |error| libvirt(error).during("copy the image");
    let capacity = base.info().await.map_err(failed)?.capacity;
    let xml = volume("disk.qcow2", ImageFormat::Qcow2)
        .with_child(Element::new("capacity").with_text(capacity.to_string()));
    let copy = pool
        .within(COPY_LIMIT)
        .clone_volume(&Document::of(xml).to_string(), &base)
        .await
        .map_err(failed)?;
    base.delete().await.map_err(failed)?;
    Ok(copy)
}

fn volume(name: &str, format: ImageFormat) -> Element {
    Element::new("volume")
        .with_child(Element::new("name").with_text(name))
        .with_child(
            Element::new("target")
                .with_child(Element::new("format").with("type", format.name()))
                .with_child(
                    Element::new("permissions").with_child(Element::new("mode").with_text("0600")),
                ),
        )
}

/// Removes a pool of ours with its folder, which is left where it holds something and was not empty before: that is
/// somebody else's. What is gone already is no error.
async fn remove(pool: &StoragePool, was_empty: bool) -> Result<()> {
    let gone = |result: Result<(), see_libvirt::Error>| match result {
        Err(error)
            if error.is_no_storage_pool() || error.is_no_volume() || error.is_invalid_state() =>
        {
            Ok(())
        }
        other => other.map_err(libvirt),
    };
    match pool.is_active().await {
        Err(error) if error.is_no_storage_pool() => return Ok(()),
        Err(error) => return Err(libvirt(error)),
        Ok(true) => {}
        // Its maker stopped before it was started, or the daemon was restarted: the folder may be missing, and
        // only a running pool shows what is in it.
        Ok(false) => {
            gone(pool.build().await)?;
            gone(pool.start().await)?;
        }
    }
    gone(pool.refresh().await)?;
    let volumes = pool.volumes().await.map_err(libvirt)?;
    let is_ours = was_empty || volumes.is_empty();
    if is_ours {
        for volume in volumes {
            gone(volume.delete().await)?;
        }
    }
    gone(pool.destroy().await)?;
    if is_ours {
        gone(pool.delete().await)?;
    }
    gone(pool.undefine().await)
}

/// Removes pools with everything in them.
#[derive(Debug)]
pub(crate) struct RemoteVolumes;

#[async_trait]
impl Collector for RemoteVolumes {
    fn kind(&self) -> &str {
        VOLUMES
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        collect(request, &hypervisor::open(request).await?).await
    }
}

/// Removes the environment's pool with everything in it.
async fn collect(request: &CollectRequest, connection: &Connection) -> Result<Collected> {
    let pool = match pool::find(request, connection).await? {
        Found::Own(pool) => pool,
        Found::Not(answer) => return Ok(answer),
    };
    if !request.dry_run {
        let identity = request.identity.as_ref();
        let was_empty = identity.and_then(|identity| identity.get(EMPTY)?.as_bool());
        remove(&pool, was_empty.unwrap_or_default()).await?;
    }
    Ok(Collected::Removed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use see_core::Identifier;
    use see_core::ledger::Resource;

    use super::*;

    #[tokio::test]
    async fn a_pool_whose_maker_died_before_it_was_started_is_removed() {
        let limit = Duration::from_secs(30);
        let connection = Connection::open("test:///default", limit).await.unwrap();
        let identifier = Identifier::random();
        let xml = format!(
            "<pool type='dir'><name>{identifier}</name><uuid>{identifier}</uuid>\
             <target><path>/ours</path></target></pool>"
        );
        let pool = connection.define_storage_pool(&xml).await.unwrap();
        assert!(!pool.is_active().await.unwrap());
        let resource = Resource::new(VOLUMES, identifier.to_string(), "test:///default")
            .detail(pool::PATH, "/ours");
        let request = CollectRequest::new(identifier, resource);
        for expected in [Collected::Removed, Collected::AlreadyGone] {
            assert_eq!(collect(&request, &connection).await.unwrap(), expected);
        }
    }
}

//! The disk of a sandbox on another host, in a pool of the sandbox's own: an overlay over the uploaded image, or an
//! upload of the image itself.
//!
//! The pool is persistent, so that it is found and removed with everything in it also after the daemon there was
//! restarted.

use async_trait::async_trait;
use see_core::ledger::{CollectRequest, Collected, Collector, Details, Entry, Resource};
use see_core::{Error, ErrorKind, Image, ImageFormat, Result, StopToken};
use see_libvirt::xml::{Backing, DiskSource, Document, Element};
use see_libvirt::{Connection, StoragePool, Volume};

use super::pool::{self, Found, PATH};
use super::uploads::{self, Content, Lease};
use crate::allocation::{Site, exactly, refused};
use crate::error::libvirt;
use crate::hypervisor;

/// The kind of the ledger's entries for a pool with all that is in it.
const VOLUMES: &str = "libvirt.volumes";

/// What the ledger says of a pool whose folder was found empty: all that is in it came from us.
const EMPTY: &str = "was_empty";

/// How a sandbox gets a disk on another host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volumes {
    /// The folder there in which each sandbox gets one, absolute.
    pub(crate) parent: String,
    /// An overlay over an uploaded image that sandboxes share, or an upload of the sandbox's own.
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

/// A disk of a sandbox's own on another host, from an image of this one.
#[derive(Debug)]
pub(crate) struct RemoteDisk {
    volumes: Volumes,
    content: Content,
    /// By which sandboxes find an image that they share; none for a disk that is the image itself.
    digest: Option<String>,
}

impl RemoteDisk {
    /// A disk from this image, which is read where its content has to be known.
    ///
    /// # Errors
    /// When it is not a regular file with an absolute path, cannot be read, or cannot be written to in its format, and
    /// [`ErrorKind::Stopped`].
    pub(crate) async fn new(volumes: Volumes, image: &Image, stop: &StopToken) -> Result<Self> {
        super::check_image(&image.path)?;
        let (content, digest) = Content::read(&image.path, volumes.copy_on_write, stop).await?;
        let is_writable = matches!(content.format, ImageFormat::Raw | ImageFormat::Qcow2);
        if !volumes.copy_on_write && !is_writable {
            let message = format!(
                "a full copy on another host keeps the image's format, and not every QEMU writes {}",
                content.format.name()
            );
            return Err(Error::new(ErrorKind::Configuration, message)
                .subject(image.path.display())
                .advice(
                    "make a qcow2 of it with `qemu-img convert -O qcow2`, or leave `copy_on_write` out",
                ));
        }
        Ok(Self {
            volumes,
            content,
            digest,
        })
    }

    /// One entry for the pool, its folder and the volumes in it, and before it one for the lease on the image beneath,
    /// which is thus removed after the disk.
    ///
    /// # Errors
    /// What libvirt reports.
    pub(crate) async fn intents(
        &self,
        connection: &Connection,
        site: &Site<'_>,
    ) -> Result<Vec<Resource>> {
        let mut intents = Vec::new();
        if let Some(digest) = &self.digest {
            intents.push(Lease::intent(&self.volumes.parent, digest, connection, site).await?);
        }
        let name = site.identifier.to_string();
        let folder = format!("{}/see-{name}", self.volumes.parent);
        intents.push(Resource::new(VOLUMES, name, &site.location).detail(PATH, folder));
        Ok(intents)
    }

    /// Makes the lease, the pool and the disk in it: the volume that grows as the guest writes, and how the domain gets
    /// it.
    pub(crate) async fn make(
        &self,
        mut entries: Vec<Entry>,
        connection: &Connection,
        site: &Site<'_>,
    ) -> Result<(Volume, DiskSource)> {
        let lease = match self.digest {
            Some(_) => Some(Lease::make(entries.remove(0), connection).await?),
            None => None,
        };
        let [entry] = exactly(entries)?;
        let pool = make_pool(entry, connection).await?;
        let (disk, format, backing) = match lease {
            Some(lease) => {
                let image = lease.image(&self.content, site).await?;
                site.stop.check("create the disk")?;
                let beneath = Backing {
                    file: image.path,
                    format: image.format.name().to_owned(),
                    relabel: false,
                };
                (
                    overlay(&pool, &beneath).await?,
                    ImageFormat::Qcow2,
                    Some(beneath),
                )
            }
            None => (self.copy(&pool, site).await?, self.content.format, None),
        };
        let source = DiskSource {
            file: disk.path().await.map_err(libvirt)?,
            format: format.name().to_owned(),
            backing: backing.into_iter().collect(),
            relabel: true,
        };
        Ok((disk, source))
    }

    /// The image itself, uploaded for this sandbox alone. A copy that its host makes could not be stopped.
    async fn copy(&self, pool: &StoragePool, site: &Site<'_>) -> Result<Volume> {
        let length = Element::new("capacity").with_text(self.content.length.to_string());
        let xml = volume("disk.img", ImageFormat::Raw)
            .with_child(length)
            .with_child(Element::new("allocation").with_text("0"));
        let disk = create(pool, xml).await?;
        self.content.upload(&disk, site).await?;
        Ok(disk)
    }
}

/// Makes the sandbox's pool.
async fn make_pool(entry: Entry, connection: &Connection) -> Result<StoragePool> {
    let name = entry.identifier().to_string();
    let folder = pool::folder_of(&entry);
    let pool = match define(connection, &name, folder).await {
        Ok(pool) => pool,
        Err(error) => return Err(refused(entry, error).await),
    };
    let mut identity = Details::new();
    identity.insert("uuid".to_owned(), pool.uuid().to_string().into());
    entry.created(identity.clone()).await?;
    start(&pool).await?;
    identity.insert(EMPTY.to_owned(), true.into());
    entry.created(identity).await?;
    Ok(pool)
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

async fn overlay(pool: &StoragePool, beneath: &Backing) -> Result<Volume> {
    let backing = Element::new("backingStore")
        .with_child(Element::new("path").with_text(beneath.file.to_string_lossy()))
        .with_child(Element::new("format").with("type", &*beneath.format));
    create(
        pool,
        volume("disk.qcow2", ImageFormat::Qcow2).with_child(backing),
    )
    .await
}

async fn create(pool: &StoragePool, volume: Element) -> Result<Volume> {
    pool.create_volume(&Document::of(volume).to_string())
        .await
        .map_err(|error| libvirt(error).during("create the disk"))
}

fn volume(name: &str, format: ImageFormat) -> Element {
    let format = Element::new("format").with("type", format.name());
    let permissions =
        Element::new("permissions").with_child(Element::new("mode").with_text("0600"));
    let target = Element::new("target")
        .with_child(format)
        .with_child(permissions);
    Element::new("volume")
        .with_child(Element::new("name").with_text(name))
        .with_child(target)
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

    /// The disk's base stays as long as the disk.
    fn needs(&self, earlier: &Resource) -> bool {
        earlier.kind == uploads::LEASE
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

    use see_core::ledger::Resource;
    use see_core::{Identifier, Stop};

    use super::*;

    #[tokio::test]
    async fn a_full_copy_of_an_image_that_not_every_qemu_writes_is_refused_and_an_overlay_is_not() {
        let folder = tempfile::tempdir().unwrap();
        for format in ["raw", "qcow2", "vdi", "vhdx", "vpc"] {
            let path = folder.path().join(format);
            let mut qemu_img = std::process::Command::new("qemu-img");
            qemu_img.args(["create", "-q", "-f", format]).arg(&path);
            assert!(qemu_img.arg("8M").status().unwrap().success());
            for copy_on_write in [true, false] {
                let volumes = Volumes {
                    copy_on_write,
                    ..Volumes::default()
                };
                let image = Image::new(&path);
                let disk = RemoteDisk::new(volumes, &image, &Stop::new().token()).await;
                let is_refused = !copy_on_write && !["raw", "qcow2"].contains(&format);
                assert_eq!(disk.is_err(), is_refused, "{format}: {disk:?}");
                if let Err(error) = disk {
                    assert_eq!(error.kind(), ErrorKind::Configuration);
                    assert!(error.message().contains(format), "{error}");
                }
            }
        }
    }

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

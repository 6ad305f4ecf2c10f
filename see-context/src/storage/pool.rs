//! The storage pool that shows a sandbox's disk to the daemon's other tools, as python-see had it.

use std::path::Path;

use see_core::ledger::{CollectRequest, Collected, Details, Entry, Resource};
use see_core::{Error, ErrorKind, Identifier, Result};
use see_libvirt::xml::{Document, Element};
use see_libvirt::{Connection, StoragePool};

use crate::error::libvirt;

/// The kind of the ledger's entries for a storage pool.
pub(crate) const POOL: &str = "libvirt.pool";

/// The detail that says which folder it shows.
const PATH: &str = "path";

/// A pool to be written down before it is made.
pub(crate) fn intent(identifier: Identifier, uri: &str, folder: &Path) -> Result<Resource> {
    let folder = folder
        .to_str()
        .ok_or_else(|| Error::new(ErrorKind::Configuration, "the pool's path is not UTF-8"))?;
    Ok(Resource::new(POOL, identifier.to_string(), uri).detail(PATH, folder))
}

/// Makes a transient pool of the folder: it goes when it is stopped, and the folder stays.
pub(crate) async fn create(
    entry: &Entry,
    connection: &Connection,
    folder: &Path,
) -> Result<StoragePool> {
    let identifier = entry.identifier().to_string();
    let xml = Element::new("pool")
        .with("type", "dir")
        .with_child(Element::new("name").with_text(&identifier))
        .with_child(Element::new("uuid").with_text(&identifier))
        .with_child(
            Element::new("target")
                .with_child(Element::new("path").with_text(folder.to_string_lossy())),
        );
    let pool = connection
        .create_storage_pool(&Document::of(xml).to_string())
        .await
        .map_err(|error| libvirt(error).during("create the storage pool"))?;
    let mut identity = Details::new();
    identity.insert("uuid".to_owned(), pool.uuid().to_string().into());
    entry.created(identity).await?;
    Ok(pool)
}

/// Stops a pool; one that is gone is no error.
pub(crate) async fn remove(pool: &StoragePool) -> Result<()> {
    match pool.destroy().await {
        Err(error) if error.is_no_storage_pool() || error.is_invalid_state() => Ok(()),
        other => other.map_err(libvirt),
    }
}

/// Removes the environment's pool: pools have no metadata, so UUID and folder must agree.
pub(crate) async fn collect(
    request: &CollectRequest,
    connection: &Connection,
) -> Result<Collected> {
    let pool = match connection.storage_pool(&request.resource.name).await {
        Ok(pool) => pool,
        Err(error) if error.is_no_storage_pool() => return Ok(Collected::AlreadyGone),
        Err(error) => return Err(libvirt(error)),
    };
    let text = match pool.xml().await {
        Ok(text) => text,
        Err(error) if error.is_no_storage_pool() => return Ok(Collected::AlreadyGone),
        Err(error) => return Err(libvirt(error)),
    };
    let folder = Document::parse(&text)
        .ok()
        .and_then(|xml| Some(xml.root().at(&["target", "path"])?.text()));
    let recorded = request
        .resource
        .details
        .get(PATH)
        .and_then(|path| path.as_str());
    if pool.uuid().to_string() != request.identifier.to_string() || folder.as_deref() != recorded {
        return Ok(Collected::Refused(
            "it has another UUID or folder than the environment's".to_owned(),
        ));
    }
    if !request.dry_run {
        remove(&pool).await?;
    }
    Ok(Collected::Removed)
}

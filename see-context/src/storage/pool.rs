//! The storage pool that shows a sandbox's disk to the daemon's other tools, as python-see had it.

use std::path::PathBuf;

use async_trait::async_trait;
use see_core::ledger::{CollectRequest, Collected, Collector, Details, Entry, Resource};
use see_core::{Error, ErrorKind, Result};
use see_libvirt::xml::{Document, Element};
use see_libvirt::{Connection, StoragePool};

use crate::allocation::{Site, exactly, refused};
use crate::error::libvirt;
use crate::hypervisor;

/// The kind of the ledger's entries for a storage pool.
const POOL: &str = "libvirt.pool";

/// The detail that says which folder it shows.
pub(super) const PATH: &str = "path";

/// A transient pool of one sandbox's folder: it goes when it is stopped, and the folder stays.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The folder in which each sandbox has one named by its identifier.
    parent: PathBuf,
}

impl Pool {
    /// A pool of a folder below this one, which exists.
    pub(crate) fn new(parent: PathBuf) -> Self {
        Self { parent }
    }

    /// The pool.
    pub(crate) fn intents(&self, site: &Site<'_>) -> Result<Vec<Resource>> {
        let name = site.identifier.to_string();
        let folder = self
            .parent
            .canonicalize()
            .map_err(|error| {
                Error::io("the folder for disks cannot be used", error)
                    .subject(self.parent.display())
            })?
            .join(&name);
        let folder = folder
            .to_str()
            .ok_or_else(|| Error::new(ErrorKind::Configuration, "the pool's path is not UTF-8"))?;
        let pool = Resource::new(POOL, name, &site.location).detail(PATH, folder);
        Ok(vec![pool])
    }

    /// Starts it, once the folder is there.
    pub(crate) async fn make(&self, entries: Vec<Entry>, connection: &Connection) -> Result<()> {
        let [entry] = exactly(entries)?;
        let identifier = entry.identifier().to_string();
        let folder = folder_of(&entry);
        if let Err(error) = check_free(connection, &identifier).await {
            return Err(refused(entry, error).await);
        }
        let xml = Element::new("pool")
            .with("type", "dir")
            .with_child(Element::new("name").with_text(&identifier))
            .with_child(Element::new("uuid").with_text(&identifier))
            .with_child(Element::new("target").with_child(Element::new("path").with_text(folder)));
        let made = connection
            .create_storage_pool(&Document::of(xml).to_string())
            .await;
        let pool = match made {
            Ok(pool) => pool,
            Err(error) => {
                let error = libvirt(error).during("create the storage pool");
                return Err(refused(entry, error).await);
            }
        };
        let mut identity = Details::new();
        identity.insert("uuid".to_owned(), pool.uuid().to_string().into());
        entry.created(identity).await
    }
}

/// Refuses a pool that exists: libvirt would give one of the same name and UUID another definition, and start it.
pub(super) async fn check_free(connection: &Connection, name: &str) -> Result<()> {
    match connection.storage_pool(name).await {
        Err(error) if error.is_no_storage_pool() => Ok(()),
        Err(error) => Err(libvirt(error).during("create the storage pool")),
        Ok(_) => Err(Error::new(
            ErrorKind::AlreadyExists,
            "the hypervisor has a storage pool of that name already",
        )
        .subject(name)
        .advice(
            "it is not of this sandbox: remove it yourself, or give the sandbox another identifier",
        )),
    }
}

/// Stops a pool; one that is gone is no error.
async fn remove(pool: &StoragePool) -> Result<()> {
    match pool.destroy().await {
        Err(error) if error.is_no_storage_pool() || error.is_invalid_state() => Ok(()),
        other => other.map_err(libvirt),
    }
}

/// Stops pools.
#[derive(Debug)]
pub(crate) struct Pools;

#[async_trait]
impl Collector for Pools {
    fn kind(&self) -> &str {
        POOL
    }

    /// Its folder.
    fn needs(&self, earlier: &Resource) -> bool {
        earlier.path().is_some()
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        collect(request, &hypervisor::open(request).await?).await
    }
}

/// Removes the environment's pool.
async fn collect(request: &CollectRequest, connection: &Connection) -> Result<Collected> {
    let pool = match find(request, connection).await? {
        Found::Own(pool) => pool,
        Found::Not(answer) => return Ok(answer),
    };
    if !request.dry_run {
        remove(&pool).await?;
    }
    Ok(Collected::Removed)
}

/// What there is of a pool in the ledger.
pub(super) enum Found {
    Own(StoragePool),
    Not(Collected),
}

/// Finds the pool that was written down: pools have no metadata, so UUID and folder must agree.
pub(super) async fn find(request: &CollectRequest, connection: &Connection) -> Result<Found> {
    let gone = Ok(Found::Not(Collected::AlreadyGone));
    let pool = match connection.storage_pool(&request.resource.name).await {
        Ok(pool) => pool,
        Err(error) if error.is_no_storage_pool() => return gone,
        Err(error) => return Err(libvirt(error)),
    };
    let text = match pool.xml().await {
        Ok(text) => text,
        Err(error) if error.is_no_storage_pool() => return gone,
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
        return Ok(Found::Not(Collected::Refused(
            "it has another UUID or folder than the one in the ledger".to_owned(),
        )));
    }
    Ok(Found::Own(pool))
}

/// The folder that was recorded for a pool.
pub(super) fn folder_of(entry: &Entry) -> &str {
    let path = entry.resource().details.get(PATH);
    path.and_then(|path| path.as_str()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use see_core::Identifier;

    use see_core::ledger::Ledger;
    use see_core::{Allocation, Stop};

    use super::*;

    #[tokio::test]
    async fn a_pool_that_has_name_and_uuid_already_stops_the_allocation_and_stays_as_it_is() {
        let limit = Duration::from_secs(30);
        let connection = Connection::open("test:///default", limit).await.unwrap();
        let identifier = Identifier::random();
        let xml = format!(
            "<pool type='dir'><name>{identifier}</name><uuid>{identifier}</uuid>\
             <target><path>/a/strangers</path></target></pool>"
        );
        let stranger = connection.define_storage_pool(&xml).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path().join("ledger")).await.unwrap();
        let stop = Stop::new();
        let record = ledger.begin(identifier, "test").await.unwrap();
        let allocation = Allocation::new(record, stop.token());
        let pool = Pool::new(folder.path().to_owned());
        let site = Site::new(&allocation, "test:///default".to_owned());
        let [entries] = site.intend([pool.intents(&site).unwrap()]).await.unwrap();
        let refused = pool.make(entries, &connection).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused:?}");
        let held = allocation.record.holdings();
        assert!(held.iter().all(|held| held.kind != POOL), "{held:?}");
        assert!(!stranger.is_active().await.unwrap());
        let kept = stranger.xml().await.unwrap();
        assert!(kept.contains("/a/strangers"), "{kept}");
    }

    #[tokio::test]
    async fn a_pool_is_told_by_its_uuid_and_its_folder_together() {
        let limit = Duration::from_secs(30);
        let connection = Connection::open("test:///default", limit).await.unwrap();
        let identifier = Identifier::random();
        let name = identifier.to_string();
        let request = |folder: &str| {
            let resource = Resource::new(POOL, &name, "test:///default").detail(PATH, folder);
            CollectRequest::new(identifier, resource)
        };
        for (uuid, folder, ours) in [
            (&Identifier::random().to_string(), "/ours", false),
            (&name, "/another", false),
            (&name, "/ours", true),
        ] {
            let xml = format!(
                "<pool type='dir'><name>{name}</name><uuid>{uuid}</uuid>\
                 <target><path>{folder}</path></target></pool>"
            );
            let pool = connection.create_storage_pool(&xml).await.unwrap();
            let collected = collect(&request("/ours"), &connection).await.unwrap();
            if ours {
                assert_eq!(collected, Collected::Removed);
            } else {
                assert!(matches!(collected, Collected::Refused(_)), "{collected:?}");
                pool.destroy().await.unwrap();
            }
        }
        let collected = collect(&request("/ours"), &connection).await.unwrap();
        assert_eq!(collected, Collected::AlreadyGone);
    }
}

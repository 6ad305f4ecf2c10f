//! Storage pools.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::Volume;
use crate::connection::{Connection, Inner};
use crate::error::{Cause, Error};
use crate::handle::Handle;
use crate::text;

/// A reference to a storage pool; cloning shares it. It stays usable as a name for a pool that is
/// gone: its calls then fail with [`Error::is_no_storage_pool`].
///
/// Calls obey the time limit of the connection the pool came from, or [`StoragePool::within`].
#[derive(Clone)]
pub struct StoragePool {
    native: Arc<Native>,
    connection: Connection,
}

struct Native {
    // Before the connection, so that it is released first.
    handle: Handle<virt::storage_pool::StoragePool>,
    _connection: Arc<Inner>,
    name: String,
    uuid: Uuid,
}

impl Connection {
    /// Creates and starts a transient pool, for example over an existing folder. libvirt forgets
    /// it once it stops; its files stay.
    ///
    /// When this runs out of time, the pool may still come into being.
    ///
    /// # Errors
    /// [`Error::is_bad_xml`], whatever else libvirt reports (a name, UUID or source in use), or
    /// the time limit.
    pub async fn create_storage_pool(&self, xml: &str) -> Result<StoragePool, Error> {
        let (xml, limit) = (xml.to_owned(), self.limit);
        self.call("create a storage pool on", move |inner| {
            let pool = inner.connect().create_storage_pool_xml(&xml, 0)?;
            StoragePool::adopt(pool, inner, limit)
        })
        .await
    }

    /// Finds a pool by its name.
    ///
    /// # Errors
    /// [`Error::is_no_storage_pool`], whatever else libvirt reports, or the time limit.
    pub async fn storage_pool(&self, name: &str) -> Result<StoragePool, Error> {
        let (name, limit) = (name.to_owned(), self.limit);
        self.call_on("look up", format!("storage pool {name}"), move |inner| {
            text::c_string(&name)?;
            let pool = inner.connect().lookup_storage_pool_by_name(&name)?;
            StoragePool::adopt(pool, inner, limit)
        })
        .await
    }

    /// Finds the pool over a folder, by the exact path that the pool was made with.
    ///
    /// # Errors
    /// As [`Connection::storage_pool`].
    pub async fn storage_pool_at(&self, path: &str) -> Result<StoragePool, Error> {
        let (path, limit) = (path.to_owned(), self.limit);
        let subject = format!("the storage pool over {path}");
        self.call_on("look up", subject, move |inner| {
            text::c_string(&path)?;
            let pool = inner.connect().lookup_storage_pool_by_target_path(&path)?;
            StoragePool::adopt(pool, inner, limit)
        })
        .await
    }

    /// All pools of the driver, running or only defined.
    ///
    /// # Errors
    /// [`Error::is_unsupported`] for a driver without storage, whatever else libvirt reports, or
    /// the time limit.
    pub async fn storage_pools(&self) -> Result<Vec<StoragePool>, Error> {
        let limit = self.limit;
        self.call("list the storage pools of", move |inner| {
            let mut found = Vec::new();
            for pool in inner.connect().list_all_storage_pools(0)? {
                found.push(StoragePool::adopt(pool, inner, limit)?);
            }
            Ok(found)
        })
        .await
    }
}

impl StoragePool {
    fn adopt(
        pool: virt::storage_pool::StoragePool,
        connection: &Arc<Inner>,
        limit: Duration,
    ) -> Result<Self, Cause> {
        let handle = Handle::new(pool);
        let (name, uuid) = (handle.name()?, handle.uuid()?);
        Ok(Self {
            native: Arc::new(Native {
                handle,
                _connection: Arc::clone(connection),
                name,
                uuid,
            }),
            connection: Connection {
                inner: Arc::clone(connection),
                limit,
            },
        })
    }

    /// The same pool with another time limit a call.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self {
            native: Arc::clone(&self.native),
            connection: self.connection.within(limit),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.native.name
    }

    /// Its UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        self.native.uuid
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn is_active(&self) -> Result<bool, Error> {
        self.call("ask for activity of", |pool| Ok(pool.is_active()?))
            .await
    }

    /// The pool's XML.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn xml(&self) -> Result<String, Error> {
        self.call("read the XML of", |pool| Ok(pool.xml_desc(0)?))
            .await
    }

    /// Looks again at what lies in the pool: libvirt does not notice files made by others.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn refresh(&self) -> Result<(), Error> {
        self.call("refresh", |pool| {
            pool.refresh(0)?;
            Ok(())
        })
        .await
    }

    /// Stops the pool; a transient one is forgotten then. Its files stay.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] or [`Error::is_no_storage_pool`] when it does not run,
    /// whatever else libvirt reports, or the time limit.
    pub async fn destroy(&self) -> Result<(), Error> {
        self.call("destroy", |pool| Ok(pool.destroy()?)).await
    }

    /// The volumes that libvirt knows in the pool.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] when the pool does not run, whatever else libvirt reports, or
    /// the time limit.
    pub async fn volumes(&self) -> Result<Vec<Volume>, Error> {
        let connection = self.connection.clone();
        self.call("list the volumes of", move |pool| {
            let mut found = Vec::new();
            for volume in pool.list_all_volumes(0)? {
                found.push(Volume::adopt(volume, &connection)?);
            }
            Ok(found)
        })
        .await
    }

    /// Finds a volume by its name.
    ///
    /// # Errors
    /// [`Error::is_no_volume`], whatever else libvirt reports, or the time limit.
    pub async fn volume(&self, name: &str) -> Result<Volume, Error> {
        let (name, connection) = (name.to_owned(), self.connection.clone());
        self.call("find a volume in", move |pool| {
            Volume::adopt(pool.lookup_storage_vol_by_name(&name)?, &connection)
        })
        .await
    }

    /// Creates a volume from its XML: empty, or an overlay when the XML has a backing store.
    ///
    /// When this runs out of time, the volume may still come into being.
    ///
    /// # Errors
    /// [`Error::is_bad_xml`], [`Error::is_existing`], whatever else libvirt reports (no space),
    /// or the time limit.
    pub async fn create_volume(&self, xml: &str) -> Result<Volume, Error> {
        let (xml, connection) = (xml.to_owned(), self.connection.clone());
        self.call("create a volume in", move |pool| {
            let volume = virt::storage_vol::StorageVol::create_xml(pool, &xml, 0)?;
            Volume::adopt(volume, &connection)
        })
        .await
    }

    /// Creates a volume with the content of `source`, which may lie in another pool. This copies:
    /// mind the time limit.
    ///
    /// # Errors
    /// As [`StoragePool::create_volume`].
    pub async fn clone_volume(&self, xml: &str, source: &Volume) -> Result<Volume, Error> {
        let (xml, connection) = (xml.to_owned(), self.connection.clone());
        let source = source.clone();
        self.call("clone a volume into", move |pool| {
            let source = source.handle();
            let volume = virt::storage_vol::StorageVol::create_xml_from(pool, &xml, source, 0)?;
            Volume::adopt(volume, &connection)
        })
        .await
    }

    async fn call<T, F>(&self, operation: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&virt::storage_pool::StoragePool) -> Result<T, Cause> + Send + 'static,
    {
        let native = Arc::clone(&self.native);
        let subject = format!("storage pool {}", self.native.name);
        self.connection
            .call_on(operation, subject, move |_| work(&native.handle))
            .await
    }
}

impl fmt::Debug for StoragePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoragePool")
            .field("name", &self.native.name)
            .field("uuid", &self.native.uuid)
            .finish_non_exhaustive()
    }
}

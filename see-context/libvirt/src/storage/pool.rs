//! Storage pools.

use uuid::Uuid;

use super::Volume;
use crate::ability::Ability;
use crate::connection::Connection;
use crate::error::Error;
use crate::object::{Object, reference};

/// A reference to a storage pool; cloning shares it. It stays usable as a name for a pool that is
/// gone: its calls then fail with [`Error::is_no_storage_pool`].
///
/// Calls obey the time limit of the connection the pool came from, or [`StoragePool::within`].
#[derive(Clone)]
pub struct StoragePool {
    object: Object<virt::storage_pool::StoragePool>,
}

reference!(StoragePool, virt::storage_pool::StoragePool);

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
        self.require_pools()?;
        let xml = xml.to_owned();
        self.make("create a storage pool on", move |session| {
            Ok(session.connect().create_storage_pool_xml(&xml, 0)?)
        })
        .await
    }

    /// Defines a persistent pool without starting it; it outlives the daemon's restart.
    ///
    /// When this runs out of time, the pool may still come into being.
    ///
    /// # Errors
    /// As [`Connection::create_storage_pool`].
    pub async fn define_storage_pool(&self, xml: &str) -> Result<StoragePool, Error> {
        let xml = xml.to_owned();
        self.make("define a storage pool on", move |inner| {
            Ok(inner.connect().define_storage_pool_xml(&xml, 0)?)
        })
        .await
    }

    /// Finds a pool by its name.
    ///
    /// # Errors
    /// [`Error::is_no_storage_pool`], whatever else libvirt reports, or the time limit.
    pub async fn storage_pool(&self, name: &str) -> Result<StoragePool, Error> {
        self.require_pools()?;
        let name = name.to_owned();
        self.find(format!("storage pool {name}"), move |connect| {
            connect.lookup_storage_pool_by_name(&name)
        })
        .await
    }

    /// Finds the pool over a folder, by the exact path that the pool was made with.
    ///
    /// # Errors
    /// As [`Connection::storage_pool`].
    pub async fn storage_pool_at(&self, path: &str) -> Result<StoragePool, Error> {
        self.require_pools()?;
        let path = path.to_owned();
        self.find(format!("the storage pool over {path}"), move |connect| {
            connect.lookup_storage_pool_by_target_path(&path)
        })
        .await
    }

    fn require_pools(&self) -> Result<(), Error> {
        self.require(
            Ability::StoragePools,
            "use the storage pools of",
            self.uri(),
        )
    }
}

impl StoragePool {
    /// Its UUID.
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        *self.object.id()
    }

    /// Whether it runs.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn is_active(&self) -> Result<bool, Error> {
        self.object
            .repeat("ask for activity of", |pool| Ok(pool.is_active()?))
            .await
    }

    /// Whether it has a definition that outlives its run.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn is_persistent(&self) -> Result<bool, Error> {
        self.object
            .repeat("ask for persistence of", |pool| Ok(pool.is_persistent()?))
            .await
    }

    /// The pool's XML.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn xml(&self) -> Result<String, Error> {
        self.object
            .repeat("read the XML of", |pool| Ok(pool.xml_desc(0)?))
            .await
    }

    /// Makes what the pool lies on, such as its folder; one that is there is taken.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] when it runs, whatever else libvirt reports, or the time limit.
    pub async fn build(&self) -> Result<(), Error> {
        self.object
            .call("build", |pool| {
                pool.build(0)?;
                Ok(())
            })
            .await
    }

    /// Starts a defined pool.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] when it runs, whatever else libvirt reports, or the time limit.
    pub async fn start(&self) -> Result<(), Error> {
        self.object
            .call("start", |pool| {
                pool.create(0)?;
                Ok(())
            })
            .await
    }

    /// Removes what a stopped pool lies on: its folder, which must be empty.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] when it runs, whatever else libvirt reports, or the time limit.
    pub async fn delete(&self) -> Result<(), Error> {
        self.object
            .call("delete", |pool| {
                pool.delete(0)?;
                Ok(())
            })
            .await
    }

    /// Removes the definition of a stopped pool.
    ///
    /// # Errors
    /// [`Error::is_no_storage_pool`], [`Error::is_invalid_state`] when it runs, whatever else
    /// libvirt reports, or the time limit.
    pub async fn undefine(&self) -> Result<(), Error> {
        self.object
            .call("undefine", |pool| Ok(pool.undefine()?))
            .await
    }

    /// Looks again at what lies in the pool: libvirt does not notice files made by others.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn refresh(&self) -> Result<(), Error> {
        self.object
            .repeat("refresh", |pool| {
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
        self.object
            .repeat("destroy", |pool| Ok(pool.destroy()?))
            .await
    }

    /// The volumes that libvirt knows in the pool.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] when the pool does not run, whatever else libvirt reports, or
    /// the time limit.
    pub async fn volumes(&self) -> Result<Vec<Volume>, Error> {
        self.object
            .list_from("list the volumes of", |pool| Ok(pool.list_all_volumes(0)?))
            .await
    }

    /// Finds a volume by its name.
    ///
    /// # Errors
    /// [`Error::is_no_volume`], whatever else libvirt reports, or the time limit.
    pub async fn volume(&self, name: &str) -> Result<Volume, Error> {
        let name = name.to_owned();
        self.object
            .adopt_from("find a volume in", move |pool, _| {
                Ok(pool.lookup_storage_vol_by_name(&name)?)
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
        let xml = xml.to_owned();
        self.object
            .adopt_from("create a volume in", move |pool, _| {
                Ok(virt::storage_vol::StorageVol::create_xml(pool, &xml, 0)?)
            })
            .await
    }
}

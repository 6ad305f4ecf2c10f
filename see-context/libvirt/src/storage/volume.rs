//! Volumes of a storage pool.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::{Connection, Inner};
use crate::error::{Cause, Error};
use crate::handle::Handle;

/// A reference to a volume; cloning shares it.
///
/// Calls obey the time limit of the connection the volume came from, or [`Volume::within`].
#[derive(Clone)]
pub struct Volume {
    native: Arc<Native>,
    connection: Connection,
}

struct Native {
    // Before the connection, so that it is released first.
    handle: Handle<virt::storage_vol::StorageVol>,
    _connection: Arc<Inner>,
    name: String,
}

/// The sizes of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeInfo {
    /// What a guest sees, in bytes.
    pub capacity: u64,
    /// What it takes on the host, in bytes.
    pub allocation: u64,
}

impl Volume {
    pub(super) fn adopt(
        volume: virt::storage_vol::StorageVol,
        connection: &Connection,
    ) -> Result<Self, Cause> {
        let handle = Handle::new(volume);
        let name = handle.name()?;
        Ok(Self {
            native: Arc::new(Native {
                handle,
                _connection: Arc::clone(&connection.inner),
                name,
            }),
            connection: connection.clone(),
        })
    }

    pub(super) fn handle(&self) -> &virt::storage_vol::StorageVol {
        &self.native.handle
    }

    /// The same volume with another time limit a call.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self {
            native: Arc::clone(&self.native),
            connection: self.connection.within(limit),
        }
    }

    /// Its name within the pool.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.native.name
    }

    /// Its path on the hypervisor's host.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn path(&self) -> Result<PathBuf, Error> {
        self.call("read the path of", |volume| Ok(volume.path()?.into()))
            .await
    }

    /// The volume's XML.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn xml(&self) -> Result<String, Error> {
        self.call("read the XML of", |volume| Ok(volume.xml_desc(0)?))
            .await
    }

    /// Its sizes.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn info(&self) -> Result<VolumeInfo, Error> {
        self.call("read the sizes of", |volume| {
            let info = volume.info()?;
            Ok(VolumeInfo {
                capacity: info.capacity,
                allocation: info.allocation,
            })
        })
        .await
    }

    /// Deletes the volume with its content.
    ///
    /// # Errors
    /// [`Error::is_no_volume`], whatever else libvirt reports, or the time limit.
    pub async fn delete(&self) -> Result<(), Error> {
        self.call("delete", |volume| {
            volume.delete(0)?;
            Ok(())
        })
        .await
    }

    async fn call<T, F>(&self, operation: &'static str, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&virt::storage_vol::StorageVol) -> Result<T, Cause> + Send + 'static,
    {
        let native = Arc::clone(&self.native);
        let subject = format!("volume {}", self.native.name);
        self.connection
            .call_on(operation, subject, move |_| work(&native.handle))
            .await
    }
}

impl fmt::Debug for Volume {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Volume")
            .field("name", &self.native.name)
            .finish_non_exhaustive()
    }
}

//! Volumes of a storage pool.

use std::path::PathBuf;

use crate::error::Error;
use crate::object::{Object, reference};

/// A reference to a volume; cloning shares it.
///
/// Calls obey the time limit of the connection the volume came from, or [`Volume::within`].
#[derive(Clone)]
pub struct Volume {
    pub(super) object: Object<virt::storage_vol::StorageVol>,
}

reference!(Volume, virt::storage_vol::StorageVol);

/// The sizes of a volume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VolumeInfo {
    /// What a guest sees, in bytes.
    pub capacity: u64,
    /// What it takes on the host, in bytes.
    pub allocation: u64,
}

impl Volume {
    /// Its path on the hypervisor's host.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn path(&self) -> Result<PathBuf, Error> {
        self.object
            .repeat("read the path of", |volume| Ok(volume.path()?.into()))
            .await
    }

    /// The volume's XML.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn xml(&self) -> Result<String, Error> {
        self.object
            .repeat("read the XML of", |volume| Ok(volume.xml_desc(0)?))
            .await
    }

    /// Its sizes.
    ///
    /// # Errors
    /// Whatever libvirt reports, or the time limit.
    pub async fn info(&self) -> Result<VolumeInfo, Error> {
        self.object
            .repeat("read the sizes of", |volume| {
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
        self.object
            .repeat("delete", |volume| {
                volume.delete(0)?;
                Ok(())
            })
            .await
    }
}

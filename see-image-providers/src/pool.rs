//! A storage pool that is told when a provider put an image into its folder.

use std::path::Path;

use see_core::config::Located;
use see_core::{Error, ErrorKind, Image, Result, StopToken};
use serde::Deserialize;

use crate::hypervisor::hypervisor;

/// What stands under a provider's `libvirt_pool`: the pool in whose folder `path` is, which libvirt looks into
/// again once the image is there.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfiguration {
    /// The libvirt of this host that has the pool. `qemu:///system`.
    pub hypervisor: Option<Located<String>>,
    /// The pool's name.
    pub name: Located<String>,
}

/// A pool that is refreshed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pool {
    hypervisor: String,
    name: String,
}

impl Pool {
    /// Checks what a configuration says, if anything; `path` is where it wants the image.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where the image is put nowhere that a pool could see, and for a hypervisor of
    /// another host; [`ErrorKind::Unsupported`] where this build knows no libvirt.
    pub(crate) fn over(
        configuration: Option<PoolConfiguration>,
        path: Option<&Path>,
    ) -> Result<Option<Self>> {
        let Some(configuration) = configuration else {
            return Ok(None);
        };
        let place = configuration.name.place().clone();
        if path.is_none() {
            return Err(Error::configuration(
                place,
                "found a `libvirt_pool`, but no `path` for the image",
            )
            .advice("give the pool's folder as `path`"));
        }
        if !cfg!(feature = "libvirt-pool") {
            return Err(Error::new(
                ErrorKind::Unsupported,
                "this build knows no libvirt, so no pool can be refreshed",
            )
            .at(place)
            .advice("leave `libvirt_pool` out, or build with the feature `libvirt-pool`"));
        }
        Ok(Some(Self {
            hypervisor: hypervisor(configuration.hypervisor)?,
            name: configuration.name.into_inner(),
        }))
    }

    /// Lets libvirt look into the pool's folder again.
    ///
    /// # Errors
    /// Where there is no such pool, or libvirt does not answer.
    #[cfg(feature = "libvirt-pool")]
    async fn refresh(&self, stop: &StopToken) -> Result<()> {
        let refreshed = crate::libvirt_pool::refreshed(&self.hypervisor, &self.name, stop);
        refreshed.await.map(drop)
    }

    /// Lets libvirt look into the pool's folder again.
    ///
    /// # Errors
    /// Always: this build knows no libvirt.
    #[cfg(not(feature = "libvirt-pool"))]
    async fn refresh(&self, stop: &StopToken) -> Result<()> {
        stop.check("refresh the storage pool")?;
        Err(Error::unsupported("a storage pool without libvirt"))
    }
}

/// The image that a provider gives, which the pool, if any, knows then.
///
/// # Errors
/// Those of the image, and of the pool.
pub(crate) async fn after(
    image: impl Future<Output = Result<Image>>,
    pool: Option<&Pool>,
    stop: &StopToken,
) -> Result<Image> {
    let image = image.await?;
    if let Some(pool) = pool {
        pool.refresh(stop).await?;
    }
    Ok(image)
}

//! An image that is a volume of a storage pool of this host's libvirt.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use see_core::config::{ConfigPath, Located};
use see_core::{Error, ErrorKind, Image, ImageProvider, ImageRequest, Result, StopToken};
use see_libvirt::{Connection, StoragePool};
use serde::Deserialize;

use crate::hypervisor::hypervisor;
use crate::text::listed;

/// The longest wait for a hypervisor to take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// The provider `libvirt-pool`: a volume of a storage pool, found by the pool's folder or its name.
///
/// ```json
/// {"provider": "libvirt-pool", "name": "guest.qcow2",
///  "provider_configuration": {"storage_pool_path": "/images"}}
/// {"provider": "libvirt-pool", "name": "guest.qcow2",
///  "provider_configuration": {"hypervisor": "qemu:///system", "storage_pool": "default"}}
/// ```
///
/// A volume of a pool's folder is the file of that name there, and libvirt is not asked. A pool that is named is
/// refreshed first, so that a volume is found however it came there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibvirtPool(Volume);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Volume {
    At(PathBuf),
    In {
        hypervisor: String,
        pool: String,
        name: String,
    },
}

/// What stands under `provider_configuration`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibvirtPoolConfiguration {
    /// The libvirt of this host that has the pool. `qemu:///system`.
    pub hypervisor: Option<Located<String>>,
    /// The pool's folder.
    pub storage_pool_path: Option<ConfigPath>,
    /// The name of a pool that runs, instead of a folder.
    pub storage_pool: Option<Located<String>>,
}

#[async_trait]
impl ImageProvider for LibvirtPool {
    const NAME: &'static str = "libvirt-pool";
    const ALIASES: &'static [&'static str] = &["see.image_providers.LibvirtPoolProvider"];
    type Configuration = LibvirtPoolConfiguration;

    fn prepare(
        configuration: LibvirtPoolConfiguration,
        name: Option<Located<String>>,
    ) -> Result<Self> {
        let wrong = |message: &'static str| Error::new(ErrorKind::Configuration, message);
        let hypervisor = hypervisor(configuration.hypervisor)?;
        let Some(name) = name else {
            return Err(wrong("the provider `libvirt-pool` is told no volume")
                .advice("give its `name` in the pool"));
        };
        crate::name::beneath(&name, "the storage pool")?;
        match (configuration.storage_pool_path, configuration.storage_pool) {
            (Some(path), None) => {
                let folder = path.existing_folder("the folder of a storage pool")?;
                Ok(Self(Volume::At(folder.join(name.as_str()))))
            }
            (None, Some(pool)) => Ok(Self(Volume::In {
                hypervisor,
                pool: pool.into_inner(),
                name: name.into_inner(),
            })),
            (Some(_), Some(pool)) => Err(Error::configuration(
                pool.place().clone(),
                "`storage_pool` and `storage_pool_path` both say which pool it is",
            )
            .advice("give one of them")),
            (None, None) => Err(wrong("the provider `libvirt-pool` is told no pool")
                .advice("give `provider_configuration.storage_pool_path`, or `storage_pool`")),
        }
    }

    fn describe(&self) -> String {
        match &self.0 {
            Volume::At(path) => path.display().to_string(),
            Volume::In { pool, name, .. } => format!("{name} in pool {pool}"),
        }
    }

    async fn image(&self, request: &ImageRequest<'_>) -> Result<Image> {
        let path = match &self.0 {
            Volume::At(path) => path.clone(),
            Volume::In {
                hypervisor,
                pool,
                name,
            } => {
                let pool = refreshed(hypervisor, pool, request.stop()).await?;
                let path = async { pool.volume(name).await?.path().await };
                match path.await {
                    Ok(path) => path,
                    Err(error) if error.is_no_volume() => return Err(missing(&pool, name).await),
                    Err(error) => return Err(libvirt(error)),
                }
            }
        };
        local(path).await
    }
}

/// The error for a volume that a pool does not have, with what there is instead.
async fn missing(pool: &StoragePool, name: &str) -> Error {
    let message = format!("the storage pool has no volume `{}`", name.escape_debug());
    let error = Error::new(ErrorKind::NotFound, message).subject(pool.name().escape_debug());
    // What it has is for the message alone.
    let volumes = pool.volumes().await.unwrap_or_default();
    let mut names: Vec<&str> = volumes.iter().map(|volume| volume.name()).collect();
    names.sort_unstable();
    error.advice(format!("it has {}", listed(names.into_iter())))
}

/// The pool of that name, once libvirt looked into its folder again.
///
/// # Errors
/// Where there is no such pool, or it does not run, or libvirt does not answer.
pub(crate) async fn refreshed(
    hypervisor: &str,
    name: &str,
    stop: &StopToken,
) -> Result<StoragePool> {
    let connecting = Connection::open(hypervisor, CONNECT_LIMIT);
    let connection = stop.or("open the hypervisor", connecting).await?;
    let found = connection.map_err(libvirt)?.storage_pool(name).await;
    let refuse =
        |kind, message: &'static str| Error::new(kind, message).subject(name.escape_debug());
    let pool = found.map_err(|error| match error.is_no_storage_pool() {
        true => refuse(ErrorKind::NotFound, "there is no such storage pool")
            .advice("`virsh pool-list --all` lists them"),
        false => libvirt(error),
    })?;
    match pool.refresh().await {
        Ok(()) => Ok(pool),
        Err(_) if matches!(pool.is_active().await, Ok(false)) => Err(refuse(
            ErrorKind::Unavailable,
            "the storage pool does not run",
        )
        .advice("`virsh pool-start` starts it")),
        Err(error) => Err(libvirt(error)),
    }
}

/// A volume as an image: a file of this host.
async fn local(path: PathBuf) -> Result<Image> {
    let found = tokio::task::spawn_blocking(move || match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => Ok(Image::new(path)),
        Ok(_) => Err(
            Error::new(ErrorKind::Unsupported, "the volume is not a regular file")
                .subject(path.display()),
        ),
        Err(error) => Err(Error::io("the volume cannot be used", error)
            .subject(path.display())
            .advice("give the `name` of a file in the pool's folder")),
    });
    found.await.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Internal, "looking at the volume panicked").caused_by(error))
    })
}

/// An error of libvirt as one of the framework's.
fn libvirt(error: see_libvirt::Error) -> Error {
    let kind = if error.is_timed_out() {
        ErrorKind::Timeout
    } else if error.is_denied() {
        ErrorKind::PermissionDenied
    } else if error.is_connection_lost() {
        ErrorKind::Unavailable
    } else if error.is_unsupported() {
        ErrorKind::Unsupported
    } else {
        ErrorKind::Hypervisor
    };
    Error::new(kind, error.to_string()).caused_by(error)
}

#[cfg(test)]
mod tests {
    use see_core::config::Configuration;
    use see_core::{ImageSource, Registries};

    use super::*;

    fn prepared(folder: &std::path::Path, json: &str) -> Result<ImageSource> {
        let mut registries = Registries::new();
        crate::register(&mut registries)?;
        let section = Configuration::from_str(folder.join("run.json"), json)?;
        registries.images.prepare(&section)
    }

    #[test]
    fn pools_are_named_by_their_folder_or_name_with_python_sees_words() {
        let folder = tempfile::tempdir().unwrap();
        for json in [
            r#"{"provider": "see.image_providers.LibvirtPoolProvider", "name": "a",
                "provider_configuration": {"hypervisor": "lxc:///", "storage_pool_path": "."}}"#,
            r#"{"provider": "libvirt-pool", "name": "a",
                "provider_configuration": {"storage_pool": "default"}}"#,
        ] {
            let source = prepared(folder.path(), json).unwrap();
            assert_eq!(source.provider(), "libvirt-pool");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        for (configuration, part) in [
            (r#"{}"#, "is told no pool"),
            (r#"{"storage_pool_path": "missing"}"#, "expected the folder"),
            (
                r#"{"storage_pool_path": ".", "storage_pool": "default"}"#,
                "both say",
            ),
            (
                r#"{"storage_pool": "default", "hypervisor": "qemu+ssh://there/system"}"#,
                "of this host",
            ),
            (
                r#"{"storage_pool": "default", "hypervisor": "qemu://me:tiger@there/system"}"#,
                "of this host",
            ),
            (
                r#"{"storage_pool": "default", "hypervisor": "embedded"}"#,
                "of this host",
            ),
            (r#"{"pool": "default"}"#, "`storage_pool`"),
        ] {
            let json = format!(
                r#"{{"provider": "libvirt-pool", "name": "a", "provider_configuration": {configuration}}}"#
            );
            let error = prepared(folder.path(), &json).unwrap_err();
            let text = error.to_string();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{text}");
            assert!(text.contains(part), "{json}: {text}");
            assert!(text.contains("run.json:1:"), "{json}: {text}");
            assert!(!error.chain().contains("tiger"), "{error:?}");
        }
        let unnamed = r#"{"provider": "libvirt-pool",
            "provider_configuration": {"storage_pool": "default"}}"#;
        let error = prepared(folder.path(), unnamed).unwrap_err();
        assert!(error.to_string().contains("told no volume"), "{error}");
    }
}

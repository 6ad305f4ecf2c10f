//! An image that is a volume of a storage pool of this host's libvirt.

mod own;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use see_core::config::{ConfigPath, Located};
use see_core::{Error, ErrorKind, Image, ImageProvider, ImageRequest, Result, StopToken};
use see_libvirt::{Connection, StoragePool, is_on_this_host};
use serde::Deserialize;

use self::own::{CREATION, Own, name_of};

/// The hypervisor where none is said, as python-see had it.
const SYSTEM: &str = "qemu:///system";
/// The longest wait for a hypervisor to take a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);
/// The longest wait for others to let go of the pool.
const PATIENCE: Duration = Duration::from_secs(60);
/// The longest time that making a pool is tried again: others' over the same folder stand in its way for
/// moments only.
const CONFLICT: Duration = Duration::from_secs(10);
/// How often it is tried again meanwhile.
const AGAIN: Duration = Duration::from_millis(50);
/// How many volumes an error lists.
const LISTED: usize = 8;

/// The provider `libvirt-pool`: a volume of a storage pool, found by the pool's folder or its name.
///
/// ```json
/// {"provider": "libvirt-pool", "name": "guest.qcow2",
///  "provider_configuration": {"hypervisor": "qemu:///system", "storage_pool_path": "/images"}}
/// {"provider": "libvirt-pool", "name": "guest.qcow2",
///  "provider_configuration": {"storage_pool": "default"}}
/// ```
///
/// The pool is refreshed first, so that a volume is found however it came there. Over a folder without a pool
/// one is made for the moment: transient, never started with the host, written into the ledger before, and
/// taken away by the last who looks into it. The folder itself stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibvirtPool {
    hypervisor: String,
    pool: Pool,
    volume: String,
}

/// How the pool is found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Pool {
    At(PathBuf),
    Named(String),
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
        let hypervisor = match configuration.hypervisor {
            None => SYSTEM.to_owned(),
            Some(uri) if uri.contains("://") && is_on_this_host(&uri) => uri.into_inner(),
            Some(uri) => {
                let message = format!(
                    "found the hypervisor `{}`, expected a libvirt URI of this host",
                    uri.escape_debug()
                );
                return Err(Error::configuration(uri.place().clone(), message)
                    .advice("such as qemu:///system: a sandbox's disk is made from a local file"));
            }
        };
        let pool = match (configuration.storage_pool_path, configuration.storage_pool) {
            (Some(path), None) => {
                let folder = path.existing_folder("the folder of a storage pool")?;
                // libvirt knows a folder by one spelling of its path.
                Pool::At(folder.canonicalize().unwrap_or(folder))
            }
            (None, Some(name)) => Pool::Named(name.into_inner()),
            (Some(_), Some(name)) => {
                return Err(Error::configuration(
                    name.place().clone(),
                    "`storage_pool` and `storage_pool_path` both say which pool it is",
                )
                .advice("give one of them"));
            }
            (None, None) => {
                return Err(wrong("the provider `libvirt-pool` is told no pool")
                    .advice("give `provider_configuration.storage_pool_path`, or `storage_pool`"));
            }
        };
        let Some(volume) = name else {
            return Err(wrong("the provider `libvirt-pool` is told no volume")
                .advice("give its `name` in the pool"));
        };
        crate::name::beneath(&volume, "the storage pool")?;
        Ok(Self {
            hypervisor,
            pool,
            volume: volume.into_inner(),
        })
    }

    fn describe(&self) -> String {
        let pool = match &self.pool {
            Pool::At(folder) => folder.display().to_string(),
            Pool::Named(name) => format!("pool {name}"),
        };
        format!("{} in {pool}", self.volume)
    }

    async fn image(&self, request: &ImageRequest<'_>) -> Result<Image> {
        let connecting = Connection::open(&self.hypervisor, CONNECT_LIMIT);
        let connection = request
            .stop()
            .or("open the hypervisor", connecting)
            .await?
            .map_err(libvirt)?;
        let mut own = None;
        let found = self.search(&connection, request, &mut own).await;
        if let Some(own) = own {
            own.end().await?;
        }
        local(found?).await
    }
}

impl LibvirtPool {
    /// The volume's path, looked for until others are out of the way.
    async fn search(
        &self,
        connection: &Connection,
        request: &ImageRequest<'_>,
        own: &mut Option<Own>,
    ) -> Result<PathBuf> {
        let begin = Instant::now();
        loop {
            let in_the_way = |error: &Error| error.operation() == Some(CREATION);
            match self.look(connection, request, own).await {
                Ok(Some(path)) => return Ok(path),
                Ok(None) if begin.elapsed() < PATIENCE => {}
                Ok(None) => return Err(Error::timeout("the storage pool", PATIENCE)),
                Err(error) if in_the_way(&error) && begin.elapsed() < CONFLICT => {}
                Err(error) => return Err(error),
            }
            let pause = tokio::time::sleep(AGAIN);
            let stop = request.stop();
            stop.or("wait for the storage pool", pause).await?;
        }
    }

    /// The volume's path; `None` where somebody else made or took away the pool meanwhile.
    async fn look(
        &self,
        connection: &Connection,
        request: &ImageRequest<'_>,
        own: &mut Option<Own>,
    ) -> Result<Option<PathBuf>> {
        let pool = match &self.pool {
            Pool::Named(name) => named(connection, name).await?,
            Pool::At(folder) => match self.at(connection, folder, request, own).await? {
                Some(pool) => pool,
                None => return Ok(None),
            },
        };
        let found = self.volume_of(&pool).await;
        match own {
            Some(own) if own.is(&pool) => own.remove(&pool).await,
            // Another's of the same kind, who may be dead: the ledger of its maker knows it.
            _ if is_ours(&pool).await => {
                if let Err(error) = pool.destroy().await
                    && !is_gone(&error)
                {
                    tracing::warn!(%error, "somebody's storage pool is left");
                }
            }
            _ => {}
        }
        found
    }

    /// The pool over a folder: the one that is there, or one that is made; `None` where another one was made
    /// meanwhile.
    async fn at(
        &self,
        connection: &Connection,
        folder: &Path,
        request: &ImageRequest<'_>,
        own: &mut Option<Own>,
    ) -> Result<Option<StoragePool>> {
        let path = folder.to_str().ok_or_else(|| {
            Error::new(ErrorKind::Configuration, "the pool's path is not UTF-8")
                .subject(folder.display())
        })?;
        match connection.storage_pool_at(path).await {
            Ok(pool) => return Ok(Some(pool)),
            Err(error) if error.is_no_storage_pool() => {}
            Err(error) => return Err(libvirt(error)),
        }
        let own = match own {
            Some(own) => own,
            None => own.insert(Own::plan(&self.hypervisor, path, request).await?),
        };
        own.make(connection, path).await
    }

    async fn volume_of(&self, pool: &StoragePool) -> Result<Option<PathBuf>> {
        if let Err(error) = pool.refresh().await {
            // Ours goes with whoever is done first; others' stay as they are.
            return match pool.is_active().await {
                Ok(false) if !is_ours_by_name(pool) => Err(Error::new(
                    ErrorKind::Unavailable,
                    "the storage pool does not run",
                )
                .subject(pool.name().escape_debug())
                .advice("`virsh pool-start` starts it")),
                _ if is_gone(&error) => Ok(None),
                _ => Err(libvirt(error)),
            };
        }
        let path = match pool.volume(&self.volume).await {
            Ok(volume) => volume.path().await,
            Err(error) => Err(error),
        };
        match path {
            Ok(path) => Ok(Some(path)),
            Err(error) if error.is_no_volume() => Err(self.missing(pool).await),
            Err(error) if is_gone(&error) => Ok(None),
            Err(error) => Err(libvirt(error)),
        }
    }

    async fn missing(&self, pool: &StoragePool) -> Error {
        let error = Error::new(
            ErrorKind::NotFound,
            format!(
                "the storage pool has no volume `{}`",
                self.volume.escape_debug()
            ),
        )
        .subject(match &self.pool {
            Pool::At(folder) => folder.display().to_string(),
            Pool::Named(name) => name.escape_debug().to_string(),
        });
        // What it has is for the message alone.
        let volumes = pool.volumes().await.unwrap_or_default();
        let mut names: Vec<String> = volumes
            .iter()
            .map(|volume| volume.name().escape_debug().to_string())
            .collect();
        names.sort();
        let more = names.len().saturating_sub(LISTED);
        names.truncate(LISTED);
        match (names.is_empty(), more) {
            (true, _) => error.advice("it has none"),
            (false, 0) => error.advice(format!("it has {}", names.join(", "))),
            (false, more) => error.advice(format!("it has {} and {more} more", names.join(", "))),
        }
    }
}

/// Lets libvirt look into the folder of a pool again.
///
/// # Errors
/// Where there is no such pool, or it does not run, or libvirt does not answer.
pub(crate) async fn refresh(hypervisor: Option<&str>, name: &str, stop: &StopToken) -> Result<()> {
    let connecting = Connection::open(hypervisor.unwrap_or(SYSTEM), CONNECT_LIMIT);
    let connection = stop.or("open the hypervisor", connecting).await?;
    let pool = named(&connection.map_err(libvirt)?, name).await?;
    pool.refresh().await.map_err(libvirt)
}

async fn named(connection: &Connection, name: &str) -> Result<StoragePool> {
    connection.storage_pool(name).await.map_err(|error| {
        if error.is_no_storage_pool() {
            return Error::new(ErrorKind::NotFound, "there is no such storage pool")
                .subject(name.escape_debug())
                .advice("`virsh pool-list --all` lists them");
        }
        libvirt(error)
    })
}

fn is_ours_by_name(pool: &StoragePool) -> bool {
    pool.name() == name_of(&pool.uuid().to_string())
}

/// Whether a pool was made here, by whomever: nobody else needs it, and its definition goes with it.
async fn is_ours(pool: &StoragePool) -> bool {
    is_ours_by_name(pool) && matches!(pool.is_persistent().await, Ok(false))
}

/// Whether somebody took the pool away, or is about to look into it.
fn is_gone(error: &see_libvirt::Error) -> bool {
    error.is_no_storage_pool() || error.is_invalid_state()
}

/// A volume as an image: a file of this host.
async fn local(path: PathBuf) -> Result<Image> {
    let found = tokio::task::spawn_blocking(move || match std::fs::metadata(&path) {
        Ok(found) if found.is_file() => Ok(Image::new(path)),
        Ok(_) => Err(
            Error::new(ErrorKind::Unsupported, "the volume is not a regular file")
                .subject(path.display()),
        ),
        Err(error) => Err(Error::io("the volume cannot be used", error).subject(path.display())),
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

    fn prepared(folder: &Path, json: &str) -> Result<ImageSource> {
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
        }
        let unnamed = r#"{"provider": "libvirt-pool",
            "provider_configuration": {"storage_pool": "default"}}"#;
        let error = prepared(folder.path(), unnamed).unwrap_err();
        assert!(error.to_string().contains("told no volume"), "{error}");
    }
}

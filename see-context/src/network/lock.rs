//! The lock on the shared network, and what is noted down under it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use see_core::{Error, ErrorKind, Result, StopToken};
use tokio::time::Instant;

use super::claim::{Bridge, Notes};

/// Root's folder.
const FOLDER: &str = "/run/see";
/// The longest wait for the lock. The first one under it makes the network, the others take milliseconds.
const LOCK_LIMIT: Duration = Duration::from_secs(30);
/// How often it is asked for.
const ASK: Duration = Duration::from_millis(5);
/// The longest note.
const LONGEST: usize = 64;

/// The right to make or remove the shared network.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Lock {
    /// Waits for it; see the head of [`super::shared`].
    pub(super) async fn take(stop: Option<&StopToken>) -> Result<Self> {
        let file = lock_file(Path::new(FOLDER))?;
        let end = Instant::now() + LOCK_LIMIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { file }),
                Err(std::fs::TryLockError::WouldBlock) => {}
                Err(std::fs::TryLockError::Error(error)) => return Err(unlockable(error)),
            }
            if Instant::now() >= end {
                return Err(Error::timeout(
                    "another process to make or remove the shared network",
                    LOCK_LIMIT,
                ));
            }
            match stop {
                Some(stop) => {
                    stop.or("wait for the shared network", tokio::time::sleep(ASK))
                        .await?
                }
                None => tokio::time::sleep(ASK).await,
            }
        }
    }

    /// The bridge that the network has, or had last.
    pub(super) fn bridge(&self) -> Result<Option<Bridge>> {
        let mut bytes = [0; LONGEST];
        let length = self.file.read_at(&mut bytes, 0).map_err(unlockable)?;
        let text = String::from_utf8_lossy(&bytes[..length]);
        let words: Vec<&str> = text.split_whitespace().collect();
        Ok(match words[..] {
            [name, mac] => Some(Bridge {
                name: name.to_owned(),
                mac: mac.to_owned(),
            }),
            _ => None,
        })
    }

    /// Notes down that there is none.
    pub(super) fn forget(&self) -> Result<()> {
        self.file.set_len(0).map_err(unlockable)
    }
}

/// A boot removes the network and the folder, so nothing has to survive on a disk.
#[async_trait]
impl Notes for Lock {
    async fn write(&self, bridge: &Bridge) -> Result<()> {
        let text = format!("{} {}\n", bridge.name, bridge.mac);
        self.forget()?;
        self.file
            .write_all_at(text.as_bytes(), 0)
            .map_err(unlockable)
    }
}

fn lock_file(folder: &Path) -> Result<File> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(unlockable(error));
        }
        _ => {}
    }
    let found = std::fs::symlink_metadata(folder).map_err(unlockable)?;
    let own = rustix::process::geteuid().as_raw();
    if !found.is_dir() || found.uid() != own || found.mode() & 0o022 != 0 {
        return Err(Error::new(
            ErrorKind::PermissionDenied,
            "the folder of the shared network's lock is not one of this user that only it writes to",
        )
        .subject(folder.display()));
    }
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(folder.join("shared.lock"))
        .map_err(unlockable)
}

fn unlockable(error: std::io::Error) -> Error {
    Error::io("the shared network's lock cannot be had", error)
        .subject(FOLDER)
        .advice("the mode `shared` needs root")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_in_a_folder_that_others_write_to_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("see");
        assert!(lock_file(&path).is_ok());
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(&path, open).unwrap();
        let error = lock_file(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(lock_file(&link).is_err());
    }

    #[tokio::test]
    async fn the_last_bridge_that_was_noted_down_is_the_one_that_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let file = || lock_file(&folder.path().join("see")).unwrap();
        let lock = Lock { file: file() };
        assert_eq!(lock.bridge().unwrap(), None);
        for name in ["virbr-see", "virbr-see7", "br"] {
            let bridge = Bridge {
                name: name.to_owned(),
                mac: "52:54:00:00:00:01".to_owned(),
            };
            lock.write(&bridge).await.unwrap();
            assert_eq!(Lock { file: file() }.bridge().unwrap(), Some(bridge));
        }
        lock.forget().unwrap();
        assert_eq!(lock.bridge().unwrap(), None);
    }
}

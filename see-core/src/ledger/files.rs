//! The collector of files, leases and folders.

use std::ffi::CString;

use async_trait::async_trait;
use rustix::fs::{AtFlags, Dir, FileType};
use rustix::io::Errno;

use super::anchor::Anchor;
use super::collector::{CollectRequest, Collected, Collector};
use super::path::{FileIdentity, Found, Spot, look, unreachable_path};
use super::resource::Resource;
use super::{blocking, tree};
use crate::{Error, ErrorKind, Result};

/// Removes files, leases or folders, by the rules of the [module](super).
#[derive(Debug)]
pub(super) struct PathCollector {
    kind: &'static str,
}

impl PathCollector {
    pub(super) fn files() -> Self {
        Self {
            kind: Resource::FILE,
        }
    }

    pub(super) fn leases() -> Self {
        Self {
            kind: Resource::LEASE,
        }
    }

    pub(super) fn folders() -> Self {
        Self {
            kind: Resource::FOLDER,
        }
    }
}

#[async_trait]
impl Collector for PathCollector {
    fn kind(&self) -> &str {
        self.kind
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        let request = request.clone();
        blocking(move || collect(&request)).await
    }
}

fn collect(request: &CollectRequest) -> Result<Collected> {
    let resource = &request.resource;
    let failed = |error| unreachable_path(resource, error);
    let Some(spot) = Spot::open(resource)? else {
        return absent(request);
    };
    let Some(found) = spot.look().map_err(failed)? else {
        return absent(request);
    };
    if let Some(reason) = strange(request, &found)? {
        return Ok(Collected::Refused(reason));
    }
    if resource.kind == Resource::FOLDER {
        return collect_folder(request, &spot, &found);
    }
    if !request.dry_run {
        match rustix::fs::unlinkat(&spot.parent, spot.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
    }
    Ok(Collected::Removed)
}

/// What is not found is gone, unless its whole file system is not there.
fn absent(request: &CollectRequest) -> Result<Collected> {
    let hidden = Anchor::hides(&request.resource, request.same_boot)?;
    Ok(hidden.map_or(Collected::AlreadyGone, Collected::Refused))
}

fn collect_folder(request: &CollectRequest, spot: &Spot<'_>, found: &Found) -> Result<Collected> {
    let failed = |error| unreachable_path(&request.resource, error);
    let name = CString::new(spot.name).map_err(|_| failed(Errno::INVAL))?;
    let folder = if request.identity.is_some() || request.dry_run {
        let folder = tree::open_listed(&spot.parent, &name, !request.dry_run).map_err(failed)?;
        // What was opened decides, not what was looked at before.
        if look(&folder, "").map_err(failed)?.identity != found.identity {
            return Ok(Collected::Refused(
                "it was exchanged for another folder just now".to_owned(),
            ));
        }
        Some(folder)
    } else {
        None
    };
    if request.dry_run {
        let holds_something = match &folder {
            Some(folder) => Dir::read_from(folder).map_err(failed)?.flatten().count() > 2,
            None => false,
        };
        if request.identity.is_none() && holds_something {
            return Ok(Collected::Refused(UNPROVEN.to_owned()));
        }
        return Ok(Collected::Removed);
    }
    if let Some(folder) = &folder {
        tree::empty(folder, request)?;
    }
    match rustix::fs::unlinkat(&spot.parent, &name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(Collected::Removed),
        Err(Errno::NOTEMPTY | Errno::EXIST) if folder.is_none() => {
            Ok(Collected::Refused(UNPROVEN.to_owned()))
        }
        Err(error) => Err(failed(error)),
    }
}

const UNPROVEN: &str = "its creation was never recorded, and it is not empty";

/// Why what was found is not what the record means; `None` when it is.
fn strange(request: &CollectRequest, found: &Found) -> Result<Option<String>> {
    let is_folder = found.file_type == FileType::Directory;
    let wants_folder = request.resource.kind == Resource::FOLDER;
    if is_folder != wants_folder || found.file_type == FileType::Symlink {
        return Ok(Some(format!(
            "there is a {} where the ledger recorded a {}",
            name_of(found.file_type),
            request.resource.kind
        )));
    }
    if let Some(identity) = &request.identity {
        let recorded = FileIdentity::from_details(identity)?;
        return Ok(
            (!recorded.agrees(&found.identity, request.same_boot)).then(|| {
                format!(
                    "it is another {} than the recorded one, under the same name",
                    request.resource.kind
                )
            }),
        );
    }
    let us = rustix::process::geteuid().as_raw();
    let path = request.resource.path().unwrap_or_default();
    let named = path
        .to_string_lossy()
        .contains(&request.identifier.to_string());
    Ok(if !named {
        Some("its creation was never recorded, and its path does not name the environment".into())
    } else if found.uid != us {
        Some(format!(
            "its creation was never recorded, and it belongs to user {}",
            found.uid
        ))
    } else if !is_folder && found.links != 1 {
        Some("its creation was never recorded, and it has other names as well".into())
    } else if !is_folder && !matches!(found.file_type, FileType::RegularFile | FileType::Socket) {
        Some(format!(
            "its creation was never recorded, and it is a {}",
            name_of(found.file_type)
        ))
    } else {
        None
    })
}

/// Looks at a file or folder that was just made, for [`Entry::created`](super::Entry::created).
pub(super) fn identify(resource: &Resource) -> Result<FileIdentity> {
    let failed = |error| unreachable_path(resource, error);
    let missing = || {
        Error::new(ErrorKind::NotFound, "what was to be made is not there")
            .subject(resource.path().unwrap_or_default().display())
    };
    let spot = Spot::open(resource)?.ok_or_else(missing)?;
    let found = spot.look().map_err(failed)?.ok_or_else(missing)?;
    let is_folder = found.file_type == FileType::Directory;
    if is_folder != (resource.kind == Resource::FOLDER) || found.file_type == FileType::Symlink {
        return Err(Error::new(
            ErrorKind::Io,
            format!(
                "there is a {} where a {} was to be made",
                name_of(found.file_type),
                resource.kind
            ),
        )
        .subject(resource.path().unwrap_or_default().display()));
    }
    Ok(found.identity)
}

fn name_of(file_type: FileType) -> &'static str {
    match file_type {
        FileType::RegularFile => "regular file",
        FileType::Directory => "folder",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "file of unknown type",
    }
}

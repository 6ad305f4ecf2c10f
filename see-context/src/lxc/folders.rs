//! Folders of the host that a container sees, made for it and removed with it.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use see_core::ledger::{Entry, Resource};
use see_core::{Error, Result};
use see_libvirt::xml::{DomainXml, Element};

use super::configuration::LxcFilesystem;
use crate::allocation::{Site, make_folder};
use crate::error::blocking;
use crate::host::first_closed;

/// One such folder.
#[derive(Debug, Clone)]
pub(super) struct HostFolder {
    /// The folder in which each sandbox gets one named by its identifier.
    parent: PathBuf,
    /// Where it is mounted.
    target: String,
}

/// Checks the sections.
pub(super) fn prepare(sections: &[LxcFilesystem]) -> Result<Vec<HostFolder>> {
    let mut folders: Vec<HostFolder> = Vec::new();
    for section in sections {
        let parent = section
            .source_path
            .existing_folder("a folder for the containers' folders")?;
        let place = section.source_path.place();
        if folders.iter().any(|other| other.parent == parent) {
            return Err(Error::configuration(
                place.clone(),
                "this folder is there for another `target_path` already",
            )
            .advice("give each `target_path` a `source_path` of its own"));
        }
        // What others may pass is enough.
        if let Some(closed) = first_closed(&parent.join(".")) {
            return Err(Error::configuration(
                place.clone(),
                format!("the container's users cannot pass {}", closed.display()),
            )
            .advice("let others pass it (chmod o+x), or take another folder"));
        }
        folders.push(HostFolder {
            parent,
            target: target(section)?,
        });
    }
    Ok(folders)
}

fn target(section: &LxcFilesystem) -> Result<String> {
    let target = section.target_path.trim_end_matches('/');
    let plain = target
        .split('/')
        .skip(1)
        .all(|part| !part.is_empty() && part != "." && part != "..");
    if !target.starts_with('/') || !plain {
        return Err(Error::configuration(
            section.target_path.place().clone(),
            format!(
                "found the target `{}`, expected an absolute path below the container's root",
                section.target_path.escape_debug()
            ),
        )
        .advice("such as /mnt/sample"));
    }
    Ok(target.to_owned())
}

impl HostFolder {
    /// The sandbox's own.
    pub(super) fn intent(&self, site: &Site<'_>) -> Result<Resource> {
        Resource::folder(&self.parent, site.identifier.to_string())
    }

    /// Makes it, and gives it to this user and group of the container's.
    pub(super) async fn make(&self, entry: Entry, (uid, gid): (u32, u32)) -> Result<PathBuf> {
        let folder = make_folder(entry).await?;
        let given = folder.clone();
        blocking("give the folder to the container", move || {
            chown(&given, Some(uid), Some(gid)).map_err(|error| {
                Error::io("a folder cannot be given to the container", error)
                    .subject(given.display())
            })
        })
        .await?;
        Ok(folder)
    }

    /// Mounts it in the domain.
    pub(super) fn fill_in(&self, domain: &mut DomainXml, folder: &Path) {
        domain.add_device(
            Element::new("filesystem")
                .with("type", "mount")
                .with_child(Element::new("source").with("dir", folder.to_string_lossy()))
                .with_child(Element::new("target").with("dir", &self.target)),
        );
    }
}

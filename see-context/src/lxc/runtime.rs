//! What libvirt makes for a container at run time, and leaves behind when the container ends.

use std::path::Path;

use see_core::ledger::{Entry, Resource};
use see_core::{Error, ErrorKind, Result};

use crate::allocation::Site;

/// Where libvirt's LXC driver keeps it.
const FOLDER: &str = "/run/libvirt/lxc";
/// Folders that are mounted on in the container alone, so that they are empty for the host.
const MOUNT_POINTS: [&str; 3] = ["dev", "devpts", "fuse"];
/// The controller's socket.
const SOCKET: &str = "sock";

/// Empty folders and a socket named after the container. They are only ever removed by the rules for what was
/// not seen coming into being: root's, empty, and without a second name.
pub(super) fn intents(site: &Site<'_>) -> Result<Vec<Resource>> {
    // A daemon that keeps it elsewhere is not known to leave it.
    if !Path::new(FOLDER).is_dir() {
        return Ok(Vec::new());
    }
    let name = |ending: &str| format!("{}.{ending}", site.identifier);
    let mut planned = vec![Resource::file(FOLDER, name(SOCKET))?];
    for ending in MOUNT_POINTS {
        planned.push(Resource::folder(FOLDER, name(ending))?);
    }
    Ok(planned)
}

/// Checks that no other container has any of it: libvirt makes it.
pub(super) async fn check_free(planned: Vec<Entry>) -> Result<()> {
    let there = planned
        .iter()
        .filter_map(Entry::path)
        .find(|path| path.symlink_metadata().is_ok());
    let Some(path) = there else {
        return Ok(());
    };
    // None of them is ours.
    for entry in planned {
        entry.gone().await?;
    }
    Err(
        Error::new(ErrorKind::AlreadyExists, "there is another container's")
            .subject(path.display()),
    )
}

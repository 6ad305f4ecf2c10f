//! The folder of the agent's socket and the console's log. Its path is short, and nobody but this
//! user and the hypervisor gets in.

use std::path::{Path, PathBuf};

use see_core::Result;
use see_core::ledger::{Entry, Resource};
use see_libvirt::xml::DomainXml;

use crate::allocation::{Site, exactly, make_folder};
use crate::host::short_folder;
use crate::hypervisor::Owners;

/// The folder.
pub(crate) fn intents(site: &Site<'_>) -> Result<Vec<Resource>> {
    let folder = Resource::folder(short_folder()?, format!("see-{}", site.identifier))?;
    Ok(vec![folder])
}

/// Makes it.
pub(crate) async fn make(entries: Vec<Entry>) -> Result<PathBuf> {
    let [folder] = exactly(entries)?;
    make_folder(folder).await
}

/// Gives the domain a serial port whose output goes to a file in the folder, unless it has one of its own.
pub(crate) fn console(domain: &mut DomainXml, folder: &Path, owners: Owners) -> Option<PathBuf> {
    let file = folder.join("console.log");
    let relabel = owners == Owners::Kept;
    domain.set_console_file(&file, relabel).then_some(file)
}

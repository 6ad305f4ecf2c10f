//! The image beneath a sandbox's overlay, brought to where the emulator can open it.
//!
//! The system's daemon runs QEMU as an account of its own, which opens the image by its path: through every folder
//! above it. An image in a store or a home of mode 0700 is out of its reach. Neither the store nor the user's folders
//! are opened for that: what such an image holds, credentials among it, is for its owner. Instead
//!
//! - an image of a provider's store gets a hard link in the sandbox's own folder, below a folder that an access
//!   control list opens to that one account. The file is read-only to everybody (0444), and libvirt is told to leave
//!   its owner alone, so that no emulator can write the store;
//! - any other image, and one on another file system, is copied into the sandbox's folder, sharing its blocks where
//!   the file system can. Only there libvirt changes the owner.
//!
//! Both lie in a folder of the ledger, and go with it.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use see_core::ledger::Entry;
use see_core::{Error, ImageFormat, Result, StopToken};
use see_libvirt::Connection;

use super::account::Account;
use super::clone::{self, Base, How};
use super::first_closed;
use crate::error::blocking;

/// The folder for links, below the sandbox's own. virt-aa-helper passes names that end in `.img`.
const LINKS: &str = "base";

/// What an overlay stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reachable {
    pub(super) base: Base,
    /// Whether libvirt may give it to the emulator's account: a copy of the sandbox's own alone.
    pub(super) relabel: bool,
}

/// Brings a base image within reach of the daemon's emulators; `name` is unique among the sandbox's disks.
pub(super) async fn within_reach(
    base: &Base,
    is_stored: bool,
    (folder, name): (&Path, &str),
    connection: &Connection,
    maker: &Entry,
    stop: &StopToken,
) -> Result<Reachable> {
    let as_it_is = Reachable {
        base: base.clone(),
        relabel: false,
    };
    let path = base.path.clone();
    let closed = blocking("look at the disk image", move || Ok(first_closed(&path))).await?;
    // What everybody can read needs no look at accounts.
    if closed.is_none() {
        return Ok(as_it_is);
    }
    let account = Account::of_emulators(connection).await?;
    let (path, links) = (base.path.clone(), folder.join(LINKS));
    let link = links.join(format!("{name}.img"));
    let found = blocking("link the disk image", move || {
        // A driver that knows no accounts has none of its own.
        let Some(account) = account else {
            return Ok(Way::AsItIs);
        };
        let Some(closed) = account.first_closed(&path) else {
            return Ok(Way::AsItIs);
        };
        if is_stored && link_for(&account, &path, (&links, &link))? {
            return Ok(Way::Link(link));
        }
        Ok(Way::Copy(closed))
    })
    .await?;
    let closed = match found {
        Way::AsItIs => return Ok(as_it_is),
        Way::Link(path) => {
            let base = Base {
                path,
                format: base.format,
            };
            return Ok(Reachable {
                base,
                relabel: false,
            });
        }
        Way::Copy(closed) => closed,
    };
    let advice = match is_stored {
        true => {
            "to save the copies, let `cache.folder` of the provider and the folder for disks \
             (`disk.clone.storage_pool_path`, else /var/tmp) lie on one file system"
        }
        false => "to save the copies, let the account pass that folder and read the image",
    };
    tracing::warn!(
        image = %base.path.display(),
        "the disk image is copied for this sandbox: the account of the emulators is kept out by {} ({advice})",
        closed.display()
    );
    let copy = folder.join(format!("{name}.qcow2"));
    clone::make(base, &copy, How::Copy(ImageFormat::Qcow2), maker, stop).await?;
    Ok(Reachable {
        base: Base {
            path: copy,
            format: Some(ImageFormat::Qcow2),
        },
        relabel: true,
    })
}

/// How an image comes within reach.
enum Way {
    AsItIs,
    Link(PathBuf),
    /// Since this part of its path is closed.
    Copy(PathBuf),
}

/// Links a stored image for one account; whether that account can read it so. Where it cannot, nothing is left.
fn link_for(account: &Account, image: &Path, (links, link): (&Path, &Path)) -> Result<bool> {
    let failed =
        |error| Error::io("the disk image cannot be linked", error).subject(links.display());
    match DirBuilder::new().mode(0o700).create(links) {
        Ok(()) => {}
        // Of an earlier disk of this sandbox.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    // A file system may have neither lists nor links, or be another one than the store's.
    let made = account
        .admit(links)
        .and_then(|()| fs::hard_link(image, link));
    if let Err(error) = made {
        tracing::debug!(%error, image = %image.display(), "the stored image cannot be linked");
        return Ok(false);
    }
    // The sandbox's own folder is opened once its disks are made, so only what is in it counts.
    if account.may_read_in(links, link) {
        return Ok(true);
    }
    fs::remove_file(link).map_err(failed)?;
    Ok(false)
}

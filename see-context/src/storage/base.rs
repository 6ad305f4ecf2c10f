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

use std::fmt;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use see_core::ledger::Entry;
use see_core::{Error, ImageFormat, Result, StopToken};
use see_libvirt::Connection;

use super::account::{self, Account};
use super::clone::{self, Base, How};
use crate::error::blocking;
use crate::host::first_closed;

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
    let account = account::of_emulators(connection).await?;
    let (path, links) = (base.path.clone(), folder.join(LINKS));
    let link = links.join(format!("{name}.img"));
    let found = blocking("link the disk image", move || {
        // A driver that knows no accounts has none of its own.
        let Some(account) = account.map(Account::of_host) else {
            return Ok(Way::AsItIs);
        };
        let Some(closed) = account.first_closed(&path) else {
            return Ok(Way::AsItIs);
        };
        if !is_stored {
            return Ok(Way::Copy(closed, None));
        }
        Ok(match link_for(&account, &path, (&links, &link))? {
            None => Way::Link(link),
            no_link => Way::Copy(closed, no_link),
        })
    })
    .await?;
    let (closed, no_link) = match found {
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
        Way::Copy(closed, no_link) => (closed, no_link),
    };
    let why = match no_link {
        Some(no_link) => no_link.to_string(),
        None => String::from("to save the copies, let the account pass that and read the image"),
    };
    tracing::warn!(
        image = %base.path.display(),
        "the disk image is copied for this sandbox: the account of the emulators is kept out by {} ({why})",
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
    /// Since this part of its path is closed; an image of a store also since it cannot be linked.
    Copy(PathBuf, Option<NoLink>),
}

/// Why a stored image has no link that the emulators' account can read.
#[derive(Debug)]
enum NoLink {
    /// The folder for links cannot be opened to the account alone.
    NoLists(std::io::Error),
    /// The link cannot be made.
    Refused(std::io::Error),
    /// The file itself keeps the account out.
    Mode(u32),
}

impl fmt::Display for NoLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLists(error) => write!(
                f,
                "and the folder for disks cannot be opened to it alone: {error}; to save the copies, let \
                 `disk.clone.storage_pool_path` (else /var/tmp) lie on a file system with access control lists"
            ),
            Self::Refused(error) if error.kind() == std::io::ErrorKind::CrossesDevices => write!(
                f,
                "and the image lies on another file system than the folder for disks; to save the copies, let \
                 `cache.folder` of the provider and `disk.clone.storage_pool_path` (else /var/tmp) lie on one"
            ),
            Self::Refused(error) => write!(f, "and the image cannot be linked: {error}"),
            Self::Mode(mode) => write!(
                f,
                "and by the image's mode {mode:04o}; to save the copies, give it mode 0444"
            ),
        }
    }
}

/// Links a stored image for one account. Where that account cannot read it so, nothing is left of the link, and the
/// answer is why. Blocks.
fn link_for(
    account: &Account,
    image: &Path,
    (links, link): (&Path, &Path),
) -> Result<Option<NoLink>> {
    let failed =
        |error| Error::io("the disk image cannot be linked", error).subject(links.display());
    match DirBuilder::new().mode(0o700).create(links) {
        Ok(()) => {}
        // Of an earlier disk of this sandbox.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    // A file system may have neither lists nor links, or be another one than the store's.
    if let Err(error) = account.admit(links) {
        return Ok(Some(NoLink::NoLists(error)));
    }
    if let Err(error) = fs::hard_link(image, link) {
        return Ok(Some(NoLink::Refused(error)));
    }
    // The sandbox's own folder is opened once its disks are made, so only what is in it counts.
    if account.may_read_in(links, link) {
        return Ok(None);
    }
    let mode = fs::metadata(link).map_err(failed)?.permissions().mode();
    fs::remove_file(link).map_err(failed)?;
    Ok(Some(NoLink::Mode(mode & 0o7777)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stored_image_that_is_not_linked_says_the_reason_that_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let (image, links) = (folder.path().join("image"), folder.path().join(LINKS));
        let link = links.join("base.img");
        let account = Account::of_host((4_000_001, 4_000_001));
        fs::write(&image, "").unwrap();
        let mode = |mode| fs::set_permissions(&image, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o400);
        let told = link_for(&account, &image, (&links, &link)).unwrap();
        assert!(told.unwrap().to_string().contains("mode 0400"));
        assert!(!link.exists());
        mode(0o444);
        let told = link_for(&account, &image, (&links, &link)).unwrap();
        assert!(told.is_none() && link.exists());
        let told = link_for(&account, &folder.path().join("none"), (&links, &link)).unwrap();
        assert!(told.unwrap().to_string().contains("cannot be linked"));
        let told = NoLink::Refused(rustix::io::Errno::XDEV.into()).to_string();
        assert!(told.contains("another file system"), "{told}");
        let told = NoLink::NoLists(rustix::io::Errno::OPNOTSUPP.into()).to_string();
        assert!(told.contains("access control lists"), "{told}");
    }
}

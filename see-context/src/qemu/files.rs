//! The user's files that a domain's XML names: its guest writes to none of them.

use see_core::config::ConfigPath;
use see_core::{Error, ErrorKind, ImageFormat, Result};
use see_libvirt::xml::{DomainXml, FurtherDisk, XmlError};

use crate::error::{blocking, xml};
use crate::hypervisor::Owners;
use crate::storage::{Base, Boot, Nvram, check_image};

/// What each sandbox gets of its own, beside the image's disk.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// The bases of further disks, each of which gets an overlay.
    pub(super) disks: Vec<Base>,
    /// The firmware's variables, where it keeps any.
    pub(super) nvram: Option<Nvram>,
    /// What the machine boots from without a disk, where the daemon would change its owner.
    pub(super) boot: Vec<Boot>,
}

/// Finds them, and has everything else that the guest could write shown read-only.
pub(super) async fn prepare(
    domain: &mut DomainXml,
    path: &ConfigPath,
    owners: Owners,
) -> Result<Files> {
    let located = |error| xml(error, path.path(), path.place());
    let further = domain.further_disks().map_err(located)?;
    domain.protect_loader().map_err(located)?;
    domain.protect_media(owners == Owners::Kept);
    domain.remove_unused_nvram();
    let shown = domain.shown_images();
    let named = domain.nvram().map_err(located)?;
    let has_nvram = domain.has_nvram();
    let boot = match owners {
        Owners::Kept => Vec::new(),
        Owners::Changed => domain.boot_files().map_err(located)?,
    };
    let (disks, further_ones, nvram, boot) = blocking("look at the domain's files", move || {
        let disks: Vec<_> = further
            .into_iter()
            .map(|disk| (disk.position, base(disk)))
            .collect();
        let further_ones = disks.len();
        // QEMU would open what lies beneath, wherever the file says that it is.
        let shown = shown.into_iter().filter(|disk| disk.file.is_file());
        let disks = disks
            .into_iter()
            .chain(shown.map(|disk| (disk.position, base(disk))));
        let disks: Vec<_> = disks.collect();
        let boot = boot.into_iter().map(|(which, file)| Boot::new(which, file));
        let boot: Result<Vec<_>> = boot.collect();
        Ok((
            disks,
            further_ones,
            has_nvram.then(|| Nvram::new(named)),
            boot,
        ))
    })
    .await?;
    let disks = disks.into_iter().map(|(position, base)| {
        base.map_err(|error| {
            let problem = error.to_string();
            located(XmlError::Conflict { position, problem })
        })
    });
    let mut disks = disks.collect::<Result<Vec<_>>>()?;
    // Those that are only read get no overlay.
    disks.truncate(further_ones);
    Ok(Files {
        disks,
        nvram: nvram
            .transpose()
            .map_err(|error| configuration(error).at(path.place().clone()))?,
        boot: boot.map_err(|error| configuration(error).at(path.place().clone()))?,
    })
}

/// A further disk's file, which has to be one that an overlay can stand on.
fn base(disk: FurtherDisk) -> Result<Base> {
    check_image(&disk.file)?;
    // A raw image may begin with whatever its guest wrote there; others are what their header says.
    let format = match disk.format.as_deref() {
        Some("raw") => ImageFormat::Raw,
        said => {
            let found = ImageFormat::of_path(&disk.file)?;
            if let Some(said) = said.filter(|said| *said != found.name()) {
                return Err(Error::new(
                    ErrorKind::Configuration,
                    format!(
                        "the disk is said to be {}, and is {}",
                        said.escape_debug(),
                        found.name()
                    ),
                )
                .subject(disk.file.display()));
            }
            found
        }
    };
    Ok(Base {
        path: disk.file,
        format: Some(format),
    })
}

/// A mistake in the configuration, whatever the host says to it.
fn configuration(error: Error) -> Error {
    let told = Error::new(ErrorKind::Configuration, error.to_string());
    told.caused_by(error)
}

//! The folder of a sandbox's disks, with all of them in it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use see_core::ledger::{Entry, Resource};
use see_core::{Error, ErrorKind, Image, Result};
use see_libvirt::xml::{Backing, DiskSource};

use super::base::{Reachable, within_reach};
use super::boot::Boot;
use super::clone::{self, Base, How};
use super::nvram::Nvram;
use super::{Owners, QEMU_IMG, Storage};
use crate::allocation::{Entries, Making, Part, Site};
use crate::error::blocking;

/// A disk of a sandbox's own over an image, and whatever else of the user's files its guest must be able to
/// write: each is a copy or an overlay in one folder.
#[derive(Debug)]
pub(crate) struct SandboxDisk {
    storage: Storage,
    image: Image,
    further: Vec<Base>,
    nvram: Option<Nvram>,
    boot: Vec<Boot>,
}

impl SandboxDisk {
    /// A disk over this image.
    ///
    /// # Errors
    /// When it is not a regular file with an absolute path.
    pub(crate) fn new(storage: Storage, image: Image) -> Result<Self> {
        check_image(&image.path)?;
        Ok(Self {
            storage,
            image,
            further: Vec::new(),
            nvram: None,
            boot: Vec::new(),
        })
    }

    /// An overlay for each of the domain's further disks as well, in their order.
    pub(crate) fn and_further(mut self, bases: &[Base]) -> Self {
        self.further.extend_from_slice(bases);
        self
    }

    /// The firmware's variables as well.
    pub(crate) fn and_nvram(mut self, nvram: Option<&Nvram>) -> Self {
        self.nvram = nvram.cloned();
        self
    }

    /// Copies of what the machine boots from without a disk as well.
    pub(crate) fn and_boot(mut self, files: &[Boot]) -> Self {
        self.boot.extend_from_slice(files);
        self
    }

    /// One disk of these, with whatever it depends on.
    async fn disk(
        &self,
        (base, is_stored): (&Base, bool),
        (folder, number): (&Path, usize),
        how: How,
        maker: &Entry,
        making: &Making<'_>,
    ) -> Result<DiskSource> {
        let numbered = |name: &str| match number {
            1 => name.to_owned(),
            number => format!("{name}-{number}"),
        };
        let mut beneath = Reachable {
            base: base.clone(),
            relabel: self.storage.owners == Owners::Kept,
        };
        if how == How::Overlay && self.storage.owners == Owners::Changed {
            let place = (folder, &*numbered("base"));
            let connection = making.connection()?;
            beneath = within_reach(base, is_stored, place, connection, maker, making.stop).await?;
        }
        let disk = folder.join(format!("{}.{}", numbered("disk"), how.format().name()));
        let format = clone::make(&beneath.base, &disk, how, maker, making.stop).await?;
        let backing = (how == How::Overlay).then(|| Backing {
            file: beneath.base.path,
            format: format.name().to_owned(),
            relabel: beneath.relabel,
        });
        Ok(DiskSource {
            file: disk,
            format: how.format().name().to_owned(),
            backing: Vec::from_iter(backing),
            relabel: true,
        })
    }
}

#[async_trait]
impl Part for SandboxDisk {
    /// The folder with the disks in it, and the process that makes them, which outlives us should we be
    /// killed.
    fn intents(&self, site: &Site) -> Result<Vec<Resource>> {
        let name = format!("{}{}", self.storage.prefix, site.identifier);
        Ok(vec![
            Resource::folder(&self.storage.parent, name)?,
            Resource::process(QEMU_IMG),
        ])
    }

    async fn make(&self, mut entries: Entries, making: &mut Making<'_>) -> Result<()> {
        let folder = making.make_folder(entries.next()?).await?;
        let maker = entries.next()?;
        let base = Base {
            path: self.image.path.clone(),
            format: None,
        };
        let how = self.storage.how;
        let image = (&base, self.image.is_stored);
        let first = self.disk(image, (&folder, 1), how, &maker, making).await?;
        let mut further = Vec::with_capacity(self.further.len());
        for (base, number) in self.further.iter().zip(2..) {
            let place = (&*folder, number);
            let source = self.disk((base, false), place, How::Overlay, &maker, making);
            further.push(source.await?);
        }
        maker.gone().await?;
        for source in std::iter::once(&first).chain(&further) {
            making.abilities.disks.push(source.file.clone());
            let beneath = source.backing.iter().map(|backing| backing.file.clone());
            making.abilities.opened.push(source.file.clone());
            making.abilities.opened.extend(beneath);
        }
        making
            .domain
            .set_disk(&first)
            .map_err(|error| Error::new(ErrorKind::Configuration, error.to_string()))?;
        making.domain.set_further_disks(&further);
        if let Some(nvram) = &self.nvram {
            let file = nvram.create(&folder).await?;
            making.domain.set_nvram(&file);
            making.abilities.opened.push(file);
        }
        for boot in &self.boot {
            let (which, file) = boot.create(&folder).await?;
            making.domain.set_boot_file(which, &file);
            making.abilities.opened.push(file);
        }
        if self.storage.owners == Owners::Changed {
            let_through(folder).await?;
        }
        Ok(())
    }
}

/// Others may pass the folder to a file whose name they know; libvirt gives the file itself to the emulator's
/// account. Until here nobody could.
async fn let_through(folder: PathBuf) -> Result<()> {
    blocking("open the folder of the disk", move || {
        fs::set_permissions(&folder, Permissions::from_mode(0o711)).map_err(|error| {
            Error::io("the folder of the disk cannot be opened up", error).subject(folder.display())
        })
    })
    .await
}

/// Refuses an image that is not a regular file with an absolute path.
pub(crate) fn check_image(image: &Path) -> Result<()> {
    let wrong = |message: &'static str| {
        Err(Error::new(ErrorKind::Configuration, message).subject(image.display()))
    };
    if !image.is_absolute() {
        return wrong("the path of a disk image must be absolute");
    }
    if image.to_str().is_none() {
        return wrong("the path of a disk image must be UTF-8, since libvirt's XML is");
    }
    match fs::metadata(image) {
        Ok(found) if found.is_file() => Ok(()),
        Ok(_) => wrong("a disk image must be a regular file"),
        Err(error) => {
            Err(Error::io("the disk image cannot be used", error).subject(image.display()))
        }
    }
}

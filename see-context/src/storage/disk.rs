//! The folder of a sandbox's disks, with all of them in it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use see_core::ledger::{Entry, Resource};
use see_core::{Error, ErrorKind, Image, Result};
use see_libvirt::Connection;
use see_libvirt::xml::{Backing, BootFile, DiskSource, DomainXml};

use super::base::{Reachable, within_reach};
use super::boot::Boot;
use super::clone::{self, Base, How};
use super::nvram::Nvram;
use super::{QEMU_IMG, Storage};
use crate::allocation::{Site, exactly, make_folder};
use crate::error::blocking;
use crate::hypervisor::Owners;

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

    /// The folder with the disks in it, and the process that makes them, which outlives us should we be
    /// killed.
    pub(crate) fn intents(&self, site: &Site<'_>) -> Result<Vec<Resource>> {
        let name = format!("{}{}", self.storage.prefix, site.identifier);
        Ok(vec![
            Resource::folder(&self.storage.parent, name)?,
            Resource::process(QEMU_IMG),
        ])
    }

    /// Makes all of it. Only a daemon's connection is needed: it knows the account of its emulators.
    pub(crate) async fn make(
        &self,
        entries: Vec<Entry>,
        connection: Option<&Connection>,
        site: &Site<'_>,
    ) -> Result<Disks> {
        let [folder, maker] = exactly(entries)?;
        let folder = make_folder(folder).await?;
        let base = Base {
            path: self.image.path.clone(),
            format: None,
        };
        let how = self.storage.how;
        let image = (&base, self.image.is_stored);
        let on = (connection, site);
        let first = self.disk(image, (&folder, 1), how, &maker, on).await?;
        let mut further = Vec::with_capacity(self.further.len());
        for (base, number) in self.further.iter().zip(2..) {
            let place = (&*folder, number);
            let source = self.disk((base, false), place, How::Overlay, &maker, on);
            further.push(source.await?);
        }
        maker.gone().await?;
        let nvram = match &self.nvram {
            Some(nvram) => Some(nvram.create(&folder).await?),
            None => None,
        };
        let mut boot = Vec::with_capacity(self.boot.len());
        for file in &self.boot {
            boot.push(file.create(&folder).await?);
        }
        if self.storage.owners == Owners::Changed {
            let_through(folder).await?;
        }
        Ok(Disks {
            first,
            further,
            nvram,
            boot,
        })
    }

    /// One disk of these, with whatever it depends on.
    async fn disk(
        &self,
        (base, is_stored): (&Base, bool),
        (folder, number): (&Path, usize),
        how: How,
        maker: &Entry,
        (connection, site): (Option<&Connection>, &Site<'_>),
    ) -> Result<DiskSource> {
        let numbered = |name: &str| match number {
            1 => name.to_owned(),
            number => format!("{name}-{number}"),
        };
        let mut beneath = Reachable {
            base: base.clone(),
            relabel: self.storage.owners == Owners::Kept,
        };
        if how == How::Overlay
            && self.storage.owners == Owners::Changed
            && let Some(connection) = connection
        {
            let place = (folder, &*numbered("base"));
            beneath = within_reach(base, is_stored, place, connection, maker, site.stop).await?;
        }
        let disk = folder.join(format!("{}.{}", numbered("disk"), how.format().name()));
        let format = clone::make(&beneath.base, &disk, how, maker, site.stop).await?;
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

/// The disks of a sandbox that were made, and the other files in their folder.
#[derive(Debug)]
pub(crate) struct Disks {
    first: DiskSource,
    further: Vec<DiskSource>,
    nvram: Option<PathBuf>,
    boot: Vec<(BootFile, PathBuf)>,
}

impl Disks {
    /// Gives them to the domain.
    pub(crate) fn fill_in(&self, domain: &mut DomainXml) -> Result<()> {
        set_disk(domain, &self.first)?;
        domain.set_further_disks(&self.further);
        if let Some(file) = &self.nvram {
            domain.set_nvram(file);
        }
        for (which, file) in &self.boot {
            domain.set_boot_file(*which, file);
        }
        Ok(())
    }

    /// Those that grow as the guest writes.
    pub(crate) fn written(&self) -> Vec<PathBuf> {
        let all = std::iter::once(&self.first).chain(&self.further);
        all.map(|source| source.file.clone()).collect()
    }

    /// Everything that the hypervisor opens.
    pub(crate) fn opened(&self) -> Vec<PathBuf> {
        let all = std::iter::once(&self.first).chain(&self.further);
        let beneath = all.flat_map(|source| &source.backing);
        let mut opened = self.written();
        opened.extend(beneath.map(|backing| backing.file.clone()));
        opened.extend(self.nvram.clone());
        opened.extend(self.boot.iter().map(|(_, file)| file.clone()));
        opened
    }
}

/// Gives the domain its first disk.
pub(crate) fn set_disk(domain: &mut DomainXml, source: &DiskSource) -> Result<()> {
    domain
        .set_disk(source)
        .map_err(|error| Error::new(ErrorKind::Configuration, error.to_string()))
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

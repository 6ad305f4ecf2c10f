//! The variables of a machine's firmware: a file of each machine's own, beside its disks.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use see_core::{Error, ErrorKind, ImageFormat, Result};
use see_libvirt::xml::NvramFiles;

use super::boot::copy_of;
use crate::error::blocking;

/// No firmware has more variables than these bytes hold.
const LARGEST: u64 = 64 << 20;

/// Where a machine's variables come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Nvram {
    /// The user's file, which is copied. Without one libvirt fills in a template.
    users: Option<PathBuf>,
}

impl Nvram {
    /// Those of the file that the user names, where it exists; it is only read.
    ///
    /// # Errors
    /// When it is there and cannot be used, or its copy would lead the guest to another file.
    pub(crate) fn new(named: NvramFiles) -> Result<Self> {
        if named.is_qcow2
            && let Some(template) = named.template.filter(|template| template.is_file())
        {
            ImageFormat::of_path(&template)?;
        }
        let Some(path) = named.file else {
            return Ok(Self { users: None });
        };
        match open(&path) {
            Ok(_) if named.is_qcow2 => match ImageFormat::of_path(&path)? {
                ImageFormat::Qcow2 => Ok(Self { users: Some(path) }),
                found => Err(Error::new(
                    ErrorKind::Configuration,
                    format!(
                        "the firmware's variables are {}, and `format` of <nvram> says qcow2",
                        found.name()
                    ),
                )
                .subject(path.display())),
            },
            Ok(_) => Ok(Self { users: Some(path) }),
            // It names where another machine's would be: dumped XML does.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Self { users: None }),
            Err(error) => Err(error),
        }
    }

    /// The file for the machine that owns this folder. Without a file of the user's it does not exist yet.
    pub(super) async fn create(&self, folder: &Path) -> Result<PathBuf> {
        let file = folder.join("nvram.fd");
        if let Some(users) = self.users.clone() {
            let copy = file.clone();
            blocking("copy the firmware's variables", move || {
                let failed = |error| {
                    Error::io("the firmware's variables cannot be copied", error)
                        .subject(copy.display())
                };
                copy_of(&mut open(&users)?.take(LARGEST), &copy).map_err(failed)
            })
            .await?;
        }
        Ok(file)
    }
}

fn open(path: &Path) -> Result<File> {
    let failed = |error| {
        Error::io("the firmware's variables cannot be read", error)
            .subject(path.display())
            .advice("without <nvram> the machine begins with those of the firmware's template")
    };
    let found = std::fs::metadata(path).map_err(failed)?;
    if !found.is_file() || found.len() > LARGEST {
        return Err(Error::new(
            ErrorKind::Configuration,
            "the firmware's variables have to be a regular file of at most 64 MiB",
        )
        .subject(path.display()));
    }
    File::open(path).map_err(failed)
}

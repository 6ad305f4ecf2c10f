//! One disk made from one base image, which is only read.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use see_core::ledger::Entry;
use see_core::{Error, ErrorKind, ImageFormat, Result, StopToken};

use super::qemu_img;
use crate::error::blocking;

/// What a disk is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Base {
    /// The image, absolute. It is never written.
    pub(crate) path: PathBuf,
    /// Its format, where it is said; else its header tells.
    pub(crate) format: Option<ImageFormat>,
}

/// How a disk is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// As a qcow2 that holds what differs from its base.
    Overlay,
    /// As a full copy in this format.
    Copy(ImageFormat),
}

impl How {
    /// The format of the disk.
    pub(super) fn format(self) -> ImageFormat {
        match self {
            Self::Overlay => ImageFormat::Qcow2,
            Self::Copy(format) => format,
        }
    }
}

/// Makes `disk`, which only its owner may read: an overlay of the base, or a full copy.
///
/// `maker` is the entry of the process that does so, which outlives us should we be killed. The
/// base's format comes back.
pub(super) async fn make(
    base: &Base,
    disk: &Path,
    how: How,
    maker: &Entry,
    stop: &StopToken,
) -> Result<ImageFormat> {
    let (path, said) = (base.path.clone(), base.format);
    let (format, before) = blocking("inspect the disk image", move || {
        let before = Trace::of(&path)?;
        let format = match said {
            Some(ImageFormat::Raw) => ImageFormat::Raw,
            _ => ImageFormat::of_path(&path)?,
        };
        if said.is_some_and(|said| said != format) {
            return Err(Error::new(
                ErrorKind::Io,
                "the disk image is of another format than when it was checked",
            )
            .subject(path.display()));
        }
        Ok((format, before))
    })
    .await?;
    stop.check("create the disk")?;
    let made = match how {
        How::Overlay => qemu_img::overlay(&base.path, format, disk, maker.mark(), stop).await,
        How::Copy(as_format) => copy((&base.path, format), (disk, as_format), maker, stop).await,
    };
    let (path, disk) = (base.path.clone(), disk.to_owned());
    blocking("create the disk", move || {
        if let Err(error) = made {
            // Its own words say less than what happened to the image meanwhile.
            before.check(&path).map_err(|changed| match error.kind() {
                ErrorKind::Stopped => Error::stopped("create the disk"),
                _ => changed,
            })?;
            return Err(error);
        }
        before.check(&path)?;
        // It holds what the image holds, and that may be for few to read. The hypervisor gives it
        // to the emulator's account itself.
        fs::set_permissions(&disk, Permissions::from_mode(0o600))
            .map_err(|error| failed(&disk, error))?;
        Ok(format)
    })
    .await
}

/// A full copy: one that shares the image's blocks where the file system can do that, else one
/// that is written anew.
async fn copy(
    (base, format): (&Path, ImageFormat),
    (disk, made): (&Path, ImageFormat),
    maker: &Entry,
    stop: &StopToken,
) -> Result<()> {
    if format == ImageFormat::Qcow2 && made == ImageFormat::Qcow2 {
        let (from, to) = (base.to_owned(), disk.to_owned());
        let shared = blocking("share the blocks of the disk image", move || {
            reflink(&from, &to)
        });
        if shared.await? {
            tracing::debug!(disk = %disk.display(), "the full copy shares the image's blocks");
            return Ok(());
        }
    }
    qemu_img::copy((base, format), (disk, made), maker.mark(), stop).await
}

/// Makes a file that shares the blocks of another one; whether the file system can do that.
fn reflink(from: &Path, to: &Path) -> Result<bool> {
    let source = File::open(from).map_err(|error| {
        Error::io("the disk image cannot be read", error).subject(from.display())
    })?;
    let target = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)
        .map_err(|error| failed(to, error))?;
    match rustix::fs::ioctl_ficlone(&target, &source) {
        // What was inspected may have been another image.
        Ok(()) => ImageFormat::of_path(to).map(|_| true),
        Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY | Errno::NOSYS) => {
            fs::remove_file(to).map_err(|error| failed(to, error))?;
            Ok(false)
        }
        Err(error) => Err(failed(to, error.into())),
    }
}

fn failed(disk: &Path, error: std::io::Error) -> Error {
    Error::io("the disk cannot be made", error).subject(disk.display())
}

/// What shows that an image is the one it was, and that nobody wrote to it. The time of its entry's last change is none
/// of that: each link to it that comes or goes sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trace {
    place: (u64, u64),
    size: u64,
    modified: (i64, i64),
}

impl Trace {
    fn of(image: &Path) -> Result<Self> {
        let found = fs::metadata(image).map_err(|error| {
            Error::io("the disk image cannot be used", error).subject(image.display())
        })?;
        Ok(Self::from(&found))
    }

    fn check(&self, image: &Path) -> Result<()> {
        let what = match Self::of(image) {
            Ok(now) if now == *self => return Ok(()),
            Ok(_) => "was changed",
            Err(error) if error.kind() == ErrorKind::NotFound => "vanished",
            Err(error) => return Err(error),
        };
        let message = format!("the disk image {what} while the sandbox's disk was made from it");
        let kind = match what {
            "vanished" => ErrorKind::NotFound,
            _ => ErrorKind::Io,
        };
        Err(Error::new(kind, message).subject(image.display()))
    }
}

impl From<&Metadata> for Trace {
    fn from(found: &Metadata) -> Self {
        Self {
            place: (found.dev(), found.ino()),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_vanishes_or_changes_while_it_is_copied_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("base");
        fs::write(&image, "one").unwrap();
        let before = Trace::of(&image).unwrap();
        before.check(&image).unwrap();
        fs::write(&image, "three").unwrap();
        let error = before.check(&image).unwrap_err();
        assert!(error.message().contains("was changed"), "{error}");
        fs::remove_file(&image).unwrap();
        let error = before.check(&image).unwrap_err();
        assert!(error.message().contains("vanished"), "{error}");
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn where_blocks_cannot_be_shared_no_file_is_left_for_the_copy_to_stumble_over() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("base");
        fs::write(&image, "no qcow2").unwrap();
        let copy = Path::new("/dev/shm").join(format!("see-reflink-{}", std::process::id()));
        // Memory and disk are never one file system.
        assert!(!reflink(&image, &copy).unwrap());
        assert!(!copy.exists());
    }
}

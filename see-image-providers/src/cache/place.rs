//! python-see's `path`: a copy of the image where the user wants it, besides the one in the store.

use std::fs::{File, Metadata};
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use see_core::{Error, ErrorKind, ImagePhase, ImageProgress, Result, StopToken};

use super::digest::{Algorithm, Digest, Hasher};
use super::folder::written_out;
use super::record::CopyRecord;
use super::store::{PIECE, Store, record_name};

/// Where a `path` of the configuration wants an image with this name: in it, where it is a folder or is
/// written as one, and at it otherwise.
pub(crate) fn target(path: &Path, name: &str) -> Result<PathBuf> {
    // Beside a run file that is named without its folder.
    let path = &std::path::absolute(path).map_err(|error| {
        Error::io("the image's `path` cannot be used", error).subject(path.display())
    })?;
    if !is_folder(path) {
        return Ok(path.to_owned());
    }
    let name = safe_name(name).ok_or_else(|| {
        Error::new(
            ErrorKind::Configuration,
            format!(
                "the image's name, `{}`, is none for a file",
                name.chars().take(80).collect::<String>().escape_debug()
            ),
        )
        .advice("let `path` name a file instead of a folder")
    })?;
    Ok(path.join(name))
}

/// Whether a `path` of the configuration is a folder, or is written as one.
pub(crate) fn is_folder(path: &Path) -> bool {
    path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/")
}

/// A name that stays in its folder: the last part of what a server calls the image, of characters that mean
/// nothing to anyone.
pub(crate) fn safe_name(name: &str) -> Option<String> {
    const LONGEST: usize = 200;
    let last = name.rsplit(['/', '\\']).find(|part| !part.is_empty())?;
    let safe: String = last
        .chars()
        .map(|c| {
            let is_plain = c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '+' | '@' | '=');
            if is_plain { c } else { '_' }
        })
        .collect();
    let safe = safe.trim_start_matches('.');
    let mut end = safe.len().min(LONGEST);
    while !safe.is_char_boundary(end) {
        end -= 1;
    }
    (end > 0).then(|| safe[..end].to_owned())
}

/// Whether the copy at `target` is the one that was made of this image.
pub(crate) fn is_current(store: &Store, target: &Path, image: &Digest) -> bool {
    let name = record_name(&key(target));
    let record = store.folders().copies.record::<CopyRecord>(&name);
    let Ok(Some(record)) = record else {
        return false;
    };
    record.image == *image && std::fs::symlink_metadata(target).is_ok_and(|found| record.is(&found))
}

/// Whether the copy of this record is gone or is another by now, and not merely out of reach.
pub(crate) fn is_gone(record: &CopyRecord) -> bool {
    let path = Path::new(&record.path);
    match std::fs::symlink_metadata(path) {
        Ok(found) => !record.is(&found),
        // A disk that is not mounted leaves no folder here, or an empty one of another device.
        Err(error) => {
            let folder = path.parent().and_then(|folder| folder.metadata().ok());
            error.kind() == std::io::ErrorKind::NotFound
                && folder.is_some_and(|folder| folder.dev() == record.device)
        }
    }
}

impl CopyRecord {
    /// Whether this file is the copy.
    fn is(&self, found: &Metadata) -> bool {
        found.is_file()
            && (self.device, self.inode, self.size) == (found.dev(), found.ino(), found.len())
            && self.changed == (found.ctime(), found.ctime_nsec())
    }
}

/// Puts a copy of the image at `target`: whole, or not at all. Blocks between progress and stop.
pub(crate) fn copy(
    store: &Store,
    image: &Digest,
    target: &Path,
    progress: &ImageProgress,
    stop: &StopToken,
) -> Result<()> {
    let failed = |error| written_out("the image cannot be copied to its `path`", error, target);
    let folder = target
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let folder = folder.ok_or_else(|| {
        Error::new(
            ErrorKind::Configuration,
            "the image's `path` lies in no folder",
        )
        .subject(target.display())
    })?;
    if std::fs::symlink_metadata(target).is_ok_and(|found| found.is_dir()) {
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            "found a folder where the image should be",
        )
        .subject(target.display()));
    }
    std::fs::create_dir_all(folder).map_err(failed)?;
    let name = super::record::image_name(image);
    let source = store.folders().images.read(&name)?;
    let source = source.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "the image left the store meanwhile").subject(image)
    })?;
    let total = source.metadata().map_err(failed)?.len();
    progress.phase(ImagePhase::Copying, Some(total));
    // Named by nobody, made anew, and with the rights that the user's umask leaves: images may hold credentials.
    let mut copy = tempfile::Builder::new()
        .prefix(".see-image-")
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(failed)?;
    // Without room of its own where the file system shares what is the same.
    if rustix::fs::ioctl_ficlone(copy.as_file(), &source).is_err() {
        let mut done = 0;
        // The kernel copies by itself, between two looks at the stop.
        loop {
            stop.check("copy the image")?;
            let mut piece = (&source).take(PIECE as u64 * 16);
            let count = std::io::copy(&mut piece, copy.as_file_mut()).map_err(failed)?;
            if count == 0 {
                break;
            }
            done += count;
            progress.report(done, Some(total));
        }
    }
    copy.as_file().sync_all().map_err(failed)?;
    // Who collects records must not take the one of this copy for that of the copy before.
    let _lock = store.lock()?;
    let file = copy.persist(target).map_err(|error| failed(error.error))?;
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    let record = CopyRecord {
        path: target.as_os_str().to_owned(),
        image: image.clone(),
        device: found.dev(),
        inode: found.ino(),
        size: found.len(),
        changed: (found.ctime(), found.ctime_nsec()),
    };
    store
        .folders()
        .copies
        .put(&record_name(&key(target)), &record)
}

fn key(target: &Path) -> String {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    hasher.update(target.as_os_str().as_encoded_bytes());
    hasher.finish().hex()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_name_never_leaves_its_folder() {
        for (name, safe) in [
            ("guest.qcow2", Some("guest.qcow2")),
            ("../../etc/passwd", Some("passwd")),
            ("a/..", None),
            ("..", None),
            ("", None),
            ("///", None),
            (".hidden", Some("hidden")),
            ("a\\..\\b c", Some("b_c")),
            ("x\0y\n", Some("x_y_")),
        ] {
            assert_eq!(safe_name(name).as_deref(), safe, "{name:?}");
        }
        assert_eq!(safe_name(&"é".repeat(300)).unwrap().len(), 200);
        let folder = tempfile::tempdir().unwrap();
        let target = target(folder.path(), "../../x").unwrap();
        assert_eq!(target, folder.path().join("x"));
    }
}

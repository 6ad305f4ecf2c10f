//! The store on disk: complete images by their digest, and what is known about them.
//!
//! ```text
//! images/ALGORITHM-DIGEST        a complete image, read-only (0444 below folders of 0700)
//! images/ALGORITHM-DIGEST.json   what is known of it; its time is that of the last use
//! leases/ALGORITHM-DIGEST/       a folder in which each environment that uses it has an empty file
//! origins/KEY.json               which image an origin gave last
//! partial/KEY…                   a download that goes on, or can be continued
//! copies/KEY.json                a copy at a path of the user's
//! lock                           held while images come and go
//! ```

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use see_core::{Error, ErrorKind, Result};

use super::digest::{Digest, Hasher};
use super::folder::{Folder, Lock};
use super::record::{ImageRecord, OriginRecord, digest_of, image_name};
use super::settings::Unpack;

/// The longest wait for others to let go of the store: they hold it for a few renames.
const LOCK_LIMIT: Duration = Duration::from_secs(30);
const LOCK_AGAIN: Duration = Duration::from_millis(20);
/// The file that is locked.
const LOCK: &str = "lock";
/// How much is read at once.
pub(crate) const PIECE: usize = 1 << 20;

/// Images on this host that belong to its user alone. Cheap to clone.
///
/// Its calls block; call them where that is allowed.
#[derive(Debug, Clone)]
pub struct Store(Arc<Folders>);

#[derive(Debug)]
pub(crate) struct Folders {
    pub(crate) root: Folder,
    pub(crate) images: Folder,
    pub(crate) leases: Folder,
    pub(crate) origins: Folder,
    pub(crate) partial: Folder,
    pub(crate) copies: Folder,
}

/// A complete image in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// The digest of its bytes, by which the store knows it.
    pub digest: Digest,
    /// Where it lies.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// QEMU's name of its format.
    pub format: String,
    /// When its download was complete.
    pub completed: SystemTime,
    /// When it was last asked for.
    pub used: SystemTime,
    /// How many disks of environments use it, kept ones among them.
    pub leases: usize,
    /// What it was asked for as, the latest last; with a note where the server was not proven to be the one.
    pub origins: Vec<String>,
}

impl Store {
    /// Opens the store in this folder, and makes it when it is missing.
    ///
    /// # Errors
    /// Where the folder cannot be made or read, is a link, belongs to somebody else, or can be reached by
    /// others.
    pub fn open(folder: &Path) -> Result<Self> {
        let root = Folder::root(folder)?;
        Ok(Self(Arc::new(Folders {
            images: root.folder("images")?,
            leases: root.folder("leases")?,
            origins: root.folder("origins")?,
            partial: root.folder("partial")?,
            copies: root.folder("copies")?,
            root,
        })))
    }

    /// The store's folder.
    pub fn folder(&self) -> &Path {
        self.0.root.path()
    }

    pub(crate) fn folders(&self) -> &Folders {
        &self.0
    }

    /// The complete images, the least recently used first.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn list(&self) -> Result<Vec<StoredImage>> {
        let mut images = Vec::new();
        for name in self.0.images.names()? {
            if let Some(digest) = digest_of(&name)
                && let Some(image) = self.stored(&digest)?
            {
                images.push(image);
            }
        }
        images.sort_by_key(|image| image.used);
        Ok(images)
    }

    /// What is known of one image; `None` where the store has no such image.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn stored(&self, digest: &Digest) -> Result<Option<StoredImage>> {
        let name = image_name(digest);
        let images = &self.0.images;
        let Some(record) = images.record::<ImageRecord>(&record_name(&name))? else {
            return Ok(None);
        };
        // Only what has its whole length is complete: a disk that was full may have cut it.
        let Some(found) = images.read(&name)? else {
            return Ok(None);
        };
        let size = found.metadata().map_or(0, |found| found.len());
        if size != record.size {
            return Ok(None);
        }
        let used = images.modified(&record_name(&name));
        let leases = std::fs::read_dir(self.leases(digest)).map_or(0, Iterator::count);
        let completed = SystemTime::UNIX_EPOCH + Duration::from_secs(record.completed);
        Ok(Some(StoredImage {
            digest: digest.clone(),
            path: self.path(digest),
            size,
            format: record.format,
            completed,
            used: used.unwrap_or(completed),
            leases,
            origins: record.origins,
        }))
    }

    /// Reads an image anew and compares it with its digest; `progress` hears how many bytes were read, and
    /// ends the reading by `false`.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the store has no such image, [`ErrorKind::Io`] with both digests where
    /// its bytes changed, [`ErrorKind::Stopped`].
    pub fn verify(&self, digest: &Digest, progress: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let mut file = self
            .0
            .images
            .read(&image_name(digest))?
            .ok_or_else(|| missing(digest))?;
        let found = digest_of_file(&mut file, digest, progress)?;
        if found == *digest {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Io,
            format!("the image changed in the store: expected {digest}, found {found}"),
        )
        .subject(self.path(digest).display())
        .advice("`seectl image rm` removes it; the next run gets it again"))
    }

    /// Removes an image.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the store has no such image, [`ErrorKind::Exhausted`] where an
    /// environment uses it.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        self.remove_with(digest, false)
    }

    /// Removes an image, also one that environments use: their leases go first.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where the store has no such image, and where the store cannot be written.
    pub fn remove_in_use(&self, digest: &Digest) -> Result<()> {
        self.remove_with(digest, true)
    }

    fn remove_with(&self, digest: &Digest, leases_too: bool) -> Result<()> {
        let _lock = self.lock()?;
        let name = image_name(digest);
        if self.0.images.stat(&name).is_none() {
            return Err(missing(digest));
        }
        if leases_too {
            let leases = self.0.leases.folder(&name)?;
            for lease in leases.names()? {
                leases.remove(&lease)?;
            }
        }
        if self.remove_locked(digest)? {
            return Ok(());
        }
        let message = "the image is used by an environment, so it stays";
        Err(Error::new(ErrorKind::Exhausted, message)
            .subject(digest)
            .advice("`seectl ls` lists environments, kept ones too"))
    }

    /// Removes an image unless it is used; the store's lock is held.
    pub(crate) fn remove_locked(&self, digest: &Digest) -> Result<bool> {
        let name = image_name(digest);
        // An environment's lease is a file in there, and only an empty folder can be removed.
        match std::fs::remove_dir(self.leases(digest)) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) if error.kind() == std::io::ErrorKind::DirectoryNotEmpty => {
                return Ok(false);
            }
            Err(error) => {
                return Err(super::folder::written_out(
                    "an image cannot be removed",
                    error,
                    &self.path(digest),
                ));
            }
        }
        self.0.images.remove(&record_name(&name))?;
        self.0.images.remove(&name)?;
        Ok(true)
    }

    /// Where an image lies, or would.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.0.images.path().join(image_name(digest))
    }

    /// The folder for the leases of an image.
    pub(crate) fn leases(&self, digest: &Digest) -> PathBuf {
        self.0.leases.path().join(image_name(digest))
    }

    /// Makes the folder for the leases of an image that is about to come.
    pub(crate) fn open_leases(&self, digest: &Digest) -> Result<()> {
        self.0.leases.folder(&image_name(digest)).map(drop)
    }

    /// Whether nothing can be written, so that nobody can remove anything either.
    pub(crate) fn is_read_only(&self) -> bool {
        let found = rustix::fs::statvfs(self.folder());
        found.is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
    }

    /// The images whose bytes were, as they were sent, those of all these digests: the digests are strong, so it does
    /// not matter where they came from.
    pub(crate) fn proven(&self, pins: &[Digest], unpack: Unpack) -> Result<Vec<Digest>> {
        let mut found = Vec::new();
        if let ([pin], Unpack::Never) = (pins, unpack) {
            found.push(pin.clone());
        }
        for name in self.0.origins.names()? {
            let Some(record) = self.0.origins.record::<OriginRecord>(&name)? else {
                continue;
            };
            let is_made_so = match unpack {
                Unpack::Never => !record.unpacked,
                Unpack::Always => record.unpacked,
                Unpack::Auto => true,
            };
            if is_made_so && pins.iter().all(|pin| record.sent.contains(pin)) {
                found.push(record.image);
            }
        }
        Ok(found)
    }

    /// What an identity led to the last time.
    pub(crate) fn origin(&self, key: &str) -> Result<Option<OriginRecord>> {
        self.0.origins.record(&record_name(key))
    }

    /// Writes down what an identity leads to, for its image in the store.
    pub(crate) fn learn(&self, key: &str, record: &OriginRecord) -> Result<()> {
        // What is written aside, or not yet named by its image, is not to be taken for a remainder by who collects these.
        let _lock = self.lock()?;
        self.0.origins.put(&record_name(key), record)?;
        let name = record_name(&image_name(&record.image));
        let shown = record.shown();
        if let Some(mut image) = self.0.images.record::<ImageRecord>(&name)?
            && image.origins.last() != Some(&shown)
        {
            const KEPT: usize = 16;
            image.origins.retain(|known| *known != shown);
            image.origins.push(shown);
            let surplus = image.origins.len().saturating_sub(KEPT);
            image.origins.drain(..surplus);
            self.0.images.put(&name, &image)?;
        }
        Ok(())
    }

    /// Says that an image was used just now.
    pub(crate) fn touch(&self, digest: &Digest) {
        let name = record_name(&image_name(digest));
        // A store that cannot be written evicts nothing either.
        if let Ok(Some(file)) = self.0.images.read(&name) {
            super::folder::touch(&file);
        }
    }

    /// Gives a complete, synced file of `partial` its place among the images. Its leases' folder exists.
    pub(crate) fn publish(&self, name: &str, record: &ImageRecord) -> Result<()> {
        let _lock = self.lock()?;
        let image = image_name(&record.digest);
        // The same bytes may have come from elsewhere before.
        let known: Option<ImageRecord> = self.0.images.record(&record_name(&image))?;
        let is_new = known.is_none();
        let record = ImageRecord {
            origins: known.map(|known| known.origins).unwrap_or_default(),
            ..record.clone()
        };
        self.0.partial.rename(name, &self.0.images, &image)?;
        // Only now: a download that is read-only could not be continued.
        let written = self
            .protect(&record.digest)
            .and_then(|()| self.0.images.put(&record_name(&image), &record));
        if written.is_err() && is_new {
            // Without its record nobody would find it, on a disk that is full perhaps.
            self.0.images.remove(&image)?;
        }
        written
    }

    /// Makes an image read-only to all: nobody but the owner passes the store, and what a sandbox's folder links to the
    /// emulators' account has to be able to read.
    fn protect(&self, digest: &Digest) -> Result<()> {
        let file = self.0.images.read(&image_name(digest))?;
        let file = file.ok_or_else(|| missing(digest))?;
        file.set_permissions(std::fs::Permissions::from_mode(0o444))
            .map_err(|error| {
                Error::io("an image cannot be made read-only", error)
                    .subject(self.path(digest).display())
            })
    }

    /// Holds off everyone else who adds or removes images.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let begin = Instant::now();
        loop {
            if let Some(lock) = self.0.root.lock(LOCK)? {
                return Ok(lock);
            }
            if begin.elapsed() > LOCK_LIMIT {
                return Err(Error::timeout("the image store's lock", LOCK_LIMIT)
                    .subject(self.folder().join(LOCK).display()));
            }
            std::thread::sleep(LOCK_AGAIN);
        }
    }
}

/// The digest of a file's bytes, of the algorithm of `like`.
pub(crate) fn digest_of_file(
    file: &mut File,
    like: &Digest,
    progress: &mut dyn FnMut(u64) -> bool,
) -> Result<Digest> {
    let mut hasher = Hasher::new(like.algorithm());
    let mut piece = vec![0; PIECE];
    let mut done = 0;
    loop {
        let count = match file.read(&mut piece) {
            Ok(0) => return Ok(hasher.finish()),
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("the image cannot be read", error)),
        };
        hasher.update(&piece[..count]);
        done += count as u64;
        if !progress(done) {
            return Err(Error::stopped("verify the image"));
        }
    }
}

/// The name of what is known about `name`.
pub(crate) fn record_name(name: &str) -> String {
    format!("{name}.json")
}

fn missing(digest: &Digest) -> Error {
    Error::new(ErrorKind::NotFound, "the store has no such image")
        .subject(digest)
        .advice("`seectl image ls` lists what it has")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::digest::Algorithm;

    #[test]
    fn what_a_link_in_the_place_of_an_image_leads_to_keeps_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store")).unwrap();
        let victim = folder.path().join("victim");
        std::fs::write(&victim, "precious").unwrap();
        std::fs::set_permissions(&victim, std::fs::Permissions::from_mode(0o600)).unwrap();
        let digest = Hasher::new(Algorithm::Sha256).finish();
        std::os::unix::fs::symlink(&victim, store.path(&digest)).unwrap();
        store.protect(&digest).unwrap_err();
        let mode = std::fs::metadata(&victim).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
    }
}

//! An image of this host on its way to another one.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use see_core::{Error, ErrorKind, ImageFormat, ImagePhase, Result, StopToken};
use see_libvirt::Volume;
use see_libvirt::xml::Document;

use crate::allocation::Site;
use crate::error::{blocking, libvirt};
use crate::storage::clone::Trace;

/// How long an upload has to abort after a stop. One that waits for a dead network does not get to it.
const GRACE: Duration = Duration::from_secs(2);

/// An image of this host, open.
#[derive(Debug, Clone)]
pub(crate) struct Content {
    file: Arc<File>,
    pub(in crate::storage) length: u64,
    pub(in crate::storage) format: ImageFormat,
    /// The file as it was when it was opened.
    before: Trace,
}

impl Content {
    /// Opens the image. Blocks.
    ///
    /// # Errors
    /// When it cannot be read, and for a format that is not known.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let failed =
            |error| Error::io("the disk image cannot be read", error).subject(path.display());
        let file = File::open(path).map_err(failed)?;
        let found = file.metadata().map_err(failed)?;
        let format = ImageFormat::of(&file).map_err(|error| error.subject(path.display()))?;
        Ok(Self {
            file: Arc::new(file),
            length: found.len(),
            format,
            before: Trace::from(&found),
        })
    }

    /// The image, and the digest of all its bytes where that is asked for.
    ///
    /// # Errors
    /// When it cannot be read, for a format that is not known, a file that is written to meanwhile, and
    /// [`ErrorKind::Stopped`].
    pub(in crate::storage) async fn read(
        path: &Path,
        with_digest: bool,
        stop: &StopToken,
    ) -> Result<(Self, Option<String>)> {
        let (path, stop) = (path.to_owned(), stop.clone());
        blocking("read the disk image", move || {
            let content = Self::open(&path)?;
            let digest = with_digest.then(|| content.digest(&stop)).transpose()?;
            Ok((content, digest))
        })
        .await
    }

    /// The SHA-256 of its bytes. Blocks.
    fn digest(&self, stop: &StopToken) -> Result<String> {
        let mut file = &*self.file;
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; 1 << 20];
        loop {
            stop.check("read the disk image")?;
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => context.update(&buffer[..count]),
                Err(error) => return Err(Error::io("the disk image cannot be read", error)),
            }
        }
        self.check_unchanged()?;
        Ok(hex(context.finish().as_ref()))
    }

    /// Uploads it into a volume, which is empty and of its length. Where this fails, the volume holds a part of it.
    ///
    /// # Errors
    /// What libvirt reports, a file that was written to since it was opened, and [`ErrorKind::Stopped`].
    pub(in crate::storage) async fn upload(&self, volume: &Volume, site: &Site<'_>) -> Result<()> {
        let failed = |error| libvirt(error).during("upload the image");
        let total = Some(self.length);
        site.progress.phase(ImagePhase::Uploading, total);
        let (stop, progress) = (site.stop.clone(), site.progress.clone());
        let uploading = volume.upload(Arc::clone(&self.file), self.length, move |done| {
            progress.report(done, total);
            !stop.is_stopped()
        });
        let uploaded = or_given_up(site.stop, uploading).await?;
        site.stop.check("upload the image")?;
        uploaded.map_err(failed)?;
        let content = self.clone();
        blocking("read the disk image", move || content.check_unchanged()).await?;
        let size = size(volume).await.map_err(failed)?;
        if size == total {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Hypervisor,
            format!(
                "the hypervisor's host has {size:?} of the {} bytes that were uploaded",
                self.length
            ),
        ))
    }

    /// Refuses a file that was written to since it was opened: what was read of it may be a mixture. Blocks.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] where it was.
    fn check_unchanged(&self) -> Result<()> {
        let found = self.file.metadata();
        let found = found.map_err(|error| Error::io("the disk image cannot be read", error))?;
        if Trace::from(&found) == self.before {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Io,
            "the disk image was written to while it was read or uploaded",
        )
        .advice("give the run an image that nobody changes"))
    }
}

/// What the upload gives; after a stop it is given up unless it ends itself soon.
async fn or_given_up<T>(stop: &StopToken, upload: impl Future<Output = T>) -> Result<T> {
    let overdue = async {
        stop.stopped().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        done = upload => Ok(done),
        () = overdue => Err(Error::stopped("upload the image")),
    }
}

/// The size of a volume's file, in bytes; `None` where libvirt does not tell it.
pub(super) async fn size(volume: &Volume) -> Result<Option<u64>, see_libvirt::Error> {
    let text = volume.xml().await?;
    let document = Document::parse(&text).ok();
    Ok(document.and_then(|xml| xml.root().child("physical")?.text().trim().parse().ok()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use see_core::Stop;

    use super::*;

    #[tokio::test]
    async fn an_upload_that_hangs_is_given_up_soon_after_a_stop_and_one_that_aborts_is_heard() {
        let stop = Stop::new();
        let token = stop.token();
        let aborts = async {
            token.stopped().await;
            tokio::task::yield_now().await;
            "aborted"
        };
        stop.stop();
        assert_eq!(or_given_up(&token, aborts).await.unwrap(), "aborted");
        let hangs = or_given_up(&token, std::future::pending::<()>());
        let ended = tokio::time::timeout(5 * GRACE, hangs).await;
        assert_eq!(ended.unwrap().unwrap_err().kind(), ErrorKind::Stopped);
    }

    #[test]
    fn a_link_to_the_image_that_comes_or_goes_is_no_change_of_it_and_a_write_is() {
        let folder = tempfile::tempdir().unwrap();
        let (image, link) = (folder.path().join("image"), folder.path().join("link"));
        std::fs::write(&image, [1; 4096]).unwrap();
        // Long before the write, since the clock of a file's times ticks slowly.
        let file = File::options().write(true).open(&image).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
        let content = Content::open(&image).unwrap();
        std::fs::hard_link(&image, &link).unwrap();
        content.check_unchanged().unwrap();
        std::fs::remove_file(&image).unwrap();
        content.check_unchanged().unwrap();
        std::fs::write(&link, [2; 4096]).unwrap();
        let error = content.check_unchanged().unwrap_err();
        assert!(error.message().contains("was written to"), "{error}");
    }
}

//! Bringing a file's bytes into a volume, through libvirt: its host need not be this one.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::raw::c_char;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::SeekFrom;
use virt_sys as sys;

use super::Volume;
use crate::error::{Cause, Error};
use crate::handle::Handle;

/// What is sent at once; libvirt's messages hold 256 KiB.
const PIECE: usize = 256 << 10;

/// The longest upload, however well it goes on.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

/// An upload as both sides see it: the thread that sends, and the task that waits.
#[derive(Debug, Default)]
struct Transfer {
    sent: AtomicU64,
    given_up: AtomicBool,
}

/// Tells the sending thread to end when nobody waits for it any more.
struct GiveUp(Arc<Transfer>);

impl Drop for GiveUp {
    fn drop(&mut self) {
        self.0.given_up.store(true, Ordering::SeqCst);
    }
}

impl Volume {
    /// Fills the volume with the first `length` bytes of a file. Holes of the file stay holes.
    ///
    /// It has a connection of its own, so that neither other calls nor other uploads delay it, and no time limit but a
    /// day: only without progress it ends after the volume's. After each piece `go_on` is told how far the upload is,
    /// in bytes of the file; once it says no, the upload is aborted, and the volume holds a part of the file.
    ///
    /// # Errors
    /// [`Cause::Aborted`] when `go_on` said no, [`Cause::Malformed`] for a file that is shorter,
    /// whatever libvirt reports, or the time limit.
    pub async fn upload(
        &self,
        source: Arc<File>,
        length: u64,
        go_on: impl Fn(u64) -> bool + Send + 'static,
    ) -> Result<(), Error> {
        let transfer = Arc::new(Transfer::default());
        let _give_up = GiveUp(Arc::clone(&transfer));
        let work = self.upload_apart(source, length, go_on, Arc::clone(&transfer));
        let mut work = std::pin::pin!(work);
        let limit = self.connection().limit;
        loop {
            let before = transfer.sent.load(Ordering::SeqCst);
            match tokio::time::timeout(limit, &mut work).await {
                Ok(done) => return done,
                Err(_) if transfer.sent.load(Ordering::SeqCst) > before => {}
                Err(_) => return Err(self.stalled(limit)),
            }
        }
    }

    /// The upload on a connection of its own, without a limit for its progress.
    async fn upload_apart(
        &self,
        source: Arc<File>,
        length: u64,
        go_on: impl Fn(u64) -> bool + Send + 'static,
        transfer: Arc<Transfer>,
    ) -> Result<(), Error> {
        let key = self.object.id().clone();
        let connection = self.connection().another().await?;
        let own: Self = connection
            .find(format!("volume {}", self.name()), move |connect| {
                connect.lookup_storage_vol_by_key(&key)
            })
            .await?;
        let object = own.object.within(LONGEST);
        let sending = object.call_with("upload to", move |volume, session| {
            let stream = Handle::new(virt::stream::Stream::new(session.connect(), 0)?);
            volume.upload(
                &stream,
                0,
                length,
                sys::VIR_STORAGE_VOL_UPLOAD_SPARSE_STREAM,
            )?;
            let sent = send_all(&stream, &source, length, &|position| {
                transfer.sent.store(position, Ordering::SeqCst);
                !transfer.given_up.load(Ordering::SeqCst) && go_on(position)
            });
            // SAFETY: the stream is valid here, and both functions only end its transfer.
            let end = |good: bool| unsafe {
                if good {
                    sys::virStreamFinish(stream.as_ptr())
                } else {
                    sys::virStreamAbort(stream.as_ptr())
                }
            };
            match sent {
                Ok(()) if end(true) == 0 => Ok(()),
                Ok(()) => Err(Cause::last()),
                Err(cause) => {
                    end(false);
                    Err(cause)
                }
            }
        });
        sending.await
    }

    fn stalled(&self, limit: Duration) -> Error {
        let cause = Cause::TimedOut {
            after: limit,
            waiting_for: "the hypervisor to take more of an upload",
        };
        Error::new("upload to", format!("volume {}", self.name()), cause)
    }
}

/// Sends the data and the holes of a file; `progress` is told how far it is, and says whether to go on.
fn send_all(
    stream: &virt::stream::Stream,
    source: &File,
    length: u64,
    progress: &dyn Fn(u64) -> bool,
) -> Result<(), Cause> {
    let go_on = |position| match progress(position) {
        true => Ok(()),
        false => Err(Cause::Aborted("it was broken off".to_owned())),
    };
    let mut buffer = vec![0_u8; PIECE];
    let mut position = 0;
    while position < length {
        let data = next(source, SeekFrom::Data(position), length)?;
        if data > position {
            let hole = i64::try_from(data - position)
                .map_err(|_| Cause::Malformed("a hole beyond any file's size".to_owned()))?;
            // SAFETY: the stream is valid, blocking, and was opened for holes.
            if unsafe { sys::virStreamSendHole(stream.as_ptr(), hole, 0) } < 0 {
                return Err(Cause::last());
            }
            position = data;
            go_on(position)?;
        }
        let end = next(source, SeekFrom::Hole(position), length)?;
        while position < end {
            let wanted = usize::try_from(end - position).map_or(PIECE, |left| left.min(PIECE));
            let count = source
                .read_at(&mut buffer[..wanted], position)
                .map_err(|error| file(&error))?;
            if count == 0 {
                return Err(Cause::Malformed(format!(
                    "the file ended after {position} of {length} bytes"
                )));
            }
            send(stream, &buffer[..count])?;
            position += count as u64;
            go_on(position)?;
        }
    }
    Ok(())
}

/// The next start of data or of a hole, at most the length. File systems that know no holes say
/// that all is data.
fn next(source: &File, from: SeekFrom, length: u64) -> Result<u64, Cause> {
    match rustix::fs::seek(source.as_fd(), from) {
        Ok(found) => Ok(found.min(length)),
        // There is nothing but a hole up to the end.
        Err(rustix::io::Errno::NXIO) => Ok(length),
        Err(error) => Err(file(&error.into())),
    }
}

fn send(stream: &virt::stream::Stream, mut bytes: &[u8]) -> Result<(), Cause> {
    while !bytes.is_empty() {
        // SAFETY: the stream is valid and blocking, and the pointer and length are those of a live
        // slice, which libvirt only reads.
        let sent = unsafe {
            sys::virStreamSend(
                stream.as_ptr(),
                bytes.as_ptr().cast::<c_char>(),
                bytes.len(),
            )
        };
        let sent = usize::try_from(sent).map_err(|_| Cause::last())?;
        bytes = bytes.get(sent..).unwrap_or_default();
    }
    Ok(())
}

fn file(error: &io::Error) -> Cause {
    Cause::Aborted(format!("the file to be uploaded cannot be read: {error}"))
}

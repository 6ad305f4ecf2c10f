//! A download on disk: appended to, hashed while it grows, and continued after a break.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use bytes::Bytes;
use see_core::{Error, ErrorKind, Result};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::digest::{Algorithm, Digest, Hasher};
use super::folder::{Lock, written_out};
use super::inspect;
use super::record::PartialRecord;
use super::settings::Unpack;
use super::store::{PIECE, Store, record_name};
use super::unpack::{Output, Packing, SYNCED, Unpacker};

/// How many pieces wait for the disk at most.
const WAITING: usize = 8;

/// The files of a download, but for its lock.
pub(crate) fn names(key: &str) -> [String; 3] {
    [key.to_owned(), unpacked_name(key), record_name(key)]
}

pub(crate) fn lock_name(key: &str) -> String {
    format!("{key}.lock")
}

fn unpacked_name(key: &str) -> String {
    format!("{key}.image")
}

/// What a download is to become.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) key: String,
    /// What is written down of it.
    pub(crate) record: PartialRecord,
    /// What is computed of the bytes as they are sent.
    pub(crate) algorithms: Vec<Algorithm>,
    pub(crate) unpack: Unpack,
    /// The most bytes after unpacking.
    pub(crate) limit: u64,
}

/// The end of a download on this host. Its calls block.
pub(crate) struct Partial {
    store: Store,
    plan: Plan,
    file: File,
    length: u64,
    /// How much was there when it was opened.
    resumed: u64,
    /// How much was written since the disk was last waited for.
    unsynced: u64,
    hashers: Vec<Hasher>,
    /// The first bytes, until there are enough to tell what they are.
    head: Option<Vec<u8>>,
    unpacker: Option<Unpacker>,
    /// Held until the last byte is written, whoever waits for that.
    lock: Lock,
}

/// A download that is whole.
#[derive(Debug)]
pub(crate) struct Whole {
    /// Of the bytes as they were sent.
    pub(crate) sent: Vec<Digest>,
    /// The file of `partial` with the image.
    pub(crate) name: String,
    /// Of the image.
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    pub(crate) unpacked: bool,
}

impl Partial {
    /// Opens the download of this plan: continues what is there of the same version, and begins anew
    /// otherwise. `progress` hears how much was read again, and ends that by `false`.
    pub(crate) fn open(
        store: Store,
        plan: Plan,
        lock: Lock,
        continues: bool,
        progress: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Self> {
        let folder = &store.folders().partial;
        let file = folder.write(&plan.key)?;
        let known: Option<PartialRecord> = folder.record(&record_name(&plan.key))?;
        let total = plan.record.total;
        let length = file.metadata().map_or(0, |found| found.len());
        let trusted = match known {
            Some(known)
                if continues
                    && known.boot == plan.record.boot
                    && known.identity == plan.record.identity
                    && known.version == plan.record.version
                    && (known.total.is_none() || total.is_none() || known.total == total) =>
            {
                length
            }
            _ => 0,
        };
        let trusted = total.map_or(trusted, |total| trusted.min(total));
        let mut partial = Self {
            hashers: Vec::new(),
            head: None,
            unpacker: None,
            length: 0,
            resumed: trusted,
            unsynced: 0,
            file,
            store,
            plan,
            lock,
        };
        partial.restart_from(trusted)?;
        partial.replay(trusted, progress)?;
        Ok(partial)
    }

    /// How many bytes there are.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Whether a part of it was there before this process.
    pub(crate) fn was_continued(&self) -> bool {
        self.resumed > 0
    }

    /// Throws away what there is.
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.resumed = 0;
        self.restart_from(0)
    }

    fn restart_from(&mut self, length: u64) -> Result<()> {
        self.length = 0;
        self.hashers = self
            .plan
            .algorithms
            .iter()
            .copied()
            .map(Hasher::new)
            .collect();
        self.head = Some(Vec::new());
        self.unpacker = None;
        self.file
            .set_len(length)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .map_err(|error| self.failed("a download cannot be begun", error))?;
        self.write_record()
    }

    fn replay(&mut self, length: u64, progress: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let mut piece = vec![0; PIECE.min(usize::try_from(length).unwrap_or(PIECE))];
        while self.length < length {
            let room = piece
                .len()
                .min(usize::try_from(length - self.length).unwrap_or(PIECE));
            let count = match self.file.read(&mut piece[..room]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed("a download cannot be read", error)),
            };
            self.absorb(&piece[..count])?;
            self.length += count as u64;
            self.lock.touch();
            if !progress(self.length) {
                return Err(Error::stopped("continue the download"));
            }
        }
        Ok(())
    }

    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(|error| self.failed("the image cannot be written", error))?;
        self.length += bytes.len() as u64;
        self.unsynced += bytes.len() as u64;
        if self.unsynced >= SYNCED {
            self.file
                .sync_data()
                .map_err(|error| self.failed("the image cannot be written to disk", error))?;
            self.unsynced = 0;
            self.lock.touch();
        }
        self.absorb(bytes)
    }

    fn absorb(&mut self, bytes: &[u8]) -> Result<()> {
        for hasher in &mut self.hashers {
            hasher.update(bytes);
        }
        if let Some(head) = &mut self.head {
            head.extend_from_slice(bytes);
            if head.len() >= inspect::TOLD_BY {
                self.begin()?;
            }
            return Ok(());
        }
        match &mut self.unpacker {
            Some(unpacker) => unpacker.push(bytes),
            None => Ok(()),
        }
    }

    /// Enough is there to tell what it is.
    fn begin(&mut self) -> Result<()> {
        let Some(head) = self.head.take() else {
            return Ok(());
        };
        let packing = match self.plan.unpack {
            Unpack::Never => None,
            Unpack::Auto | Unpack::Always => Packing::of(&head),
        };
        let Some(packing) = packing else {
            inspect::refuse_text(&head)?;
            if self.plan.unpack == Unpack::Always {
                return Err(Error::new(
                    ErrorKind::Guest,
                    "the image is to be unpacked, but it is none of gzip, xz and Zstandard",
                )
                .advice("`unpack: \"auto\"` unpacks what is packed, and takes the rest as it is"));
            }
            return Ok(());
        };
        let folder = &self.store.folders().partial;
        let file = folder.write(&unpacked_name(&self.plan.key))?;
        file.set_len(0)
            .map_err(|error| self.failed("the unpacked image cannot be begun", error))?;
        let mut unpacker = Unpacker::new(packing, Output::new(file, self.plan.limit))?;
        unpacker.push(&head)?;
        self.unpacker = Some(unpacker);
        Ok(())
    }

    /// All bytes are there: puts them on disk, and says what they are.
    pub(crate) fn finish(&mut self) -> Result<Whole> {
        self.begin()?;
        self.file
            .sync_all()
            .map_err(|error| self.failed("the image cannot be written to disk", error))?;
        let sent: Vec<Digest> = self.hashers.drain(..).map(Hasher::finish).collect();
        if let Some(unpacker) = self.unpacker.take() {
            let (digest, size) = unpacker.finish()?;
            return Ok(Whole {
                sent,
                name: unpacked_name(&self.plan.key),
                digest,
                size,
                unpacked: true,
            });
        }
        let strongest = sent.iter().filter(|digest| digest.is_strong()).max();
        let digest = strongest.cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                "no strong digest of the image was computed",
            )
        })?;
        Ok(Whole {
            sent,
            name: self.plan.key.clone(),
            digest,
            size: self.length,
            unpacked: false,
        })
    }

    /// Opens a file of the download for reading.
    pub(crate) fn open_file(&self, name: &str) -> Result<File> {
        let file = self.store.folders().partial.read(name)?;
        file.ok_or_else(|| Error::new(ErrorKind::NotFound, "the download was removed meanwhile"))
    }

    /// Removes every trace of the download; what was moved away stays there.
    pub(crate) fn discard(self) -> Result<()> {
        let folder = &self.store.folders().partial;
        for name in names(&self.plan.key) {
            folder.remove(&name)?;
        }
        folder.remove(&lock_name(&self.plan.key))
    }

    fn write_record(&self) -> Result<()> {
        let folder = &self.store.folders().partial;
        folder.put(&record_name(&self.plan.key), &self.plan.record)
    }

    fn failed(&self, message: &'static str, error: std::io::Error) -> Error {
        let folder = self.store.folders().partial.path();
        written_out(message, error, &folder.join(&self.plan.key))
    }
}

/// A download with a thread of its own at its end, so that the network never waits for the hash.
pub(crate) struct Feed {
    pieces: Option<mpsc::Sender<Bytes>>,
    task: Option<JoinHandle<(Partial, Result<()>)>>,
    length: u64,
}

impl Feed {
    pub(crate) fn new(partial: Partial) -> Self {
        let mut feed = Self {
            pieces: None,
            task: None,
            length: 0,
        };
        feed.start(partial, Ok(()), false);
        feed
    }

    /// Goes on after what `ended` so far; `anew` without what there is.
    fn start(&mut self, mut partial: Partial, ended: Result<()>, anew: bool) {
        let (pieces, mut coming) = mpsc::channel::<Bytes>(WAITING);
        self.length = if anew { 0 } else { partial.length() };
        self.pieces = Some(pieces);
        self.task = Some(tokio::task::spawn_blocking(move || {
            let begun = ended.and_then(|()| if anew { partial.restart() } else { Ok(()) });
            if begun.is_err() {
                return (partial, begun);
            }
            while let Some(piece) = coming.blocking_recv() {
                if let Err(error) = partial.push(&piece) {
                    return (partial, Err(error));
                }
            }
            (partial, Ok(()))
        }));
    }

    /// How many bytes were taken.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Takes the next bytes; waits while too many wait for the disk. An error says that the download ended,
    /// and [`end`](Self::end) why.
    pub(crate) async fn push(&mut self, bytes: Bytes) -> Result<(), Ended> {
        let count = bytes.len() as u64;
        let pieces = self.pieces.as_ref().ok_or(Ended)?;
        pieces.send(bytes).await.map_err(|_| Ended)?;
        self.length += count;
        Ok(())
    }

    /// Throws away what there is. That it could not be written, or cannot be thrown away, [`end`](Self::end) tells.
    pub(crate) async fn restart(&mut self) -> Result<()> {
        let (partial, ended) = self.stop().await?;
        self.start(partial, ended, true);
        Ok(())
    }

    /// Waits until all that was taken is written.
    pub(crate) async fn end(mut self) -> Result<(Partial, Result<()>)> {
        self.stop().await
    }

    async fn stop(&mut self) -> Result<(Partial, Result<()>)> {
        self.pieces = None;
        let task = self.task.take();
        let task =
            task.ok_or_else(|| Error::new(ErrorKind::Internal, "the download was ended before"))?;
        task.await.map_err(|error| {
            Error::new(ErrorKind::Internal, "writing the image panicked").caused_by(error)
        })
    }
}

/// The end of a download took no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended;

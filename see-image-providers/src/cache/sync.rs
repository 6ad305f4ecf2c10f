//! Putting a growing file on disk while it grows, so that its end has little left to wait for.

use std::fs::File;
use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::thread::JoinHandle;

/// A thread that syncs a file up to what was written when it was asked.
pub(crate) struct Syncing {
    asks: Option<SyncSender<u64>>,
    answers: Receiver<io::Result<u64>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncing {
    /// Begins for this file, which has nothing to sync yet.
    pub(crate) fn begin(file: &File) -> io::Result<Self> {
        let file = file.try_clone()?;
        // One that waits while another runs: who asks never waits.
        let (asks, asked) = mpsc::sync_channel::<u64>(1);
        let (answer, answers) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("see-image-sync".to_owned())
            .spawn(move || {
                for length in asked {
                    let done = file.sync_data().map(|()| length);
                    if answer.send(done).is_err() {
                        break;
                    }
                }
            })?;
        Ok(Self {
            asks: Some(asks),
            answers,
            thread: Some(thread),
        })
    }

    /// Asks for the first `length` bytes, which are written, to be put on disk some time; `false` where the
    /// disk has not come so far yet.
    pub(crate) fn ask(&self, length: u64) -> bool {
        let asks = self.asks.as_ref();
        !matches!(
            asks.map(|asks| asks.try_send(length)),
            None | Some(Err(TrySendError::Full(_) | TrySendError::Disconnected(_)))
        )
    }

    /// How much of it came to the disk since the last look; `None` where nothing did.
    pub(crate) fn done(&self) -> io::Result<Option<u64>> {
        self.answers.try_iter().last().transpose()
    }
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.asks = None;
        if let Some(thread) = self.thread.take() {
            // It ends after the sync that runs.
            let _ = thread.join();
        }
    }
}

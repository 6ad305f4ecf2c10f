//! Where the output of a program goes: files, events, and the start of it into the last event.

use super::order::Kind;
use crate::results;
use see_agent::protocol::Stream;
use see_core::{Context, Event, Result};
use std::path::{Path, PathBuf};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

/// How much of the output goes into events for display, in bytes.
const LIVE_BYTES: usize = 64 << 10;
/// How many events carry it.
const LIVE_EVENTS: usize = 256;
/// How much of a command's output its last event carries, in bytes.
const HEAD: usize = 16 << 10;

/// The two outputs of one program.
#[derive(Debug)]
pub(super) struct Output {
    context: Context,
    kind: Kind,
    stdout: Side,
    stderr: Side,
    head: Vec<u8>,
    live_bytes: usize,
    live_events: usize,
    /// What could not be written.
    pub(super) error: Option<String>,
}

#[derive(Debug, Default)]
struct Side {
    file: Option<(PathBuf, File)>,
    /// The start of a character that the next piece completes.
    carry: Vec<u8>,
    written: u64,
}

impl Output {
    /// For the output of a command: no files.
    pub(super) fn new(context: &Context, kind: Kind) -> Self {
        Self {
            context: context.clone(),
            kind,
            stdout: Side::default(),
            stderr: Side::default(),
            head: Vec::new(),
            live_bytes: 0,
            live_events: 0,
            error: None,
        }
    }

    /// Makes `<name>.stdout` and `<name>.stderr` in the results folder.
    pub(super) async fn with_files(mut self, folder: &Path, name: &str) -> Result<Self> {
        let name = results::plain_name(name);
        self.stdout.file = Some(results::create(folder, &name, "stdout").await?);
        self.stderr.file = Some(results::create(folder, &name, "stderr").await?);
        Ok(self)
    }

    /// The file of one stream.
    pub(super) fn path(&self, stream: Stream) -> Option<PathBuf> {
        let (path, _) = self.side_ref(stream).file.as_ref()?;
        Some(path.clone())
    }

    /// How much of one stream came.
    pub(super) fn written(&self, stream: Stream) -> u64 {
        self.side_ref(stream).written
    }

    /// The start of both streams, in the order in which they came.
    pub(super) fn head(&self) -> String {
        String::from_utf8_lossy(&self.head).into_owned()
    }

    fn side_ref(&self, stream: Stream) -> &Side {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    fn side(&mut self, stream: Stream) -> &mut Side {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    /// Takes what the program wrote.
    pub(super) async fn take(&mut self, stream: Stream, bytes: &[u8]) {
        let room = HEAD - self.head.len();
        self.head.extend_from_slice(&bytes[..room.min(bytes.len())]);
        self.show(stream, bytes);
        let side = self.side(stream);
        side.written += bytes.len() as u64;
        if let Some((path, file)) = &mut side.file
            && let Err(error) = file.write_all(bytes).await
        {
            // The program goes on: its end is worth knowing even where the disk is full.
            let message = format!("{} cannot be written: {error}", path.display());
            self.error.get_or_insert(message);
        }
    }

    /// Posts it for display, within the budget.
    fn show(&mut self, stream: Stream, bytes: &[u8]) {
        if self.live_events == LIVE_EVENTS {
            return;
        }
        let room = LIVE_BYTES - self.live_bytes;
        let shown = &bytes[..room.min(bytes.len())];
        self.live_bytes += shown.len();
        self.live_events += 1;
        let elided = shown.len() < bytes.len() || self.live_events == LIVE_EVENTS;
        if elided {
            self.live_events = LIVE_EVENTS;
        }
        let text = self.side(stream).text(shown);
        if text.is_empty() && !elided {
            return;
        }
        let (name, stream) = match (self.kind, stream) {
            (Kind::Sample, Stream::Stdout) => ("sample_output", "stdout"),
            (Kind::Sample, Stream::Stderr) => ("sample_output", "stderr"),
            (Kind::Command, Stream::Stdout) => ("command_output", "stdout"),
            (Kind::Command, Stream::Stderr) => ("command_output", "stderr"),
        };
        let mut event = Event::new(name).with("stream", stream).with("text", text);
        if elided {
            event = event.with("elided", true);
        }
        if let Err(error) = self.context.post(event) {
            // The files have it all.
            tracing::debug!("output is not shown: {error}");
        }
    }

    /// Writes out what is still on its way to the files.
    pub(super) async fn finish(&mut self) {
        for side in [&mut self.stdout, &mut self.stderr] {
            if let Some((path, file)) = &mut side.file
                && let Err(error) = file.flush().await
            {
                let message = format!("{} cannot be written: {error}", path.display());
                self.error.get_or_insert(message);
            }
        }
    }
}

impl Side {
    /// The bytes as text; a character that is not whole yet waits for the rest.
    fn text(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.carry);
        all.extend_from_slice(bytes);
        let mut whole = all.len();
        // A character has at most four bytes, so an unfinished one at most three.
        for back in 1..=all.len().min(3) {
            let at = all.len() - back;
            let needed = match all[at] {
                0xF0..=0xF7 => 4,
                0xE0..=0xEF => 3,
                0xC0..=0xDF => 2,
                0x80..=0xBF => continue,
                _ => break,
            };
            if needed > back {
                whole = at;
            }
            break;
        }
        self.carry = all.split_off(whole);
        String::from_utf8_lossy(&all).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::Side;

    #[test]
    fn characters_cut_between_pieces_stay_whole() {
        let text = "aé€😀z";
        for size in 1..8 {
            let mut side = Side::default();
            let shown: String = text
                .as_bytes()
                .chunks(size)
                .map(|piece| side.text(piece))
                .collect();
            assert_eq!(shown, text, "pieces of {size}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_replaced_and_never_pile_up() {
        let mut side = Side::default();
        for _ in 0..1000 {
            side.text(&[0x80, 0xBF, 0xFF, 0xF0]);
            assert!(side.carry.len() <= 3);
        }
    }
}

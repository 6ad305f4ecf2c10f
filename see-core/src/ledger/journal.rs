//! The lines of a record, and what they add up to.
//!
//! A record is JSON, one object a line. The first line is the [`Header`], every later one a [`Line`].
//! Lines are only appended, so a crash can tear nothing but the end: what follows the last line feed,
//! or a run of zero bytes where the file system had not yet written the data, is ignored.

use serde::{Deserialize, Serialize};

use super::resource::{Details, Resource};
use crate::{Error, ErrorKind, Identifier, Result};

/// The version of the format; a reader refuses any other.
pub(super) const VERSION: u32 = 1;
/// The longest record that is read.
pub(super) const RECORD_LIMIT: u64 = 8 << 20;
/// The longest record that takes new intentions: the rest is kept free for progress.
pub(super) const INTENT_LIMIT: u64 = RECORD_LIMIT / 2;
/// The longest line.
pub(super) const LINE_LIMIT: usize = 64 << 10;
/// The most resources of one record.
pub(super) const ENTRY_LIMIT: usize = 1 << 14;

/// The first line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    /// [`VERSION`]; also what tells a record from any other JSON.
    pub(super) see_ledger: u32,
    pub(super) identifier: Identifier,
    /// The owner's effective user.
    pub(super) uid: u32,
    /// The owner's process: for display.
    pub(super) pid: u32,
    /// When that process started, in clock ticks since boot: for display.
    pub(super) process_started: u64,
    /// When the record was made, in milliseconds since 1970.
    pub(super) created: u64,
    /// The host's boot, as the kernel names it; empty where it does not.
    pub(super) boot: String,
    /// What the owner says it is.
    pub(super) note: String,
}

/// Every later line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Line {
    /// This may exist from now on.
    Intend { entry: u32, resource: Resource },
    /// It exists, and this is how it is recognised.
    Created { entry: u32, identity: Details },
    /// It exists no more.
    Gone { entry: u32 },
    /// The environment stays without an owner until then, in milliseconds since 1970.
    Keep { until: u64 },
}

/// One resource that may exist.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    pub(super) entry: u32,
    pub(super) resource: Resource,
    pub(super) identity: Option<Details>,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Journal {
    pub(super) header: Header,
    /// In order of intention, without those that are gone.
    pub(super) held: Vec<Held>,
    /// The same with those that are gone.
    pub(super) recorded: Vec<Held>,
    /// The number of the next intention.
    pub(super) next: u32,
    pub(super) keep_until: Option<u64>,
}

impl Journal {
    /// The state after the first line.
    pub(super) fn new(header: Header) -> Self {
        Self {
            header,
            held: Vec::new(),
            recorded: Vec::new(),
            next: 0,
            keep_until: None,
        }
    }

    /// Reads a whole record; also returns how many of its bytes are whole lines.
    ///
    /// # Errors
    /// [`ErrorKind::Io`] for anything that this version would not have written.
    pub(super) fn replay(bytes: &[u8]) -> Result<(Self, u64)> {
        let whole = match bytes.iter().rposition(|byte| *byte != 0) {
            Some(last) => &bytes[..=last],
            None => &[],
        };
        let end = whole.iter().rposition(|byte| *byte == b'\n');
        let whole = &whole[..end.map_or(0, |end| end + 1)];
        let mut lines = whole.split_inclusive(|byte| *byte == b'\n').enumerate();
        let Some((_, first)) = lines.next() else {
            return Err(broken("the record is empty"));
        };
        let header: Header = parse(0, first)?;
        if header.see_ledger != VERSION {
            return Err(broken(format!(
                "the record has version {}, this program reads version {VERSION}",
                header.see_ledger
            )));
        }
        let mut journal = Self::new(header);
        for (index, line) in lines {
            let line: Line = parse(index, line)?;
            journal
                .apply(line)
                .map_err(|error| broken(format!("line {}: {}", index + 1, error.message())))?;
        }
        Ok((journal, whole.len() as u64))
    }

    /// Takes one more line into account, unless it contradicts the earlier ones.
    pub(super) fn apply(&mut self, line: Line) -> Result<()> {
        match line {
            Line::Intend { entry, resource } => {
                resource.check()?;
                if entry != self.next {
                    return Err(broken(format!(
                        "entry {entry} is out of order: {} would be next",
                        self.next
                    )));
                }
                if self.next as usize >= ENTRY_LIMIT {
                    return Err(Error::new(
                        ErrorKind::Exhausted,
                        format!("a record holds at most {ENTRY_LIMIT} resources"),
                    ));
                }
                self.next += 1;
                let held = Held {
                    entry,
                    resource,
                    identity: None,
                };
                self.recorded.push(held.clone());
                self.held.push(held);
            }
            Line::Created { entry, identity } => {
                let index = self.position(entry)?;
                // Every entry is recorded, in order of its number.
                if let Some(recorded) = self.recorded.get_mut(entry as usize) {
                    recorded.identity = Some(identity.clone());
                }
                self.held[index].identity = Some(identity);
            }
            Line::Gone { entry } => {
                let index = self.position(entry)?;
                self.held.remove(index);
            }
            Line::Keep { until } => self.keep_until = Some(until),
        }
        Ok(())
    }

    fn position(&self, entry: u32) -> Result<usize> {
        self.held
            .binary_search_by_key(&entry, |held| held.entry)
            .map_err(|_| broken(format!("entry {entry} is not in the record")))
    }
}

/// One line with its line feed.
pub(super) fn encode(line: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec(line).map_err(|error| {
        Error::new(ErrorKind::Internal, "a ledger line cannot be written").caused_by(error)
    })?;
    bytes.push(b'\n');
    if bytes.len() > LINE_LIMIT {
        return Err(Error::new(
            ErrorKind::Exhausted,
            format!(
                "a ledger line has {} bytes, at most {LINE_LIMIT} are allowed",
                bytes.len()
            ),
        )
        .advice("keep names, notes and details short"));
    }
    Ok(bytes)
}

/// A record that is not as this version writes it.
pub(super) fn broken(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Io, message)
}

fn parse<T: for<'de> Deserialize<'de>>(index: usize, line: &[u8]) -> Result<T> {
    let number = index + 1;
    if line.len() > LINE_LIMIT {
        return Err(broken(format!("line {number} is too long")));
    }
    serde_json::from_slice(line)
        .map_err(|error| broken(format!("line {number} is not a ledger line")).caused_by(error))
}

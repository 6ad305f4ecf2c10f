//! Bytes on the wire between a host and an agent, out of bytes of a fuzzer.
//!
//! A hostile peer computes its checksums right. A fuzzer does not find out how, so it is spared that: its
//! bytes say which pieces follow each other, and the checksums are put in here.

use see_agent::protocol::{Frame, HEADER, MAX_BODY};

/// Takes a fuzzer's bytes apart; at their end it gives zeros.
pub(crate) struct Dough<'a>(&'a [u8]);

impl<'a> Dough<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    pub(crate) fn take(&mut self, length: usize) -> &'a [u8] {
        let (piece, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        piece
    }

    fn length(&mut self) -> usize {
        usize::from(self.byte()) << 4 | usize::from(self.byte() & 15)
    }
}

/// Everything that the bytes stand for: frames, whole, damaged and cut off, and noise between them.
/// `session` is the one that is open.
pub(crate) fn bake(dough: &mut Dough<'_>, session: u64) -> Vec<u8> {
    let mut wire = Vec::new();
    while !dough.is_empty() && wire.len() < 4 * MAX_BODY {
        let what = dough.byte();
        if what & 7 == 0 {
            let length = dough.length();
            wire.extend_from_slice(dough.take(length));
            continue;
        }
        let frame = Frame {
            session: if what & 8 == 0 {
                session
            } else {
                u64::from(dough.byte())
            },
            request: u32::from(dough.byte()),
            kind: dough.byte(),
            body: {
                let length = dough.length();
                let mut body = dough.take(length).to_vec();
                if what & 0b111_1000 == 0b001_1000 {
                    // As long as a frame may be, and longer.
                    body.resize(MAX_BODY + 1 - usize::from(what >> 7), what);
                }
                body
            },
        };
        let Ok(mut bytes) = frame.encode() else {
            continue;
        };
        match what & 7 {
            1 => bytes[HEADER - 1] ^= 1,
            2 if bytes.len() > HEADER => bytes[HEADER] ^= 1,
            3 => bytes.truncate(HEADER + (bytes.len() - HEADER) / 2),
            _ => {}
        }
        wire.extend_from_slice(&bytes);
    }
    wire
}

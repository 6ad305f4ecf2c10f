//! Frames, and finding them in a stream of bytes.
//!
//! A header, little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | the magic bytes `A5 53 45 45` |
//! | 4 | the format of this header: 2 |
//! | 5 | what the body is: 0 a message, 1 bytes of a stream, 2 and 3 a program's two outputs |
//! | 6..8 | zero |
//! | 8..16 | the session |
//! | 16..20 | the request |
//! | 20..24 | the length of the body |
//! | 24..28 | CRC-32 of the body |
//! | 28..32 | CRC-32 of the 28 bytes before |

use super::{HEADER, MAX_BODY, ProtocolError};
use crc32fast::hash as crc32;

const MAGIC: [u8; 4] = [0xA5, b'S', b'E', b'E'];
const FORMAT: u8 = 2;

/// One message on the wire, its body not yet understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The session it belongs to.
    pub session: u64,
    /// The request it belongs to within the session.
    pub request: u32,
    /// What the body is: see [`Request`](super::Request) and [`Reply`](super::Reply).
    pub kind: u8,
    /// At most [`MAX_BODY`] bytes.
    pub body: Vec<u8>,
}

impl Frame {
    /// The bytes on the wire.
    ///
    /// # Errors
    /// [`ProtocolError::TooLong`] when the body does not fit a frame.
    pub fn encode(&self) -> Result<Vec<u8>, ProtocolError> {
        let length = self.body.len();
        if length > MAX_BODY {
            return Err(ProtocolError::TooLong { found: length });
        }
        let mut bytes = Vec::with_capacity(HEADER + length);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&[FORMAT, self.kind, 0, 0]);
        bytes.extend_from_slice(&self.session.to_le_bytes());
        bytes.extend_from_slice(&self.request.to_le_bytes());
        bytes.extend_from_slice(&(length as u32).to_le_bytes());
        bytes.extend_from_slice(&crc32(&self.body).to_le_bytes());
        bytes.extend_from_slice(&crc32(&bytes).to_le_bytes());
        bytes.extend_from_slice(&self.body);
        Ok(bytes)
    }

    /// What the frame costs of its stream's window.
    pub fn cost(&self) -> usize {
        HEADER + self.body.len()
    }
}

/// The fields of a header whose checksum holds.
struct Header {
    session: u64,
    request: u32,
    kind: u8,
    length: usize,
    body_checksum: u32,
}

impl Header {
    fn parse(bytes: &[u8; HEADER]) -> Option<Self> {
        let number = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if bytes[..4] != MAGIC || number(28) != crc32(&bytes[..28]) {
            return None;
        }
        let length = number(20) as usize;
        // Whoever computed the checksum knows the format: other values belong to another version.
        if bytes[4] != FORMAT || bytes[6..8] != [0, 0] || length > MAX_BODY {
            return None;
        }
        Some(Self {
            session: u64::from(number(8)) | u64::from(number(12)) << 32,
            request: number(16),
            kind: bytes[5],
            length,
            body_checksum: number(24),
        })
    }
}

/// Finds frames in a stream of bytes, whatever else is in it.
///
/// It holds at most one unfinished frame and what was pushed last, as long as
/// [`next_frame`](Self::next_frame) is called until it gives nothing more.
///
/// ```
/// use see_agent::protocol::{Decoder, Frame};
///
/// let frame = Frame { session: 7, request: 1, kind: 2, body: vec![1, 2, 3] };
/// let mut decoder = Decoder::default();
/// decoder.push(b"noise on the line");
/// decoder.push(&frame.encode()?);
/// assert_eq!(decoder.next_frame(), Some(frame));
/// assert_eq!(decoder.next_frame(), None);
/// assert_eq!(decoder.skipped(), 17);
/// # Ok::<(), see_agent::protocol::ProtocolError>(())
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Everything before is dealt with.
    start: usize,
    skipped: u64,
    damaged: u64,
}

impl Decoder {
    /// Takes the next bytes of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, or nothing until more bytes are pushed.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            self.skip_to_magic();
            let rest = &self.buffer[self.start..];
            let header = rest.first_chunk::<HEADER>()?;
            let Some(header) = Header::parse(header) else {
                self.skip(1);
                continue;
            };
            let body = rest.get(HEADER..HEADER + header.length)?;
            if crc32(body) != header.body_checksum {
                self.damaged += 1;
                self.skip(1);
                continue;
            }
            let frame = Frame {
                session: header.session,
                request: header.request,
                kind: header.kind,
                body: body.to_vec(),
            };
            self.start += HEADER + header.length;
            return Some(frame);
        }
    }

    /// How many bytes belonged to no frame so far.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// How many frames had a whole header and a body that does not fit it.
    ///
    /// Each one costs a checksum over up to [`MAX_BODY`] bytes, so a receiver that is not on the
    /// sender's side hangs up after a few.
    pub fn damaged(&self) -> u64 {
        self.damaged
    }

    fn skip(&mut self, count: usize) {
        self.start += count;
        self.skipped += count as u64;
    }

    /// Goes on to the first place where a header may begin.
    fn skip_to_magic(&mut self) {
        loop {
            let rest = &self.buffer[self.start..];
            match rest.iter().position(|byte| *byte == MAGIC[0]) {
                Some(0) if rest.iter().zip(MAGIC).all(|(byte, magic)| *byte == magic) => return,
                Some(0) => self.skip(1),
                Some(distance) => self.skip(distance),
                None => {
                    let length = rest.len();
                    return self.skip(length);
                }
            }
        }
    }
}

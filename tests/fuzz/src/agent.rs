//! The agent's side: whatever a host, or whoever poses as one, sends.

use crate::wire::{Dough, bake};
use see_agent::protocol::{Decoder, FailureCode, Frame, HEADER, MAX_BODY, PADDING, Reply, Request};
use see_agent::server::{Agent, Settings, Token, Trust, serve_connection};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

/// Pushes bytes in pieces of this length, as a channel would, and gives the frames in them.
fn decode(decoder: &mut Decoder, bytes: &[u8], piece: usize) -> Vec<Frame> {
    let mut found = Vec::new();
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        found.extend(std::iter::from_fn(|| decoder.next_frame()));
    }
    found
}

/// The serial port: frames are found whatever lies between them, in whatever pieces they come, and a host
/// that comes after one that died in mid-frame is heard. What they hold is understood or refused.
pub(crate) fn agent_serial(bytes: &[u8]) -> bool {
    let mut dough = Dough::new(bytes);
    let (piece, pad) = (dough.byte(), dough.byte());
    let wire = bake(&mut dough, 7);
    let mut decoder = Decoder::default();
    let frames = decode(&mut decoder, &wire, wire.len().max(1));
    // Thousands of tiny pieces tell no more than a hundred.
    let piece = 1 + usize::from(piece) + wire.len() / 100;
    let in_pieces = decode(&mut Decoder::default(), &wire, piece);
    assert_eq!(
        frames, in_pieces,
        "the frames depend on the pieces in which they come"
    );
    let understood = frames.into_iter().filter(understand).count();
    // Costs as much as all the rest, so that not every input is followed by it.
    if pad & 15 == 15 {
        let frame = Frame {
            session: 8,
            request: 1,
            kind: 2,
            body: Vec::new(),
        };
        let next = [vec![0; PADDING], frame.encode().expect("it is short")].concat();
        let found = decode(&mut decoder, &next, next.len());
        assert_eq!(found.last(), Some(&frame), "the next host is not heard");
        let all = [wire, next].concat();
        let found = decode(&mut Decoder::default(), &all, all.len());
        assert_eq!(found, whole(&all), "not all whole frames are found");
    }
    understood > 0
}

/// The frames that stand whole in these bytes, looked for at every place.
fn whole(bytes: &[u8]) -> Vec<Frame> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(header) = rest.first_chunk::<HEADER>() {
        match header
            .starts_with(b"\xA5SEE")
            .then(|| whole_at(header, rest))
        {
            Some(Some((frame, length))) => {
                found.push(frame);
                rest = &rest[length..];
            }
            _ => rest = &rest[1..],
        }
    }
    found
}

/// The frame that stands here, and its length, where it is what would have been written for its fields.
fn whole_at(header: &[u8; HEADER], rest: &[u8]) -> Option<(Frame, usize)> {
    let number = |at: usize| {
        let four = [header[at], header[at + 1], header[at + 2], header[at + 3]];
        u32::from_le_bytes(four)
    };
    let length = HEADER + usize::try_from(number(20)).ok()?;
    let bytes = rest.get(..length)?;
    let frame = Frame {
        session: u64::from(number(12)) << 32 | u64::from(number(8)),
        request: number(16),
        kind: header[5],
        body: bytes[HEADER..].to_vec(),
    };
    (frame.encode().as_deref() == Ok(bytes)).then_some((frame, length))
}

/// Whether the frame is a request. One that is says the same when it is written again.
fn understand(frame: &Frame) -> bool {
    assert!(frame.body.len() <= MAX_BODY);
    let Ok(request) = Request::from_frame(frame.clone()) else {
        return false;
    };
    let Ok(again) = request.clone().into_frame(frame.session, frame.request) else {
        // What was no text was replaced by longer signs.
        return true;
    };
    if again.body.len() == frame.body.len() {
        assert_eq!(Request::from_frame(again), Ok(request));
    }
    true
}

thread_local! {
    /// A folder and a token of this thread's own; the token is never in what a fuzzer makes. What a static holds
    /// would stay when the process ends.
    static AGENT: (Arc<Agent>, tempfile::TempDir) = {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let secret = || RandomState::new().build_hasher().finish();
        let secret = format!("{:016x}{:016x}", secret(), secret());
        let mut settings = Settings::new(folder.path());
        settings.token = Token::new(secret.as_bytes());
        (Agent::new(settings).expect("a folder for it"), folder)
    };
}

/// A connection over TCP without the token: nothing is served, and nothing is told but that.
pub(crate) fn agent_tcp(bytes: &[u8]) -> bool {
    let mut dough = Dough::new(bytes);
    let piece = 1 + usize::from(dough.byte()) * 16;
    let wire = bake(&mut dough, 7);
    let told = Told::default();
    let reader = Pieces { wire: &wire, piece };
    AGENT
        .with(|(agent, _)| serve_connection(agent, reader, told.clone(), Trust::Token))
        .expect("the wire does not fail");
    let told = told.0.lock().expect("no holder panics").clone();
    let replies = decode(&mut Decoder::default(), &told, told.len().max(1));
    assert!(
        replies.len() <= 1,
        "a refused connection goes on: {replies:?}"
    );
    for frame in &replies {
        let reply = Reply::from_frame(frame.clone()).expect("the agent's own reply");
        let refused = matches!(
            reply,
            Reply::Failed {
                code: FailureCode::WrongToken,
                ..
            }
        );
        assert!(refused, "served without the token: {reply:?}");
    }
    !replies.is_empty()
}

/// A connection that gives its bytes in pieces.
struct Pieces<'a> {
    wire: &'a [u8],
    piece: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.piece.min(buffer.len());
        self.wire.take(length as u64).read(buffer).inspect(|read| {
            self.wire = &self.wire[*read..];
        })
    }
}

/// What the agent wrote.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<u8>>>);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut told = self.0.lock().expect("no holder panics");
        told.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! The wire protocol, as values.
//!
//! `docs/agent-protocol.md` has it for people who write a host or an agent in another language.
//!
//! A *frame* is a header with its own checksum and a checksummed body of at most [`MAX_BODY`]
//! bytes: a message in CBOR, or bytes of a stream. Each frame belongs to a *session*, named by a random number of the host's choosing, and
//! within it to a *request*. The host opens a session with [`Request::Hello`]; that ends the
//! session before it, and whatever still comes for the old one is ignored. So a host that died in
//! the middle of a frame is followed by another without any clean-up.
//!
//! # Resynchronising
//! A receiver looks for the next header whose checksum holds and skips everything before it.
//! A frame that was cut off is completed by what follows, fails its checksum, and is searched again
//! from its second byte. So that this never has to wait for bytes that do not come, whoever starts
//! a session on a port that outlives its users sends [`PADDING`] zero bytes first: as many as the
//! longest frame.
//!
//! # Flow control
//! Frames that carry a stream ([`Request::Data`], [`Reply::Data`], [`Reply::Output`],
//! [`Reply::Processes`]) cost their length on the wire, header included. Each side may have
//! [`WINDOW`] of cost under way per request and direction; the receiver gives it back with `Credit`
//! once it has dealt with the bytes. That makes the memory of both ends constant, and keeps one
//! stalled stream from stalling the others.

mod error;
mod frame;
mod guest;
mod probe;
mod reply;
mod request;
mod wire;

pub use error::ProtocolError;
pub use frame::{Decoder, Frame};
pub use guest::{Exit, FileInfo, FileKind, Info, JobState, MAX_MESSAGE, Outcome, Process, Stream};
pub use probe::{Finding, MAX_FINDING, MAX_PROBE_PATIENCE, MAX_TARGETS, Probe, ProbeTarget};
pub use reply::{FailureCode, Reply};
pub use request::{MAX_ARGUMENTS, MAX_DEADLINE, Placement, Program, Request, Run, Upload};

/// The name of the agent's virtio-serial channel; in a Linux guest
/// `/dev/virtio-ports/org.see.agent.0`.
pub const CHANNEL: &str = "org.see.agent.0";

/// The version of the protocol that this crate speaks.
pub const VERSION: u16 = 2;

/// The length of a frame's header in bytes.
pub const HEADER: usize = 32;

/// The longest body of a frame in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// How many zero bytes complete any frame that was cut off.
pub const PADDING: usize = HEADER + MAX_BODY;

/// How many bytes of stream frames, headers included, may be under way per request and direction.
pub const WINDOW: usize = 4 * PADDING;

/// How many requests a session may have open at once, not counting short ones.
pub const MAX_REQUESTS: usize = 8;

/// How many short requests a session may have open besides ([`Request::is_short`]): those that ask whether somebody
/// is there, ask after a program or end one. However much runs, there is room for them.
pub const MAX_SHORT_REQUESTS: usize = 8;

/// The longest token in bytes.
pub const MAX_TOKEN: usize = 256;

/// The shortest token that is accepted, in bytes.
pub const MIN_TOKEN: usize = 16;

/// The longest name of an uploaded file in bytes.
pub const MAX_NAME: usize = 255;

/// The longest path of an uploaded file in bytes.
pub const MAX_PATH: usize = 4096;

/// Where the arguments of an upload-and-run stand for the path of the uploaded file.
pub const SAMPLE_PLACEHOLDER: &str = "{sample}";

//! What the host is answered while a request is served.

use super::outbox::Outbox;
use super::stream::{Room, StreamPair};
use crate::protocol::{FailureCode, Reply};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a host may take to read an answer before it is dropped.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// How long a host may take to make room for a stream's next frame.
pub(super) const STREAM_PATIENCE: Duration = Duration::from_secs(300);

/// The answers to one request.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) session: u64,
    pub(super) request: u32,
    pub(super) outbox: Arc<Outbox>,
    pub(super) streams: Arc<StreamPair>,
}

impl Answer {
    /// Sends a frame that belongs to no stream. A host that does not read misses it, and its own deadline tells it so.
    pub(super) fn reply(&self, reply: Reply) {
        let until = Instant::now() + PATIENCE;
        self.outbox.send(self.session, self.request, reply, until);
    }

    /// Gives the host room for as many bytes as were dealt with.
    pub(super) fn give_back(&self, bytes: usize) {
        self.reply(Reply::Credit(self.streams.dealt_with(bytes)));
    }

    /// Whether the host has given the request up.
    pub(super) fn is_cancelled(&self) -> bool {
        self.streams.is_cancelled()
    }

    /// The next signal that the host sends the program.
    pub(super) fn next_signal(&self) -> Option<i32> {
        self.streams.next_signal()
    }

    /// Sends a part of a stream once the host has room for it.
    pub(super) fn stream(&self, reply: Reply) -> Result<(), Reply> {
        let cancelled = |message| Reply::failed(FailureCode::Cancelled, message);
        match self.send(reply, Instant::now() + STREAM_PATIENCE) {
            Room::Taken => Ok(()),
            Room::Cancelled => Err(cancelled("the request was cancelled")),
            Room::Expired => Err(cancelled("the host took no more of the stream")),
        }
    }

    pub(super) fn send(&self, reply: Reply, until: Instant) -> Room {
        let Ok(frame) = reply.into_frame(self.session, self.request) else {
            // Parts of a stream are made to fit; one that does not could be told to nobody.
            return Room::Cancelled;
        };
        let cost = frame.cost();
        let room = self.streams.take_room(cost, until);
        if room != Room::Taken {
            return room;
        }
        if self.outbox.send_frame(&frame, until) {
            return Room::Taken;
        }
        self.streams.credit(cost as u32);
        if Instant::now() < until {
            // Nobody writes any more.
            return Room::Cancelled;
        }
        Room::Expired
    }
}

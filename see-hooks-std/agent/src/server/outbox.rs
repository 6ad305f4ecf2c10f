//! The frames that wait to be written to a transport.

use super::lock;
use crate::protocol::{Frame, PADDING, Reply};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex};
use std::time::Instant;

/// How many bytes wait at most.
const CAPACITY: usize = 8 * PADDING;

/// A bounded queue between the requests and the thread that writes.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Packet>,
    bytes: usize,
    writing: bool,
    closed: bool,
}

#[derive(Debug)]
struct Packet {
    session: u64,
    bytes: Vec<u8>,
}

impl Outbox {
    /// Queues a reply; false when there was no room in time, or nobody writes any more.
    pub(super) fn send(&self, session: u64, request: u32, reply: Reply, until: Instant) -> bool {
        // Replies are built to fit; one that does not could only be told to nobody.
        let frame = reply.into_frame(session, request);
        frame.is_ok_and(|frame| self.send_frame(&frame, until))
    }

    /// The same for a frame.
    pub(super) fn send_frame(&self, frame: &Frame, until: Instant) -> bool {
        let session = frame.session;
        let bytes = frame.encode();
        bytes.is_ok_and(|bytes| self.push(Packet { session, bytes }, until))
    }

    /// Queues the zeros that complete whatever the receiver has half of.
    pub(super) fn pad(&self, session: u64, until: Instant) -> bool {
        let bytes = vec![0; PADDING];
        self.push(Packet { session, bytes }, until)
    }

    fn push(&self, packet: Packet, until: Instant) -> bool {
        let mut state = lock(&self.state);
        loop {
            if state.closed {
                return false;
            }
            if state.bytes + packet.bytes.len() <= CAPACITY {
                state.bytes += packet.bytes.len();
                state.waiting.push_back(packet);
                self.changed.notify_all();
                return true;
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return false;
            };
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Drops what waits for any other session.
    pub(super) fn keep_only(&self, session: u64) {
        let mut state = lock(&self.state);
        state.waiting.retain(|packet| packet.session == session);
        state.bytes = state.waiting.iter().map(|packet| packet.bytes.len()).sum();
        self.changed.notify_all();
    }

    /// The next bytes to write; nothing once the outbox is closed and empty.
    pub(super) fn next(&self) -> Option<Vec<u8>> {
        let mut state = lock(&self.state);
        state.writing = false;
        self.changed.notify_all();
        loop {
            if let Some(first) = state.waiting.pop_front() {
                let mut bytes = first.bytes;
                // Several small frames in one write: each one costs a guest a trip to its host.
                while let Some(next) = state.waiting.front() {
                    if bytes.len() + next.bytes.len() > PADDING {
                        break;
                    }
                    bytes.extend_from_slice(&next.bytes);
                    state.waiting.pop_front();
                }
                state.bytes -= bytes.len();
                state.writing = true;
                self.changed.notify_all();
                return Some(bytes);
            }
            if state.closed {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    /// Takes no more; what waits is still written.
    pub(super) fn close(&self) {
        lock(&self.state).closed = true;
        self.changed.notify_all();
    }

    /// Takes no more and drops what waits: writing failed.
    pub(super) fn abandon(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.waiting.clear();
        state.bytes = 0;
        self.changed.notify_all();
    }

    /// Waits until everything is written, or until the time is up.
    pub(super) fn drain(&self, until: Instant) {
        let mut state = lock(&self.state);
        while !state.waiting.is_empty() || state.writing {
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return;
            };
            state = match self.changed.wait_timeout(state, left) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }
}

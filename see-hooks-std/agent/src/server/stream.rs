//! The two flow-controlled streams of an open request.

use super::lock;
use crate::protocol::{Request, WINDOW};
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Between the reader of a transport and the thread that serves one request.
#[derive(Debug)]
pub(super) struct StreamPair {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// What came from the host and was not taken yet.
    inbox: VecDeque<Vec<u8>>,
    /// The cost that the host has under way: what it sent, less what was given back.
    used: usize,
    ended: bool,
    /// The cost that the host still has room for.
    credit: usize,
    cancelled: bool,
    /// Signals for the program, at most [`MAX_SIGNALS`].
    signals: VecDeque<i32>,
}

/// How many signals may wait for a program; what comes beyond is lost, as the system does it.
const MAX_SIGNALS: usize = 64;

/// What came next on the stream from the host.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Some bytes.
    Data(Vec<u8>),
    /// It is complete.
    End,
    /// The request was cancelled, its session is gone, or the time is up.
    Cancelled,
}

/// What became of an attempt to get room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// There is room, and it is taken.
    Taken,
    /// The time is up.
    Expired,
    /// The request was cancelled, or its session is gone.
    Cancelled,
}

impl StreamPair {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                inbox: VecDeque::new(),
                used: 0,
                ended: false,
                credit: WINDOW,
                cancelled: false,
                signals: VecDeque::new(),
            }),
            changed: Condvar::new(),
        }
    }

    /// Bytes from the host; false when it overran its window or had ended the stream already.
    pub(super) fn receive(&self, bytes: Vec<u8>) -> bool {
        let mut state = lock(&self.state);
        let cost = Request::stream_cost(bytes.len());
        if state.ended || state.used + cost > WINDOW {
            return false;
        }
        state.used += cost;
        state.inbox.push_back(bytes);
        self.changed.notify_all();
        true
    }

    /// The host ended its stream.
    pub(super) fn end(&self) {
        lock(&self.state).ended = true;
        self.changed.notify_all();
    }

    /// The host dealt with this much.
    pub(super) fn credit(&self, amount: u32) {
        let mut state = lock(&self.state);
        state.credit = state.credit.saturating_add(amount as usize).min(WINDOW);
        self.changed.notify_all();
    }

    /// The request is no longer wanted.
    pub(super) fn cancel(&self) {
        lock(&self.state).cancelled = true;
        self.changed.notify_all();
    }

    /// The host sends the program a signal.
    pub(super) fn signal(&self, signal: i32) {
        let mut state = lock(&self.state);
        if state.signals.len() < MAX_SIGNALS {
            state.signals.push_back(signal);
        }
    }

    pub(super) fn next_signal(&self) -> Option<i32> {
        lock(&self.state).signals.pop_front()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        lock(&self.state).cancelled
    }

    /// Waits for the host's next bytes. Without a time, until the request or its session ends.
    pub(super) fn next(&self, until: Option<Instant>) -> Incoming {
        let mut state = lock(&self.state);
        loop {
            if state.cancelled {
                return Incoming::Cancelled;
            }
            if let Some(bytes) = state.inbox.pop_front() {
                return Incoming::Data(bytes);
            }
            if state.ended {
                return Incoming::End;
            }
            state = match until {
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let Some(left) = until.checked_duration_since(Instant::now()) else {
                        return Incoming::Cancelled;
                    };
                    self.wait(state, left)
                }
            };
        }
    }

    /// Notes that these bytes were dealt with, and says how much to give back to the host now.
    pub(super) fn dealt_with(&self, bytes: usize) -> u32 {
        let cost = Request::stream_cost(bytes);
        let mut state = lock(&self.state);
        state.used = state.used.saturating_sub(cost);
        cost as u32
    }

    /// Waits for room for a frame of this cost.
    pub(super) fn take_room(&self, cost: usize, until: Instant) -> Room {
        let mut state = lock(&self.state);
        loop {
            if state.cancelled {
                return Room::Cancelled;
            }
            if state.credit >= cost {
                state.credit -= cost;
                return Room::Taken;
            }
            let Some(left) = until.checked_duration_since(Instant::now()) else {
                return Room::Expired;
            };
            state = self.wait(state, left);
        }
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>, left: Duration) -> MutexGuard<'a, State> {
        match self.changed.wait_timeout(state, left) {
            Ok((state, _)) => state,
            Err(poisoned) => poisoned.into_inner().0,
        }
    }
}

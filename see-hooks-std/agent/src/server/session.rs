//! A host's session: its open requests, each served on a thread of its own.

use super::answer::{Answer, PATIENCE};
use super::folder::io_failure;
use super::outbox::Outbox;
use super::stream::StreamPair;
use super::{Agent, lock, request, start_thread};
use crate::protocol::{FailureCode, MAX_REQUESTS, MAX_SHORT_REQUESTS, Reply, Request};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// One session on one transport.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) number: u64,
    agent: Arc<Agent>,
    outbox: Arc<Outbox>,
    open: Mutex<HashMap<u32, Open>>,
}

/// A request that is being served.
#[derive(Debug)]
struct Open {
    is_short: bool,
    streams: Arc<StreamPair>,
}

impl Session {
    pub(super) fn new(number: u64, agent: &Arc<Agent>, outbox: &Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self {
            number,
            agent: Arc::clone(agent),
            outbox: Arc::clone(outbox),
            open: Mutex::default(),
        })
    }

    /// Ends everything that is open: programs in the foreground are killed, unfinished uploads
    /// removed.
    pub(super) fn end(&self) {
        for open in lock(&self.open).values() {
            open.streams.cancel();
        }
    }

    pub(super) fn reply(&self, request: u32, reply: Reply) {
        // A host that does not read misses its answer, and its own deadline tells it so.
        self.outbox
            .send(self.number, request, reply, Instant::now() + PATIENCE);
    }

    /// A frame that belongs to an open request. One that has been answered meanwhile is no error.
    pub(super) fn feed(&self, request: u32, piece: Request) {
        let open = lock(&self.open);
        let Some(streams) = open.get(&request).map(|open| Arc::clone(&open.streams)) else {
            return;
        };
        drop(open);
        match piece {
            Request::Data(bytes) => {
                if !streams.receive(bytes) {
                    streams.cancel();
                }
            }
            Request::End => streams.end(),
            Request::Credit(amount) => streams.credit(amount),
            Request::Signal(signal) => streams.signal(signal),
            _ => streams.cancel(),
        }
    }

    /// Serves a request that takes time on a thread of its own.
    pub(super) fn begin(self: &Arc<Self>, number: u32, request: Request) {
        let streams = Arc::new(StreamPair::new());
        let is_short = request.is_short();
        let most = if is_short {
            MAX_SHORT_REQUESTS
        } else {
            MAX_REQUESTS
        };
        {
            let mut open = lock(&self.open);
            let refusal = if open.contains_key(&number) {
                Some((FailureCode::BadRequest, "a request of this number is open"))
            } else if open
                .values()
                .filter(|other| other.is_short == is_short)
                .count()
                >= most
            {
                Some((
                    FailureCode::Busy,
                    "as many requests as are allowed are open",
                ))
            } else {
                None
            };
            if let Some((code, message)) = refusal {
                drop(open);
                return self.reply(number, Reply::failed(code, message));
            }
            let streams = Arc::clone(&streams);
            open.insert(number, Open { is_short, streams });
        }
        let session = Arc::clone(self);
        let started = start_thread("request", move || {
            let answer = Answer {
                session: session.number,
                request: number,
                outbox: Arc::clone(&session.outbox),
                streams,
            };
            let served = AssertUnwindSafe(|| request::serve(&session.agent, &answer, request));
            let served = catch_unwind(served);
            let reply = match served {
                Ok(Ok(reply) | Err(reply)) => reply,
                Err(_) => Reply::failed(FailureCode::Io, "the agent failed; please report it"),
            };
            // Before the answer: the host may use the room as soon as it has it.
            lock(&session.open).remove(&number);
            // A thread that waits for a program's input would wait for ever.
            answer.streams.cancel();
            answer.reply(reply);
        });
        if let Err(error) = started {
            lock(&self.open).remove(&number);
            self.reply(
                number,
                io_failure("starting a thread for the request", &error),
            );
        }
    }
}

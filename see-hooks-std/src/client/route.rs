//! Where the replies to each open request go, and what each side has under way.

use super::ClientError;
use see_agent::protocol::{FailureCode, Frame, HEADER, Reply, WINDOW};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

/// How many replies besides its streams a request may get.
const MAX_CONTROL: usize = 8;
/// How many replies may wait for a request: a window full of empty frames, and the others.
pub(super) const MAX_WAITING: usize = WINDOW / HEADER + MAX_CONTROL;

/// The open requests of a connection.
#[derive(Debug, Default)]
pub(super) struct Routes {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    open: HashMap<u32, Route>,
    last: u32,
    /// How many frames the agent has sent.
    heard: u64,
    lost: Option<ClientError>,
}

/// One open request.
#[derive(Debug)]
struct Route {
    replies: mpsc::Sender<(Reply, usize)>,
    /// Whether this reply, which is not the last one for every request, is the last for this one.
    is_last: fn(&Reply) -> bool,
    /// The cost of what the agent sent and was not given back.
    received: usize,
    control: usize,
    /// The cost of what was sent to the agent and it did not give back.
    sent: usize,
    room: Arc<Semaphore>,
    /// When its caller gave it up.
    given_up: Option<Instant>,
    /// Kept until the agent's last answer: only then it has room for another request.
    _permit: OwnedSemaphorePermit,
}

impl Drop for Route {
    fn drop(&mut self) {
        // Nobody waits for room that the agent will never give.
        self.room.close();
    }
}

impl Routes {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a request; gives its number, and the window for what is sent to the agent.
    pub(super) fn open(
        &self,
        replies: mpsc::Sender<(Reply, usize)>,
        is_last: fn(&Reply) -> bool,
        permit: OwnedSemaphorePermit,
    ) -> Result<(u32, Arc<Semaphore>), ClientError> {
        let mut state = self.lock();
        if let Some(lost) = &state.lost {
            return Err(lost.clone());
        }
        // A number still open after four billion others is stepped over.
        loop {
            state.last = state.last.wrapping_add(1);
            if !state.open.contains_key(&state.last) {
                break;
            }
        }
        let number = state.last;
        let room = Arc::new(Semaphore::new(WINDOW));
        let route = Route {
            replies,
            is_last,
            received: 0,
            control: 0,
            sent: 0,
            room: Arc::clone(&room),
            given_up: None,
            _permit: permit,
        };
        state.open.insert(number, route);
        Ok((number, room))
    }

    /// Closes a request that the agent never knew, or will answer to nobody.
    pub(super) fn close(&self, number: u32) {
        self.lock().open.remove(&number);
    }

    /// Notes that the caller gave a request up: the agent still owes its last answer.
    pub(super) fn give_up(&self, number: u32) {
        if let Some(route) = self.lock().open.get_mut(&number) {
            route.given_up = Some(Instant::now());
        }
    }

    /// Closes the requests that were given up so long ago: an agent that answers nothing keeps none waiting for its
    /// turn.
    pub(super) fn forget(&self, patience: Duration) {
        let is_awaited = |route: &Route| route.given_up.is_none_or(|at| at.elapsed() < patience);
        self.lock().open.retain(|_, route| is_awaited(route));
    }

    /// Notes that this cost goes to the agent.
    pub(super) fn sending(&self, number: u32, cost: usize) {
        if let Some(route) = self.lock().open.get_mut(&number) {
            route.sent += cost;
        }
    }

    /// Notes that this cost is about to be given back to the agent.
    pub(super) fn giving_back(&self, number: u32, cost: usize) {
        if let Some(route) = self.lock().open.get_mut(&number) {
            route.received = route.received.saturating_sub(cost);
        }
    }

    /// How many frames the agent has sent so far.
    pub(super) fn heard(&self) -> u64 {
        self.lock().heard
    }

    /// Why the connection ended, if it did.
    pub(super) fn lost(&self) -> Option<ClientError> {
        self.lock().lost.clone()
    }

    /// The connection ended: every open request ends, and none is opened any more.
    pub(super) fn lose(&self, why: ClientError) {
        let mut state = self.lock();
        state.lost.get_or_insert(why);
        state.open.clear();
    }

    /// Hands a frame to its request. An error ends the connection.
    pub(super) fn deliver(&self, frame: Frame) -> Result<(), ClientError> {
        let violation = |message: &str| Err(ClientError::Violation(message.to_owned()));
        let (number, cost) = (frame.request, frame.cost());
        let reply = match Reply::from_frame(frame) {
            Ok(reply) => reply,
            Err(error) => return violation(&error.to_string()),
        };
        if let Reply::Failed {
            code: FailureCode::NoSession,
            ..
        } = reply
        {
            return Err(ClientError::NoSession);
        }
        let mut state = self.lock();
        state.heard += 1;
        let Some(route) = state.open.get_mut(&number) else {
            // Its caller gave up before anything was sent, or it is a second welcome.
            return Ok(());
        };
        match &reply {
            streamed if streamed.is_streamed() => {
                route.received += cost;
                if route.received > WINDOW {
                    return violation("it sent more than it was given room for");
                }
            }
            Reply::Credit(amount) => {
                let amount = *amount as usize;
                if amount > route.sent {
                    return violation("it gave back more than it was sent");
                }
                route.sent -= amount;
                route.room.add_permits(amount);
                return Ok(());
            }
            _ => {
                route.control += 1;
                if route.control > MAX_CONTROL {
                    return violation("it answered one request too often");
                }
            }
        }
        let is_last = ends(&reply) || (route.is_last)(&reply);
        // There is always room for what stays within the window; nobody may be left to listen.
        if let Err(mpsc::error::TrySendError::Full(_)) = route.replies.try_send((reply, cost)) {
            return violation("it sent more replies than fit its window");
        }
        if is_last {
            state.open.remove(&number);
        }
        Ok(())
    }
}

/// Whether this reply is the last one to whatever request it answers.
pub(super) fn ends(reply: &Reply) -> bool {
    matches!(
        reply,
        Reply::Welcome(_)
            | Reply::Pong(_)
            | Reply::Exited(_)
            | Reply::End { .. }
            | Reply::Job(_)
            | Reply::Done
            | Reply::Probed(_)
            | Reply::File(_)
            | Reply::Failed { .. }
    )
}

//! One open request, as its caller holds it.

use super::ClientError;
use super::link::Link;
use super::route::{MAX_WAITING, ends};
use see_agent::protocol::{Reply, Request, WINDOW};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// An open request. Dropped before its last reply, it is cancelled.
#[derive(Debug)]
pub(super) struct Call {
    link: Arc<Link>,
    number: u32,
    /// Each with its cost.
    replies: mpsc::Receiver<(Reply, usize)>,
    room: Arc<Semaphore>,
    /// The cost of what was taken and not given back yet.
    owed: usize,
    is_last: fn(&Reply) -> bool,
    /// The last reply was taken, or nobody is left to send one: there is nothing to cancel.
    over: bool,
}

impl Call {
    /// Sends a request, once the agent has room for one more. `is_last` tells which replies end it,
    /// besides those that end every request.
    pub(super) async fn start(
        link: &Arc<Link>,
        request: Request,
        is_last: fn(&Reply) -> bool,
    ) -> Result<Self, ClientError> {
        let permit = link.room_for(&request).await?;
        Self::start_in(link, permit, request, is_last).await
    }

    /// The same in room that is there already.
    pub(super) async fn start_in(
        link: &Arc<Link>,
        permit: OwnedSemaphorePermit,
        request: Request,
        is_last: fn(&Reply) -> bool,
    ) -> Result<Self, ClientError> {
        let (sender, replies) = mpsc::channel(MAX_WAITING);
        let (number, room) = link.routes.open(sender, is_last, permit)?;
        let link = Arc::clone(link);
        let mut call = Self {
            link,
            number,
            replies,
            room,
            owed: 0,
            is_last,
            over: false,
        };
        if let Err(error) = call.link.send(number, request).await {
            call.over = true;
            call.link.routes.close(number);
            return Err(error);
        }
        Ok(call)
    }

    /// The next reply. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Reply, ClientError> {
        if self.owed >= WINDOW / 4 {
            self.give_back().await?;
        }
        let Some((reply, cost)) = self.replies.recv().await else {
            self.over = true;
            return Err(self.link.why_lost());
        };
        match reply.is_streamed() {
            true => self.owed += cost,
            false => self.over |= ends(&reply) || (self.is_last)(&reply),
        }
        Ok(reply)
    }

    /// Gives the agent back the room that it used. Dropped before it is sent, nothing has changed.
    async fn give_back(&mut self) -> Result<(), ClientError> {
        let slot = self.link.reserve().await?;
        let amount = std::mem::take(&mut self.owed);
        self.link.routes.giving_back(self.number, amount);
        slot.send(self.number, Request::Credit(amount as u32))
    }

    pub(super) async fn send(&self, request: Request) -> Result<(), ClientError> {
        self.link.send(self.number, request).await
    }

    /// The same as [`Link::unexpected`].
    pub(super) fn unexpected(&self, reply: Reply) -> ClientError {
        self.link.unexpected(reply)
    }

    /// The stream to the agent.
    pub(super) fn input(&self) -> Input {
        Input {
            link: Arc::clone(&self.link),
            number: self.number,
            room: Arc::clone(&self.room),
        }
    }

    /// Sends the next bytes of the stream to the agent, once it has room for them. A reply that
    /// comes before is given back instead: the agent wants no more.
    pub(super) async fn send_data(&mut self, bytes: Vec<u8>) -> Result<Option<Reply>, ClientError> {
        let input = self.input();
        tokio::select! {
            biased;
            reply = self.next() => reply.map(Some),
            written = input.write(bytes) => written.map(|()| None),
        }
    }
}

/// The stream to the agent of an open request: a program's standard input.
#[derive(Debug, Clone)]
pub struct Input {
    link: Arc<Link>,
    number: u32,
    room: Arc<Semaphore>,
}

impl Input {
    /// Sends the next bytes, at most [`MAX_BODY`](see_agent::protocol::MAX_BODY) at a time, once the agent has room for
    /// them: while the program reads nothing, this waits. Dropped before its end, it has sent nothing.
    ///
    /// # Errors
    /// [`ClientError::Ended`] when the program has ended, and when the agent is lost.
    pub async fn write(&self, bytes: Vec<u8>) -> Result<(), ClientError> {
        let cost = Request::stream_cost(bytes.len());
        let room = self.room.acquire_many(cost as u32).await;
        let room = room.map_err(|_| self.link.routes.lost().unwrap_or(ClientError::Ended))?;
        let slot = self.link.reserve().await?;
        room.forget();
        self.link.routes.sending(self.number, cost);
        slot.send(self.number, Request::Data(bytes))
    }

    /// Ends the stream.
    ///
    /// # Errors
    /// When the agent is lost.
    pub async fn close(&self) -> Result<(), ClientError> {
        self.link.send(self.number, Request::End).await
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.over {
            self.link.give_up(self.number);
        }
    }
}

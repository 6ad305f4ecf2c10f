//! One open request, as its caller holds it.

use super::ClientError;
use super::link::Link;
use super::route::{MAX_WAITING, ends};
use see_agent::protocol::{Reply, Request, WINDOW};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};

/// An open request. Dropped before its last reply, it is cancelled.
#[derive(Debug)]
pub(super) struct Call {
    link: Arc<Link>,
    number: u32,
    replies: mpsc::Receiver<Reply>,
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
        // The semaphore is never closed.
        let permit = Arc::clone(&link.room).acquire_owned().await;
        let permit = permit.map_err(|_| link.why_lost())?;
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
        let Some(reply) = self.replies.recv().await else {
            self.over = true;
            return Err(self.link.why_lost());
        };
        match &reply {
            Reply::Output { bytes, .. } | Reply::Data(bytes) => {
                self.owed += Request::stream_cost(bytes.len());
            }
            Reply::Processes(_) => {
                // Its length on the wire is not kept: give back what the largest would cost.
                self.owed += reply_cost(&reply);
            }
            other => self.over |= ends(other) || (self.is_last)(other),
        }
        Ok(reply)
    }

    async fn give_back(&mut self) -> Result<(), ClientError> {
        let amount = self.owed;
        self.link.routes.giving_back(self.number, amount);
        // From here on it counts as given: dropped before it is sent, the agent has less room.
        self.owed = 0;
        self.send(Request::Credit(amount as u32)).await
    }

    pub(super) async fn send(&self, request: Request) -> Result<(), ClientError> {
        self.link.send(self.number, request).await
    }

    /// Sends the next bytes of the stream to the agent, once it has room for them. A reply that
    /// comes before is given back instead: the agent wants no more.
    pub(super) async fn send_data(&mut self, bytes: Vec<u8>) -> Result<Option<Reply>, ClientError> {
        let cost = Request::stream_cost(bytes.len());
        let room = Arc::clone(&self.room);
        tokio::select! {
            biased;
            reply = self.next() => return reply.map(Some),
            permit = room.acquire_many(cost as u32) => match permit {
                Ok(permit) => permit.forget(),
                Err(_) => return Err(self.link.why_lost()),
            },
        }
        self.link.routes.sending(self.number, cost);
        self.send(Request::Data(bytes)).await?;
        Ok(None)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.over {
            self.link.cancel(self.number);
        }
    }
}

/// What a list of processes costs on the wire.
fn reply_cost(reply: &Reply) -> usize {
    let frame = reply.clone().into_frame(0, 0);
    frame.map_or(0, |frame| frame.cost())
}

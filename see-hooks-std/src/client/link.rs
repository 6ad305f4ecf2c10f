//! The task of a connection, which reads and writes.

use super::ClientError;
use super::route::Routes;
use see_agent::protocol::{
    Decoder, Frame, MAX_BODY, MAX_REQUESTS, MAX_SHORT_REQUESTS, PADDING, Reply, Request,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;

/// How many frames wait to be written.
const MAX_OUTGOING: usize = 4;
/// How many frames of a guest may be damaged before it is taken for hostile; a host that comes
/// after another one sees one.
const MAX_DAMAGED: u64 = 8;
/// How many bytes of a guest may belong to no frame: what an agent had under way for a host before
/// this one, and more.
const MAX_SKIPPED: u64 = 16 << 20;

/// How long an agent may take to answer a request that was given up; ending its program and sending the last of its
/// output takes no longer.
const LAST_ANSWER: Duration = Duration::from_secs(60);
/// How often a request that waits for its turn looks at those that were given up.
const LOOK: Duration = Duration::from_secs(1);

/// A connection. It ends when it is dropped.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) session: u64,
    pub(super) routes: Arc<Routes>,
    /// As many requests as the agent serves at once.
    requests: Arc<Semaphore>,
    /// As many short ones as it serves besides.
    short_requests: Arc<Semaphore>,
    outgoing: mpsc::Sender<Vec<u8>>,
    /// Requests given up; at most one for each that is open.
    cancels: mpsc::Sender<u32>,
    task: JoinHandle<()>,
}

impl Link {
    /// Starts to read and write this stream, under a session of a random number.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub(super) fn open(
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Result<Arc<Self>, ClientError> {
        let session = getrandom::u64().map_err(|error| ClientError::Local {
            doing: "choosing a session number",
            message: error.to_string(),
        })?;
        let routes = Arc::new(Routes::default());
        let (outgoing, mut waiting) = mpsc::channel(MAX_OUTGOING);
        let (cancels, mut cancelled) = mpsc::channel(MAX_REQUESTS + MAX_SHORT_REQUESTS);
        let (reader, writer) = tokio::io::split(stream);
        let task = {
            let routes = Arc::clone(&routes);
            tokio::spawn(async move {
                // Whichever ends first ends the other: callers then learn why.
                let why = tokio::select! {
                    why = read(reader, session, &routes) => why,
                    written = write(writer, session, &mut waiting, &mut cancelled) => match written {
                        Ok(()) => ClientError::Lost("nobody uses it any more".to_owned()),
                        Err(error) => ClientError::Lost(error.to_string()),
                    },
                };
                // Before the queues are dropped, which tells of the end: the reason is then known.
                routes.lose(why);
            })
        };
        Ok(Arc::new(Self {
            session,
            routes,
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            short_requests: Arc::new(Semaphore::new(MAX_SHORT_REQUESTS)),
            outgoing,
            cancels,
            task,
        }))
    }

    /// Waits until the connection ends; gives the reason. May be dropped at any time.
    pub(super) async fn ended(&self) -> ClientError {
        self.outgoing.closed().await;
        self.why_lost()
    }

    /// Whether the connection ended, as soon as any caller can know it: they learn of it before the queue is closed.
    pub(super) fn has_ended(&self) -> bool {
        self.routes.lost().is_some() || self.outgoing.is_closed()
    }

    /// Sends what completes any frame that a host before this one left unfinished.
    pub(super) async fn pad(&self) -> Result<(), ClientError> {
        self.reserve().await?.permit.send(vec![0; PADDING]);
        Ok(())
    }

    /// Waits until the agent has room for one more request; a short one waits for other short ones alone. The caller
    /// sets the deadline.
    pub(super) async fn room_for(
        &self,
        request: &Request,
    ) -> Result<OwnedSemaphorePermit, ClientError> {
        let room = match request.is_short() {
            true => &self.short_requests,
            false => &self.requests,
        };
        let turn = Arc::clone(room).acquire_owned();
        tokio::pin!(turn);
        loop {
            tokio::select! {
                // Neither semaphore is ever closed.
                permit = &mut turn => return permit.map_err(|_| self.why_lost()),
                () = tokio::time::sleep(LOOK) => self.routes.forget(LAST_ANSWER),
            }
        }
    }

    pub(super) async fn send(&self, number: u32, request: Request) -> Result<(), ClientError> {
        self.reserve().await?.send(number, request)
    }

    /// Waits for a place among what is to be written. May be dropped at any time.
    pub(super) async fn reserve(&self) -> Result<Slot<'_>, ClientError> {
        let permit = self.outgoing.reserve().await;
        let permit = permit.map_err(|_| self.why_lost())?;
        let session = self.session;
        Ok(Slot { permit, session })
    }

    /// Tells the agent that a request is no longer wanted. Never waits.
    pub(super) fn give_up(&self, number: u32) {
        self.routes.give_up(number);
        let sent = self.cancels.try_send(number);
        // It fails when the connection is over, and with it the request.
        tracing::trace!(number, sent = sent.is_ok(), "a request is given up");
    }

    /// Ends the connection, since the guest broke the protocol; gives the reason.
    pub(super) fn violated(&self, how: impl Into<String>) -> ClientError {
        self.routes.lose(ClientError::Violation(how.into()));
        self.task.abort();
        self.why_lost()
    }

    /// What an answer means that does not belong to the question: a refusal, or a breach of the protocol, which ends
    /// the connection.
    pub(super) fn unexpected(&self, reply: Reply) -> ClientError {
        match reply {
            Reply::Failed { code, message } => ClientError::Refused { code, message },
            other => {
                let kind = format!("{other:?}");
                let kind = kind.split(['(', ' ']).next().unwrap_or_default();
                self.violated(format!("it answered with an unasked {kind}"))
            }
        }
    }

    pub(super) fn why_lost(&self) -> ClientError {
        let closed = || ClientError::Lost("it, or the request, was closed".to_owned());
        self.routes.lost().unwrap_or_else(closed)
    }
}

/// A place among what is to be written.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    permit: mpsc::Permit<'a, Vec<u8>>,
    session: u64,
}

impl Slot<'_> {
    /// Takes the place, without waiting.
    pub(super) fn send(self, number: u32, request: Request) -> Result<(), ClientError> {
        let frame = request.into_frame(self.session, number)?;
        self.permit.send(frame.encode()?);
        Ok(())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads until the connection ends; gives the reason.
async fn read(mut reader: impl AsyncRead + Unpin, session: u64, routes: &Routes) -> ClientError {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; MAX_BODY];
    loop {
        let length = match reader.read(&mut buffer).await {
            Ok(0) => return ClientError::Lost("the other side closed it".to_owned()),
            Ok(length) => length,
            Err(error) => return ClientError::Lost(error.to_string()),
        };
        decoder.push(&buffer[..length]);
        while let Some(frame) = decoder.next_frame() {
            // Frames of other sessions were meant for a host before this one.
            if frame.session != session {
                continue;
            }
            if let Err(error) = routes.deliver(frame) {
                return error;
            }
            // A guest that always has something must not keep the others from running.
            tokio::task::coop::consume_budget().await;
        }
        if decoder.damaged() > MAX_DAMAGED {
            return ClientError::Violation("its frames are damaged".to_owned());
        }
        if decoder.skipped() > MAX_SKIPPED {
            return ClientError::Violation("it sends what is no frame".to_owned());
        }
    }
}

/// Writes until nobody sends any more.
async fn write(
    mut writer: impl AsyncWrite + Unpin,
    session: u64,
    waiting: &mut mpsc::Receiver<Vec<u8>>,
    cancelled: &mut mpsc::Receiver<u32>,
) -> std::io::Result<()> {
    loop {
        let bytes = tokio::select! {
            // What is queued goes first: a request never comes after its cancellation.
            biased;
            bytes = waiting.recv() => bytes,
            number = cancelled.recv() => number.and_then(|number| cancellation(session, number)),
        };
        let Some(bytes) = bytes else {
            return Ok(());
        };
        writer.write_all(&bytes).await?;
        writer.flush().await?;
    }
}

fn cancellation(session: u64, number: u32) -> Option<Vec<u8>> {
    let frame = Request::Cancel.into_frame(session, number).ok()?;
    Frame::encode(&frame).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_has_ended_as_soon_as_its_callers_are_told() {
        let (ours, _theirs) = tokio::io::duplex(64);
        let link = Link::open(ours).expect("random numbers");
        link.routes.lose(ClientError::Lost("gone".to_owned()));
        assert!(link.has_ended(), "its task did not run yet");
    }
}

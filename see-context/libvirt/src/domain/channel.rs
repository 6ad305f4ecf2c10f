//! The host's end of a guest's channel as a stream through libvirt: it works for a domain on
//! another host, where no socket of ours can be reached.
//!
//! libvirt tells of bytes from the guest on its event thread, where they are taken over at once:
//! what it keeps itself is not bounded. What the reader has not fetched is, at
//! [`CHANNEL_BACKLOG`] bytes; beyond it the stream ends with an error.

use std::fmt;
use std::io;
use std::os::raw::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::io::{
    AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf, ReadHalf, WriteHalf,
};
use tokio::sync::{mpsc, oneshot};
use virt_sys as sys;

use super::Domain;
use crate::ability::Ability;
use crate::call;
use crate::connection::{Session, wait_closed};
use crate::error::{Cause, Error};
use crate::handle::Handle;
use crate::text;

/// The most bytes from a guest that wait to be read.
pub const CHANNEL_BACKLOG: usize = 64 << 20;

/// The most that is sent or received at once; libvirt's messages hold 256 KiB.
const PIECE: usize = 64 << 10;
/// The longest wait for the hypervisor to take a piece.
const SEND_LIMIT: Duration = Duration::from_secs(30);
/// The wait after "not now", which libvirt's remote driver never says.
const AGAIN: Duration = Duration::from_millis(10);
/// What a stream that would have to wait answers.
const WOULD_BLOCK: c_int = -2;

/// An open channel to the guest: bytes both ways. Dropping it sends what was written, and closes
/// it.
pub struct ChannelStream {
    pipe: DuplexStream,
    end: Arc<End>,
    _alive: oneshot::Sender<()>,
}

/// Why the stream ended, where that was not the guest's doing.
type End = Mutex<Option<Error>>;

impl Domain {
    /// Opens the virtio channel of this target name, with `type='unix'` in the domain's XML. One
    /// connection at a time: a further one is refused.
    ///
    /// # Errors
    /// [`Error::is_invalid_state`] for a domain that does not run, [`Error::is_unsupported`],
    /// whatever else libvirt reports, or the time limit.
    pub async fn open_channel(&self, name: &str) -> Result<ChannelStream, Error> {
        let operation = "open a channel of";
        self.object.require(Ability::OpenChannel, operation)?;
        let name = name.to_owned();
        let (sender, received) = mpsc::unbounded_channel();
        let backlog = Arc::new(AtomicUsize::new(0));
        let incoming = Incoming {
            sender,
            backlog: Arc::clone(&backlog),
            ended: AtomicBool::new(false),
        };
        let native = self
            .object
            .call_with(operation, move |domain, session| {
                // Checked here because the `virt` crate panics on a NUL byte in it.
                text::c_string(&name)?;
                let flags = sys::VIR_STREAM_NONBLOCK;
                let stream = Handle::new(virt::stream::Stream::new(session.connect(), flags)?);
                domain.open_channel(Some(&name), &stream, 0)?;
                Native::listen(stream, session, incoming)
            })
            .await?;
        let (pipe, own) = tokio::io::duplex(PIECE);
        let (alive, dropped) = oneshot::channel();
        let end = Arc::new(End::default());
        let pump = Pump {
            native: Arc::new(native),
            domain: format!("domain {}", self.name()),
            backlog,
            end: Arc::clone(&end),
        };
        tokio::spawn(pump.run(own, received, dropped));
        Ok(ChannelStream {
            pipe,
            end,
            _alive: alive,
        })
    }
}

/// A stream with its callback; dropping it ends both.
struct Native {
    // Before the session, so that it is released first.
    stream: Handle<virt::stream::Stream>,
    session: Arc<Session>,
}

/// What the callback is given.
struct Incoming {
    sender: mpsc::UnboundedSender<Result<Vec<u8>, Cause>>,
    /// The bytes that are queued; the queue's bound.
    backlog: Arc<AtomicUsize>,
    ended: AtomicBool,
}

impl Native {
    fn listen(
        stream: Handle<virt::stream::Stream>,
        session: &Arc<Session>,
        incoming: Incoming,
    ) -> Result<Self, Cause> {
        let events = sys::VIR_STREAM_EVENT_READABLE
            | sys::VIR_STREAM_EVENT_ERROR
            | sys::VIR_STREAM_EVENT_HANGUP;
        let opaque = Box::into_raw(Box::new(incoming));
        // SAFETY: the stream is valid and non-blocking; `opaque` is what both callbacks expect, and
        // libvirt frees it with `free_incoming` exactly once after a successful registration.
        let result = unsafe {
            sys::virStreamEventAddCallback(
                stream.as_ptr(),
                events.cast_signed(),
                Some(on_event),
                opaque.cast(),
                Some(free_incoming),
            )
        };
        if result < 0 {
            let cause = Cause::last();
            // SAFETY: after a failed registration libvirt does not free the value, so it is ours.
            drop(unsafe { Box::from_raw(opaque) });
            // SAFETY: the stream is valid; this ends its transfer.
            unsafe { sys::virStreamAbort(stream.as_ptr()) };
            return Err(cause);
        }
        Ok(Self {
            stream,
            session: Arc::clone(session),
        })
    }

    /// Sends a first part of the bytes; 0 where none can be taken now.
    fn send(&self, bytes: &[u8]) -> Result<usize, Cause> {
        // SAFETY: the stream is valid, and the pointer and length are those of a live slice, which
        // libvirt only reads.
        let sent = unsafe {
            sys::virStreamSend(
                self.stream.as_ptr(),
                bytes.as_ptr().cast::<c_char>(),
                bytes.len(),
            )
        };
        match usize::try_from(sent) {
            Ok(sent) => Ok(sent),
            Err(_) if sent == WOULD_BLOCK => Ok(0),
            Err(_) => Err(Cause::last()),
        }
    }
}

impl Drop for Native {
    /// Blocks for an answer of the daemon: to be dropped where that is allowed.
    fn drop(&mut self) {
        // SAFETY: the stream is valid, and this is the end of its use; failures mean that it has
        // ended before.
        unsafe {
            sys::virStreamEventRemoveCallback(self.stream.as_ptr());
            sys::virStreamAbort(self.stream.as_ptr());
        }
    }
}

/// Carries bytes between libvirt's stream and the pipe.
struct Pump {
    native: Arc<Native>,
    domain: String,
    backlog: Arc<AtomicUsize>,
    end: Arc<End>,
}

type Received = mpsc::UnboundedReceiver<Result<Vec<u8>, Cause>>;

impl Pump {
    async fn run(self, pipe: DuplexStream, received: Received, dropped: oneshot::Receiver<()>) {
        let (reader, writer) = tokio::io::split(pipe);
        let outgoing = async {
            self.send(reader).await?;
            // Written to no more; it may still be read from, until it is dropped.
            let _ = dropped.await;
            Ok(())
        };
        let ended = tokio::select! {
            ended = outgoing => ended,
            ended = self.receive(received, writer) => ended,
            loss = wait_closed(self.native.session.watch_close()) => {
                Err(Cause::Aborted(format!("the connection was lost: {:?}", loss.reason)))
            }
        };
        if let Err(cause) = ended {
            *self.end.lock().unwrap_or_else(PoisonError::into_inner) =
                Some(Error::new("use a channel of", self.domain, cause));
        }
        call::release(move || drop(self.native));
    }

    async fn send(&self, mut from: ReadHalf<DuplexStream>) -> Result<(), Cause> {
        loop {
            let mut piece = vec![0; PIECE];
            // A pipe within the process only ends.
            let count = from.read(&mut piece).await.unwrap_or_default();
            if count == 0 {
                return Ok(());
            }
            piece.truncate(count);
            let started = Instant::now();
            match tokio::time::timeout(SEND_LIMIT, self.send_piece(piece)).await {
                Ok(sent) => sent?,
                Err(_) => {
                    return Err(Cause::TimedOut {
                        after: started.elapsed(),
                        waiting_for: "the hypervisor to take bytes for the guest",
                    });
                }
            }
        }
    }

    async fn send_piece(&self, mut piece: Vec<u8>) -> Result<(), Cause> {
        while !piece.is_empty() {
            let native = Arc::clone(&self.native);
            let sending = tokio::task::spawn_blocking(move || {
                let sent = native.send(&piece);
                (piece, sent)
            });
            let sent;
            (piece, sent) = sending
                .await
                .map_err(|error| Cause::Aborted(error.to_string()))?;
            match sent? {
                0 => tokio::time::sleep(AGAIN).await,
                sent => drop(piece.drain(..sent)),
            }
        }
        Ok(())
    }

    async fn receive(
        &self,
        mut received: Received,
        mut to: WriteHalf<DuplexStream>,
    ) -> Result<(), Cause> {
        while let Some(piece) = received.recv().await {
            let piece = piece?;
            if piece.is_empty() {
                break;
            }
            self.backlog.fetch_sub(piece.len(), Ordering::SeqCst);
            if to.write_all(&piece).await.is_err() {
                break;
            }
        }
        Ok(())
    }
}

unsafe extern "C" fn on_event(stream: sys::virStreamPtr, events: c_int, opaque: *mut c_void) {
    // SAFETY: `opaque` is the value given at registration, alive until `free_incoming`, and only
    // used by shared reference.
    let incoming = unsafe { &*opaque.cast::<Incoming>() };
    // A panic must not cross into C. It has been printed by the panic hook.
    let ended = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: libvirt passes the stream that the event is about, valid during the callback.
        unsafe { drain(stream, incoming) }
    }));
    let gone = sys::VIR_STREAM_EVENT_ERROR | sys::VIR_STREAM_EVENT_HANGUP;
    if ended.unwrap_or(true) || events & gone.cast_signed() != 0 {
        incoming.ended.store(true, Ordering::SeqCst);
        // The empty piece says that no other follows. Without a reader nobody has to know.
        let _ = incoming.sender.send(Ok(Vec::new()));
        // SAFETY: as above; without events the callback is not called any more.
        unsafe { sys::virStreamEventUpdateCallback(stream, 0) };
    }
}

/// Takes over what has arrived; true at the end.
///
/// # Safety
/// The stream must be valid and non-blocking.
unsafe fn drain(stream: sys::virStreamPtr, incoming: &Incoming) -> bool {
    if incoming.ended.load(Ordering::SeqCst) {
        return true;
    }
    let mut part = vec![0_u8; PIECE];
    loop {
        // SAFETY: the stream is valid by this function's contract, and libvirt writes at most the
        // given length into the buffer.
        let count =
            unsafe { sys::virStreamRecv(stream, part.as_mut_ptr().cast::<c_char>(), part.len()) };
        let piece = match usize::try_from(count) {
            Ok(0) => return true,
            Ok(count) => part.get(..count).unwrap_or_default().to_vec(),
            Err(_) if count == WOULD_BLOCK => return false,
            Err(_) => {
                let _ = incoming.sender.send(Err(Cause::last()));
                return true;
            }
        };
        let length = piece.len();
        if incoming.backlog.fetch_add(length, Ordering::SeqCst) + length > CHANNEL_BACKLOG {
            let limit = CHANNEL_BACKLOG;
            let _ = incoming.sender.send(Err(Cause::TooLarge { limit }));
            return true;
        }
        if incoming.sender.send(Ok(piece)).is_err() {
            return true;
        }
    }
}

unsafe extern "C" fn free_incoming(opaque: *mut c_void) {
    // SAFETY: libvirt calls this once, with the pointer made by `Box::into_raw` in `listen`.
    drop(unsafe { Box::from_raw(opaque.cast::<Incoming>()) });
}

impl AsyncRead for ChannelStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.pipe).poll_read(context, buffer);
        let at_end = matches!(polled, Poll::Ready(Ok(()))) && buffer.filled().len() == before;
        if at_end && buffer.remaining() > 0 {
            let end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(error) = &*end {
                return Poll::Ready(Err(io::Error::other(error.clone())));
            }
        }
        polled
    }
}

impl AsyncWrite for ChannelStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.pipe).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe).poll_shutdown(context)
    }
}

impl fmt::Debug for ChannelStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelStream").finish_non_exhaustive()
    }
}

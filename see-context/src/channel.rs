//! The host's end of the agent's virtio-serial port: a unix socket that QEMU listens on, or libvirt's stream.

mod stream;

use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use see_core::{ChannelStream, Error, ErrorKind, GuestChannel, Result};
use see_libvirt::xml::DomainXml;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub(crate) use self::stream::stream;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Gives the domain a virtio-serial port for the agent, with its socket in the run folder.
pub(crate) fn socket(domain: &mut DomainXml, run_folder: &Path) -> Arc<dyn GuestChannel> {
    let socket = run_folder.join("agent.sock");
    domain.set_agent_channel(Some(&socket));
    Arc::new(Channel::new(socket))
}

/// The agent's channel of one machine.
#[derive(Debug)]
struct Channel {
    socket: PathBuf,
    /// QEMU serves one connection and lets further ones hang, so there is one place.
    place: Arc<Semaphore>,
}

impl Channel {
    /// The channel behind this socket.
    fn new(socket: PathBuf) -> Self {
        Self {
            socket,
            place: Arc::new(Semaphore::new(1)),
        }
    }
}

/// The only place on a channel: of two connections each would get a part of the bytes.
///
/// # Errors
/// [`ErrorKind::Unavailable`] while another has it.
pub(crate) fn sole(place: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit> {
    Arc::clone(place).try_acquire_owned().map_err(|_| {
        Error::new(
            ErrorKind::Unavailable,
            "the guest's channel is in use by another connection",
        )
    })
}

#[async_trait]
impl GuestChannel for Channel {
    async fn open(&self) -> Result<Box<dyn ChannelStream>> {
        let place = sole(&self.place)?;
        let connect = UnixStream::connect(&self.socket);
        match tokio::time::timeout(CONNECT_LIMIT, connect).await {
            Ok(Ok(stream)) => Ok(Box::new(Connected::new(stream, place))),
            Ok(Err(error)) => {
                let denied = error.kind() == std::io::ErrorKind::PermissionDenied;
                let error = Error::io("the guest's channel cannot be reached", error)
                    .subject(self.socket.display());
                Err(if denied {
                    error.advice(
                        "the system daemon's sockets are for root: use `embedded`, or run as root",
                    )
                } else {
                    error.advice("the machine must be running")
                })
            }
            Err(_) => Err(Error::timeout(
                "the guest's channel to take a connection",
                CONNECT_LIMIT,
            )
            .subject(self.socket.display())),
        }
    }
}

/// A connection; its end makes place for the next.
#[derive(Debug)]
pub(crate) struct Connected<S> {
    stream: S,
    _place: OwnedSemaphorePermit,
}

impl<S> Connected<S> {
    /// A connection in this place.
    pub(crate) fn new(stream: S, place: OwnedSemaphorePermit) -> Self {
        Self {
            stream,
            _place: place,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connected<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connected<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

//! What the kernel says over netlink sockets: of devices and routes ([`route`]), and of nftables ([`tables`]).
//!
//! The packet crates make and read the messages; here is the exchange. Each request has a socket, a sequence number
//! and a time limit of its own, waits without blocking the thread, and takes answers from the kernel alone. A dump
//! that the kernel interrupted, because something changed under it, is asked for again.

pub(super) mod route;
pub(super) mod tables;

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable,
};
use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};

/// The longest wait for an answer of the kernel's, which takes milliseconds.
const LIMIT: Duration = Duration::from_secs(10);
/// How often an interrupted dump is asked for.
const TRIES: usize = 32;
/// The kernel sends at most half of this at once.
const BUFFER: usize = 64 << 10;
/// Sockets ask once, so any number tells answers from other messages.
const SEQUENCE: u32 = 1;
/// Messages are padded to a multiple of this, in bytes.
const ALIGNMENT: usize = 4;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    /// One thing, or a change.
    One,
    /// Everything of a kind.
    Dump,
}

/// Sends a request and gathers the messages of its answer.
///
/// # Errors
/// What the kernel refuses it with, [`io::ErrorKind::TimedOut`], or [`io::ErrorKind::Interrupted`] where a dump was
/// interrupted each time.
async fn ask<M>(protocol: isize, request: &M, question: Question) -> io::Result<Vec<M>>
where
    M: NetlinkSerializable + NetlinkDeserializable + Clone,
{
    let deadline = tokio::time::Instant::now() + LIMIT;
    for _ in 0..TRIES {
        let exchange = exchange(protocol, request, question);
        let answer = tokio::time::timeout_at(deadline, exchange).await;
        let late = || io::Error::new(io::ErrorKind::TimedOut, "the kernel does not answer");
        if let Some(messages) = answer.map_err(|_| late())?? {
            return Ok(messages);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::Interrupted,
        "what was asked for changes faster than it can be read",
    ))
}

/// One request and its answer; `None` where the kernel interrupted it.
async fn exchange<M>(protocol: isize, request: &M, question: Question) -> io::Result<Option<Vec<M>>>
where
    M: NetlinkSerializable + NetlinkDeserializable + Clone,
{
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST
        | match question {
            Question::One => NLM_F_ACK,
            Question::Dump => NLM_F_DUMP,
        };
    header.sequence_number = SEQUENCE;
    let payload = NetlinkPayload::InnerMessage(request.clone());
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);

    let socket = open(protocol)?;
    socket.send_to(&bytes, &SocketAddr::new(0, 0)).await?;
    let mut answer = Answer::default();
    let mut buffer = Vec::with_capacity(BUFFER);
    while !answer.is_whole {
        receive(&socket, &mut buffer).await?;
        answer.take(&buffer)?;
    }
    Ok((!answer.is_interrupted).then_some(answer.messages))
}

/// A socket that never blocks.
fn open(protocol: isize) -> io::Result<TokioSocket> {
    let mut socket = TokioSocket::new(protocol)?;
    socket.socket_mut().bind_auto()?;
    Ok(socket)
}

/// Waits for the kernel's next messages. May be dropped at any time: none is lost.
async fn receive(socket: &TokioSocket, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        buffer.clear();
        let sender = socket.recv_from(buffer).await?;
        // Any process may send to a netlink socket.
        if sender.port_number() == 0 {
            return Ok(());
        }
    }
}

/// The answer to a request, as far as it has come.
#[derive(Debug)]
struct Answer<M> {
    messages: Vec<M>,
    is_whole: bool,
    is_interrupted: bool,
}

impl<M> Default for Answer<M> {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            is_whole: false,
            is_interrupted: false,
        }
    }
}

impl<M: NetlinkDeserializable> Answer<M> {
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        for message in messages(bytes) {
            let message: NetlinkMessage<M> = message?;
            if message.header.sequence_number != SEQUENCE {
                continue;
            }
            self.is_interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(message) => self.messages.push(message),
                // No error is the answer to a request that is done.
                NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.to_io()),
                NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => self.is_whole = true,
                _ => {}
            }
        }
        Ok(())
    }
}

/// The messages that came at once.
fn messages<M: NetlinkDeserializable>(
    bytes: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkMessage<M>>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let message = NetlinkMessage::deserialize(rest).map_err(io::Error::other);
        let length = message.as_ref().map_or(rest.len(), |message| {
            (message.header.length as usize).next_multiple_of(ALIGNMENT)
        });
        rest = rest.get(length..).unwrap_or_default();
        Some(message)
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::RouteNetlinkMessage;
    use netlink_packet_route::link::LinkMessage;
    use netlink_sys::Socket;
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;

    /// A message of this sequence number and these flags.
    fn bytes(sequence: u32, flags: u16) -> Vec<u8> {
        let mut header = NetlinkHeader::default();
        (header.sequence_number, header.flags) = (sequence, flags);
        let link = RouteNetlinkMessage::NewLink(LinkMessage::default());
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(link));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    fn answer(bytes: &[u8]) -> io::Result<Answer<RouteNetlinkMessage>> {
        let mut answer = Answer::default();
        answer.take(bytes).map(|()| answer)
    }

    #[test]
    fn an_interrupted_dump_is_told_and_answers_to_others_are_passed_over() {
        let two = [bytes(SEQUENCE, 0), bytes(SEQUENCE + 1, NLM_F_DUMP_INTR)].concat();
        let read = answer(&two).unwrap();
        assert_eq!((read.messages.len(), read.is_interrupted), (1, false));
        let read = answer(&bytes(SEQUENCE, NLM_F_DUMP_INTR)).unwrap();
        assert!(read.is_interrupted && !read.is_whole);
    }

    #[test]
    fn what_is_cut_off_is_no_answer() {
        let whole = bytes(SEQUENCE, 0);
        for length in 1..whole.len() {
            assert!(answer(&whole[..length]).is_err(), "{length}");
        }
    }

    #[tokio::test]
    async fn messages_of_other_processes_are_no_answer() {
        let socket = open(NETLINK_ROUTE).unwrap();
        let mut own = SocketAddr::new(0, 0);
        socket.socket_ref().get_address(&mut own).unwrap();
        let mut stranger = Socket::new(NETLINK_ROUTE).unwrap();
        stranger.bind_auto().unwrap();
        let forged = bytes(SEQUENCE, 0);
        stranger.send_to(&forged, &own, 0).unwrap();
        let mut buffer = Vec::with_capacity(BUFFER);
        let waited = receive(&socket, &mut buffer);
        let waited = tokio::time::timeout(Duration::from_millis(50), waited).await;
        assert!(waited.is_err(), "{buffer:?}");
    }
}

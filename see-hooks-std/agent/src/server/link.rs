//! Transports: finding frames in what comes, and keeping the one session that each has.

use super::outbox::Outbox;
use super::session::Session;
use super::{Agent, Token, start_thread};
use crate::protocol::{Decoder, FailureCode, Frame, Reply, Request, VERSION};
use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How much is read at a time.
const CHUNK: usize = 64 * 1024;
/// How long a connection may take to say hello.
const HELLO: Duration = Duration::from_secs(10);
/// How long a connection may be silent.
const IDLE: Duration = Duration::from_secs(15 * 60);
/// How long the last answers of a connection may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long a port rests that no host is at.
const REST: Duration = Duration::from_millis(50);
/// How long a reply may wait for the transport.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whether whoever reaches a transport is the host for that alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Only the host can reach it, as a virtio-serial port. It may set the token for the others.
    Reached,
    /// The first frame has to carry the token.
    Token,
}

/// Serves one connection until it ends.
///
/// When `reader` gives up with [`ErrorKind::WouldBlock`] or [`ErrorKind::TimedOut`] from time to
/// time, a connection that says no hello or falls silent for long is ended.
///
/// # Errors
/// When reading fails, or no thread is to be had for writing.
pub fn serve_connection(
    agent: &Arc<Agent>,
    mut reader: impl Read,
    writer: impl Write + Send + 'static,
    trust: Trust,
) -> io::Result<()> {
    let mut link = Link::new(agent, trust);
    let outbox = Arc::clone(&link.outbox);
    start_thread("writer", move || write_connection(&outbox, writer))?;
    let mut buffer = vec![0; CHUNK];
    let result = loop {
        match reader.read(&mut buffer) {
            Ok(0) => break Ok(()),
            Ok(length) => {
                if !link.take(&buffer[..length]) {
                    break Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => break Err(error),
        }
        if link.is_overdue() {
            break Ok(());
        }
    };
    link.end_session();
    link.outbox.close();
    link.outbox.drain(Instant::now() + FAREWELL);
    link.outbox.abandon();
    result
}

/// Serves a port that outlives its users, such as a virtio-serial one, until `stop` is set.
///
/// `open` opens it for reading and writing. Reading nothing means that no host is there: its
/// session ends, and the port is read again after a rest. After an error it is opened anew.
///
/// # Errors
/// When no thread is to be had for writing.
pub fn serve_port<R: Read, W: Write + Send + 'static>(
    agent: &Arc<Agent>,
    mut open: impl FnMut() -> io::Result<(R, W)>,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut reader, writer)) = open() else {
            // The port may not exist yet, or another process holds it.
            thread::sleep(4 * REST);
            continue;
        };
        let mut link = Link::new(agent, Trust::Reached);
        let outbox = Arc::clone(&link.outbox);
        start_thread("writer", move || write_port(&outbox, writer))?;
        while !stop.load(Ordering::Relaxed) {
            match reader.read(&mut buffer) {
                Ok(0) => {
                    link.end_session();
                    thread::sleep(REST);
                }
                Ok(length) => {
                    // Nothing that a host sends makes a port unusable for the next one.
                    link.take(&buffer[..length]);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    thread::sleep(REST);
                }
                Err(_) => break,
            }
        }
        link.end_session();
        link.outbox.abandon();
        thread::sleep(REST);
    }
    Ok(())
}

/// Writes until the outbox is closed or the connection fails.
fn write_connection(outbox: &Outbox, mut writer: impl Write) {
    while let Some(bytes) = outbox.next() {
        if writer
            .write_all(&bytes)
            .and_then(|()| writer.flush())
            .is_err()
        {
            return outbox.abandon();
        }
    }
}

/// Writes until the outbox is closed. What cannot be written while no host is there is dropped:
/// the next host asks anew.
fn write_port(outbox: &Outbox, mut writer: impl Write) {
    while let Some(bytes) = outbox.next() {
        if writer
            .write_all(&bytes)
            .and_then(|()| writer.flush())
            .is_err()
        {
            thread::sleep(REST);
        }
    }
}

/// One transport's state.
#[derive(Debug)]
struct Link {
    agent: Arc<Agent>,
    outbox: Arc<Outbox>,
    decoder: Decoder,
    session: Option<Arc<Session>>,
    trust: Trust,
    since: Instant,
}

impl Link {
    fn new(agent: &Arc<Agent>, trust: Trust) -> Self {
        Self {
            agent: Arc::clone(agent),
            outbox: Arc::new(Outbox::default()),
            decoder: Decoder::default(),
            session: None,
            trust,
            since: Instant::now(),
        }
    }

    fn is_overdue(&self) -> bool {
        self.since.elapsed() > if self.session.is_some() { IDLE } else { HELLO }
    }

    fn end_session(&mut self) {
        if let Some(session) = self.session.take() {
            session.end();
        }
    }

    /// Takes the next bytes; false when the connection has to end.
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.decoder.push(bytes);
        while let Some(frame) = self.decoder.next_frame() {
            if !self.take_frame(frame) {
                return false;
            }
        }
        true
    }

    fn take_frame(&mut self, frame: Frame) -> bool {
        let (session, number) = (frame.session, frame.request);
        let request = match Request::from_frame(frame) {
            Ok(Request::Hello { version, token }) => {
                return self.hello(session, number, version, &token);
            }
            Ok(request) => request,
            Err(error) => {
                if self.current(session).is_some() {
                    let failure = Reply::failed(FailureCode::BadRequest, error.to_string());
                    self.reply(session, number, failure);
                }
                return true;
            }
        };
        let Some(current) = self.current(session) else {
            if self.trust == Trust::Token && self.session.is_none() {
                // Whoever speaks before the token was shown is told nothing.
                return false;
            }
            if request.is_answered() {
                let message = "this session is not open";
                self.reply(
                    session,
                    number,
                    Reply::failed(FailureCode::NoSession, message),
                );
            }
            return true;
        };
        self.since = Instant::now();
        match request {
            Request::Ping => current.reply(number, Reply::Pong(Box::new(self.agent.info()))),
            Request::Authorize { token } => {
                let reply = self.authorize(&token);
                current.reply(number, reply);
            }
            piece if !piece.is_answered() => current.feed(number, piece),
            request => current.begin(number, request),
        }
        true
    }

    fn current(&self, number: u64) -> Option<Arc<Session>> {
        let session = self.session.as_ref()?;
        (session.number == number).then(|| Arc::clone(session))
    }

    fn reply(&self, session: u64, request: u32, reply: Reply) {
        // A host that does not read misses its answer, and its own deadline tells it so.
        self.outbox
            .send(session, request, reply, Instant::now() + PATIENCE);
    }

    fn hello(&mut self, session: u64, request: u32, version: u16, token: &[u8]) -> bool {
        let refusal = match self.trust {
            Trust::Reached => None,
            Trust::Token => match self.agent.check_token(token) {
                Some(true) => None,
                Some(false) => Some((FailureCode::WrongToken, "the token is not the right one")),
                None => Some((
                    FailureCode::NoToken,
                    "the agent has no token to compare with",
                )),
            },
        };
        if let Some((code, message)) = refusal {
            self.reply(session, request, Reply::failed(code, message));
            return false;
        }
        if version < VERSION {
            let message = format!("the agent speaks protocol version {VERSION}");
            self.reply(
                session,
                request,
                Reply::failed(FailureCode::Version, message),
            );
            return true;
        }
        if self.current(session).is_none() {
            self.end_session();
            self.outbox.keep_only(session);
            if self.trust == Trust::Reached {
                // An agent before this one may have been killed in the middle of a frame.
                self.outbox.pad(session, Instant::now() + PATIENCE);
            }
            self.session = Some(Session::new(session, &self.agent, &self.outbox));
        }
        self.since = Instant::now();
        let mut info = self.agent.info();
        info.protocol = VERSION;
        self.reply(session, request, Reply::Welcome(Box::new(info)));
        true
    }

    fn authorize(&self, token: &[u8]) -> Reply {
        if self.trust != Trust::Reached {
            let message = "a token is only taken over a transport that needs none";
            return Reply::failed(FailureCode::Denied, message);
        }
        match Token::new(token) {
            Some(token) => {
                self.agent.authorize(token);
                Reply::Done
            }
            None => {
                let message = "a token has 16 to 256 bytes, without white space around it";
                Reply::failed(FailureCode::BadRequest, message)
            }
        }
    }
}

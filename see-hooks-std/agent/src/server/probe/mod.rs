//! Trying what is to be closed to the guest, from inside it.
//!
//! Whether a wall holds can only be seen by running against it, so each target gets real packets.
//! What nothing can be seen of stays out of reach: a service that takes a datagram and never answers
//! looks like a wall that swallows it.

mod ping;
mod question;
mod routes;

use super::STACK;
use super::answer::Answer;
use crate::protocol::{FailureCode, Finding, Probe, ProbeTarget, Reply};
use routes::DefaultRoute;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// How many targets are tried at once.
const AT_ONCE: usize = 64;
/// After this time without an answer a datagram is sent again.
const AGAIN: Duration = Duration::from_millis(500);

/// Tries every target; gives the last answer.
pub(super) fn probe(answer: &Answer, busy: &AtomicBool, probe: &Probe) -> Result<Reply, Reply> {
    let Some(_turn) = Turn::take(busy) else {
        let message = "another probe is under way";
        return Err(Reply::failed(FailureCode::Busy, message));
    };
    // A guest on a network without a gateway would send nothing to what lies beyond it, and prove
    // nothing: a sample can make itself a route, too.
    let _route = DefaultRoute::lend();
    let work = Work {
        probe,
        next: AtomicUsize::new(0),
        findings: Mutex::new(vec![None; probe.targets.len()]),
    };
    thread::scope(|scope| {
        for _ in 1..AT_ONCE.min(probe.targets.len()) {
            let worker = thread::Builder::new().stack_size(STACK);
            // With fewer threads it only takes longer: this one works, too.
            drop(worker.spawn_scoped(scope, || work.work(answer)));
        }
        work.work(answer);
    });
    if answer.is_cancelled() {
        let message = "the probe was cancelled";
        return Err(Reply::failed(FailureCode::Cancelled, message));
    }
    let findings = work.findings.into_inner();
    let findings = findings.unwrap_or_else(PoisonError::into_inner);
    let untried = || Finding::Untried("the agent gave up on it".to_owned());
    let findings = findings.into_iter();
    Ok(Reply::Probed(
        findings
            .map(|finding| finding.unwrap_or_else(untried))
            .collect(),
    ))
}

/// The right to probe: one has it at a time.
struct Turn<'a>(&'a AtomicBool);

impl<'a> Turn<'a> {
    fn take(busy: &'a AtomicBool) -> Option<Self> {
        (!busy.swap(true, Ordering::Relaxed)).then_some(Self(busy))
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// A probe, shared by the threads that work on it.
struct Work<'a> {
    probe: &'a Probe,
    next: AtomicUsize,
    findings: Mutex<Vec<Option<Finding>>>,
}

impl Work<'_> {
    /// Takes targets until none is left.
    fn work(&self, answer: &Answer) {
        while !answer.is_cancelled() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(target) = self.probe.targets.get(number) else {
                return;
            };
            let finding = try_target(target, self.probe.patience);
            super::lock(&self.findings)[number] = Some(finding);
        }
    }
}

fn try_target(target: &ProbeTarget, patience: Duration) -> Finding {
    match target {
        ProbeTarget::Tcp(address) => over_ways(*address, |way| tcp(way, patience)),
        ProbeTarget::Udp(address) => over_ways(*address, |way| {
            udp(way, &question::for_port(way.port()), patience)
        }),
        ProbeTarget::Dns(server, name) => match question::dns(name) {
            Some(question) => over_ways(*server, |way| dns(way, &question, patience)),
            None => Finding::Untried("the name is none that can be asked for".to_owned()),
        },
        ProbeTarget::Ping(address) => over_ways(SocketAddr::new(*address, 0), |way| {
            ping::ping(way, patience)
        }),
    }
}

/// Tries an address over every link where it does not say which one, until something answers.
fn over_ways(address: SocketAddr, try_one: impl Fn(SocketAddr) -> Finding) -> Finding {
    let awaited = routes::awaited(address);
    let mut last = Finding::Unreachable;
    for way in routes::ways(address) {
        if !has_way(way) {
            continue;
        }
        let found = try_one(way);
        match found {
            Finding::Answered(_) => return found,
            Finding::Unreachable => {}
            // Where one link could not be tried, the silence of another proves nothing.
            _ if matches!(last, Finding::Untried(_)) => {}
            _ => last = found,
        }
    }
    // What a link that is still being set up swallows would look like a wall.
    match awaited {
        Some(link) => Finding::Untried(format!("{link} has no address of IPv6 yet")),
        None => last,
    }
}

/// An unused socket for datagrams to that address.
fn socket_for(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    if address.is_ipv4() {
        socket.set_broadcast(true)?;
    }
    Ok(socket)
}

/// Whether the guest would send anything there: connecting a datagram socket only looks at routes.
fn has_way(address: SocketAddr) -> bool {
    let mut address = address;
    if address.port() == 0 {
        address.set_port(9);
    }
    socket_for(address).is_ok_and(|socket| socket.connect(address).is_ok())
}

fn answered(how: impl Into<String>) -> Finding {
    Finding::Answered(how.into())
}

/// What an error says of whatever is at the other end.
fn told_by(error: &io::Error) -> Finding {
    match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => answered("it is refused"),
        // The guest's own kernel says so, too, when nobody has that address on its link.
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => Finding::Silent,
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Finding::Silent,
        ErrorKind::AddrNotAvailable => Finding::Unreachable,
        _ => Finding::Untried(error.to_string()),
    }
}

fn tcp(address: SocketAddr, patience: Duration) -> Finding {
    match TcpStream::connect_timeout(&address, patience) {
        Ok(_) => answered("a connection is taken"),
        Err(error) => told_by(&error),
    }
}

fn udp(address: SocketAddr, question: &[u8], patience: Duration) -> Finding {
    match exchange(address, question, patience) {
        Ok(from) => answered(format!("a datagram comes back from {from}")),
        Err(error) => told_by(&error),
    }
}

/// Sends a datagram, again and again, until one comes back; gives who sent that.
fn exchange(address: SocketAddr, question: &[u8], patience: Duration) -> io::Result<SocketAddr> {
    let socket = socket_for(address)?;
    // Whoever hears what is sent to a group answers under an address of its own.
    let group = match address.ip() {
        IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_multicast(),
    };
    if !group {
        // Only a connected socket hears of refusals.
        socket.connect(address)?;
    }
    let until = Instant::now() + patience;
    let mut buffer = [0; 512];
    loop {
        match group {
            true => socket.send_to(question, address)?,
            false => socket.send(question)?,
        };
        let again = until.min(Instant::now() + AGAIN);
        loop {
            let left = again.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            match socket.recv_from(&mut buffer) {
                Ok((_, from)) => return Ok(from),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
        }
        if Instant::now() >= until {
            return Err(ErrorKind::TimedOut.into());
        }
    }
}

fn dns(server: SocketAddr, question: &[u8], patience: Duration) -> Finding {
    let by_udp = match exchange(server, question, patience) {
        Ok(_) => return answered("it answers questions for names by UDP"),
        Err(error) => no_names(&error),
    };
    let by_tcp = match ask_by_tcp(server, question, patience) {
        Ok(()) => return answered("it answers questions for names by TCP"),
        Err(error) => no_names(&error),
    };
    match by_udp {
        Finding::Untried(_) => by_udp,
        _ => by_tcp,
    }
}

/// What an error says of a server of names.
fn no_names(error: &io::Error) -> Finding {
    // It hung up.
    if matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe
    ) {
        return Finding::Silent;
    }
    match told_by(error) {
        // A refusal is no answer of a server: who wants to know of those tries the port.
        Finding::Answered(_) => Finding::Silent,
        found => found,
    }
}

fn ask_by_tcp(server: SocketAddr, question: &[u8], patience: Duration) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&server, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let length = u16::try_from(question.len()).map_err(|_| ErrorKind::InvalidInput)?;
    stream.write_all(&[&length.to_be_bytes()[..], question].concat())?;
    stream.read_exact(&mut [0; 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_for_a_name_that_could_not_be_sent_is_not_taken_for_unanswered() {
        let found = |kind: ErrorKind| no_names(&kind.into());
        assert!(matches!(
            found(ErrorKind::PermissionDenied),
            Finding::Untried(_)
        ));
        assert_eq!(found(ErrorKind::AddrNotAvailable), Finding::Unreachable);
        for kind in [
            ErrorKind::TimedOut,
            ErrorKind::ConnectionRefused,
            ErrorKind::ConnectionReset,
            ErrorKind::UnexpectedEof,
        ] {
            assert_eq!(found(kind), Finding::Silent, "{kind}");
        }
    }

    #[test]
    fn a_port_that_takes_questions_and_never_answers_is_silent() {
        let server = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let there = server.local_addr().expect("it is bound");
        let question = question::dns("see.invalid").expect("a name");
        let found = dns(there, &question, Duration::from_millis(50));
        assert_eq!(found, Finding::Silent);
    }
}

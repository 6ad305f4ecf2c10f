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
use crate::platform;
use crate::protocol::{FailureCode, Finding, Probe, ProbeTarget, Reply};
pub(super) use routes::DefaultRoute;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

/// After this time without an answer a datagram is sent again.
const AGAIN: Duration = Duration::from_millis(500);
/// How long a link may take to get an address of its own: an ordinary one takes up to two seconds.
const LINK: Duration = Duration::from_secs(4);
/// How often such a link is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Tries every target, all at once; gives the last answer.
pub(super) fn probe(answer: &Answer, route: &DefaultRoute, probe: &Probe) -> Result<Reply, Reply> {
    // A guest on a network without a gateway would send nothing to what lies beyond it, and prove
    // nothing: a sample can make itself a route, too.
    let _lent = route.lend();
    let findings = at_once(&probe.targets, |target| match answer.is_cancelled() {
        true => Finding::Untried("the probe was cancelled".to_owned()),
        false => try_target(target, probe.patience),
    });
    if answer.is_cancelled() {
        let message = "the probe was cancelled";
        return Err(Reply::failed(FailureCode::Cancelled, message));
    }
    Ok(Reply::Probed(findings))
}

/// What comes of each of these, all tried at once, so that together they take about the time of one.
fn at_once<T: Sync>(items: &[T], try_one: impl Fn(&T) -> Finding + Sync) -> Vec<Finding> {
    let Some((first, rest)) = items.split_first() else {
        return Vec::new();
    };
    let try_one = &try_one;
    thread::scope(|scope| {
        let start = |item| {
            let thread = thread::Builder::new().stack_size(STACK);
            (item, thread.spawn_scoped(scope, move || try_one(item)))
        };
        let started: Vec<_> = rest.iter().map(start).collect();
        let mut findings = vec![try_one(first)];
        findings.extend(started.into_iter().map(|(item, thread)| {
            match thread {
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|_| Finding::Untried("the agent gave up on it".to_owned())),
                // A guest that is out of threads tries one after the other, which only takes longer.
                Err(_) => try_one(item),
            }
        }));
        findings
    })
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

/// Tries an address, over every link where it does not say which one.
fn over_ways(address: SocketAddr, try_one: impl Fn(SocketAddr) -> Finding + Sync) -> Finding {
    let awaited = awaited_link(address);
    let ways = match routes::ways(address) {
        Ok(ways) => ways,
        Err(error) => {
            return Finding::Untried(format!("the guest's links cannot be read: {error}"));
        }
    };
    let found = at_once(&ways, |way| match has_way(*way) {
        Ok(true) => try_one(*way),
        Ok(false) => Finding::Unreachable,
        Err(error) => Finding::Untried(format!("the guest is out of memory or files: {error}")),
    });
    let found = all_of(found);
    match awaited {
        // What a link that is still being set up swallows would look like a wall.
        Some(link) if !matches!(found, Finding::Answered(_)) => {
            Finding::Untried(format!("{link} has no address of IPv6 yet"))
        }
        _ => found,
    }
}

/// What several tries of one target say together: an answer is one whoever gave it, and where one could not be
/// tried, the silence of another proves nothing.
fn all_of(findings: Vec<Finding>) -> Finding {
    let weight = |finding: &Finding| match finding {
        Finding::Answered(_) => 3,
        Finding::Untried(_) => 2,
        Finding::Silent => 1,
        Finding::Unreachable => 0,
    };
    let heaviest = findings.into_iter().max_by_key(weight);
    heaviest.unwrap_or(Finding::Unreachable)
}

/// Waits a while for the links on which the address means somebody; one that is still not set up.
fn awaited_link(address: SocketAddr) -> Option<String> {
    let until = Instant::now() + LINK;
    loop {
        let awaited = routes::awaited(address);
        if awaited.is_none() || Instant::now() >= until {
            return awaited;
        }
        thread::sleep(LOOK);
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

/// Whether the guest would send anything there: connecting a datagram socket only looks at routes. A guest that is out
/// of memory or descriptors cannot tell.
fn has_way(address: SocketAddr) -> io::Result<bool> {
    let mut address = address;
    if address.port() == 0 {
        address.set_port(9);
    }
    told_way(socket_for(address).and_then(|socket| socket.connect(address)))
}

fn told_way(connected: io::Result<()>) -> io::Result<bool> {
    match connected {
        Ok(()) => Ok(true),
        Err(error) if platform::is_exhausted(&error) => Err(error),
        Err(_) => Ok(false),
    }
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

/// Asks by UDP and by TCP at once.
fn dns(server: SocketAddr, question: &[u8], patience: Duration) -> Finding {
    const BY_TCP: [bool; 2] = [false, true];
    all_of(at_once(&BY_TCP, |by_tcp| {
        let asked = match by_tcp {
            true => ask_by_tcp(server, question, patience),
            false => exchange(server, question, patience).map(drop),
        };
        match (asked, by_tcp) {
            (Ok(()), true) => answered("it answers questions for names by TCP"),
            (Ok(()), false) => answered("it answers questions for names by UDP"),
            (Err(error), _) => no_names(&error),
        }
    }))
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
    use crate::protocol::MAX_TARGETS;
    use std::net::TcpListener;
    use std::sync::{Condvar, Mutex};

    /// The longest that a test waits.
    const DEADLINE: Duration = Duration::from_secs(30);

    #[test]
    fn a_guest_without_means_to_try_has_not_shown_that_there_is_no_way() {
        assert!(matches!(told_way(Ok(())), Ok(true)));
        let no_route = io::Error::from(ErrorKind::NetworkUnreachable);
        assert!(matches!(told_way(Err(no_route)), Ok(false)));
        #[cfg(unix)]
        // No memory, no descriptors of the host's or of the process's, no buffers.
        for code in [12, 23, 24, 105] {
            assert!(told_way(Err(io::Error::from_raw_os_error(code))).is_err());
        }
    }

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
    fn as_many_targets_as_a_probe_may_have_are_all_under_way_at_once() {
        let targets = [(); MAX_TARGETS];
        let under_way = (Mutex::new(0), Condvar::new());
        let findings = at_once(&targets, |()| {
            let (count, changed) = &under_way;
            let mut count = count.lock().expect("no thread panics");
            *count += 1;
            changed.notify_all();
            // Nobody is done before all have begun.
            let some_wait = |count: &mut usize| *count < MAX_TARGETS;
            let waited = changed.wait_timeout_while(count, DEADLINE, some_wait);
            match waited.expect("no thread panics").1.timed_out() {
                true => Finding::Untried("the others have not begun".to_owned()),
                false => Finding::Silent,
            }
        });
        assert_eq!(findings, vec![Finding::Silent; MAX_TARGETS]);
    }

    #[test]
    fn a_server_of_names_is_asked_by_udp_and_by_tcp_at_once() {
        let by_tcp = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let there = by_tcp.local_addr().expect("it is bound");
        let by_udp = UdpSocket::bind(there).expect("the same port is free");
        // It answers by UDP only after it was asked by TCP, where it hangs up.
        let server = thread::spawn(move || {
            let mut buffer = [0; 512];
            drop(by_tcp.accept().expect("it is asked by TCP"));
            let (length, from) = by_udp.recv_from(&mut buffer).expect("it is asked by UDP");
            by_udp.send_to(&buffer[..length], from).expect("it answers");
        });
        let question = question::dns("see.invalid").expect("a name");
        let found = dns(there, &question, DEADLINE);
        assert_eq!(found, answered("it answers questions for names by UDP"));
        server.join().expect("it was asked both ways");
    }

    #[test]
    fn of_several_tries_an_answer_counts_first_and_then_what_could_not_be_tried() {
        let untried = Finding::Untried("no `ping`".to_owned());
        let all = [
            Finding::Unreachable,
            Finding::Silent,
            untried,
            answered("it is refused"),
        ];
        for heaviest in 0..all.len() {
            let mut several = all[..=heaviest].to_vec();
            assert_eq!(all_of(several.clone()), all[heaviest]);
            several.reverse();
            assert_eq!(all_of(several), all[heaviest]);
        }
        assert_eq!(all_of(Vec::new()), Finding::Unreachable);
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

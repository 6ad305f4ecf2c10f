//! Hosts that come, die and come back at a port that outlives them.

#![cfg(unix)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use see_agent::protocol::{FailureCode, PADDING, Reply, Request, Upload, VERSION};
use see_agent::server::{Agent, Settings, serve_port};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use support::{Host, PATIENCE, failure, shell};

/// A port as the virtio console driver gives one: reading gives nothing while no host is there,
/// writing waits for one.
#[derive(Clone, Default)]
struct Port {
    host: Arc<(Mutex<Option<UnixStream>>, Condvar)>,
}

impl Port {
    /// A host connects.
    fn connect(&self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        theirs
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a timeout");
        *self.host.0.lock().expect("unpoisoned") = Some(theirs);
        self.host.1.notify_all();
        ours
    }

    fn current(&self) -> Option<UnixStream> {
        let host = self.host.0.lock().expect("unpoisoned");
        host.as_ref().map(|host| host.try_clone().expect("a clone"))
    }
}

impl Read for Port {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.current() {
            Some(mut host) => host.read(buffer),
            None => Ok(0),
        }
    }
}

impl Write for Port {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (host, changed) = &*self.host;
        let mut host = host.lock().expect("unpoisoned");
        loop {
            if let Some(host) = host.as_ref() {
                return host.try_clone().expect("a clone").write(bytes);
            }
            host = changed.wait(host).expect("unpoisoned");
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An agent at a port; it ends with the test.
struct Served {
    port: Port,
    folder: PathBuf,
    stop: Arc<AtomicBool>,
    opened: Arc<AtomicUsize>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Served {
    fn start(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("see-agent-{test}-{}", std::process::id()));
        let agent = Agent::new(Settings::new(&folder)).expect("an agent");
        let (port, stop) = (Port::default(), Arc::new(AtomicBool::new(false)));
        let opened = Arc::new(AtomicUsize::new(0));
        let (theirs, seen, counted) = (port.clone(), Arc::clone(&stop), Arc::clone(&opened));
        let thread = thread::spawn(move || {
            let open = || {
                // The first attempts fail, as while the guest still boots.
                if counted.fetch_add(1, Ordering::Relaxed) < 2 {
                    return Err(io::ErrorKind::NotFound.into());
                }
                Ok((theirs.clone(), theirs.clone()))
            };
            serve_port(&agent, open, &seen)
        });
        Self {
            port,
            folder,
            stop,
            opened,
            thread: Some(thread),
        }
    }

    fn host(&self, session: u64) -> Host<UnixStream> {
        let mut host = Host::silent(self.port.connect(), session);
        host.hello(b"").expect("a welcome");
        host
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("joined once");
        thread.join().expect("no panic").expect("served");
        std::fs::remove_dir_all(&self.folder).expect("removing the test's folder");
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_port_may_come_later_than_the_agent() {
    let served = Served::start("later");
    let mut host = served.host(1);
    assert!(matches!(host.call(Request::Ping), Reply::Pong(_)));
    assert!(served.opened.load(Ordering::Relaxed) > 2);
}

#[test]
fn garbage_between_requests_is_stepped_over() {
    let served = Served::start("garbage");
    let mut host = served.host(1);
    let mut noise = 0x5EE5_u64;
    for _ in 0..50 {
        let garbage: Vec<u8> = (0..997)
            .map(|_| {
                noise = noise
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (noise >> 33) as u8
            })
            .collect();
        host.stream.write_all(&garbage).expect("writing");
        host.stream.write_all(b"\xA5SEE").expect("writing");
        assert!(matches!(host.call(Request::Ping), Reply::Pong(_)));
    }
}

#[test]
fn a_host_that_died_within_a_frame_is_followed_by_another() {
    let served = Served::start("died");
    let upload = Upload {
        name: b"x".to_vec(),
        mode: 0o600,
        size: 1 << 30,
    };
    let mut first = served.host(1);
    let number = first.send(Request::Upload(upload));
    let data = Request::Data(vec![9; 60_000])
        .into_frame(1, number)
        .expect("fits");
    let bytes = data.encode().expect("fits");
    first.stream.write_all(&bytes).expect("writing");
    first.stream.write_all(&bytes[..30_000]).expect("writing");
    // The same line goes on: QEMU's port does not tell the guest of a quick change of hosts.
    let mut second = Host::silent(first.stream, 2);
    second.hello(b"").expect("a welcome");
    assert!(matches!(second.call(Request::Ping), Reply::Pong(_)));
    eventually("the upload's end", || {
        std::fs::read_dir(&served.folder)
            .expect("the folder")
            .count()
            == 0
    });
}

#[test]
fn a_new_session_ends_the_programs_of_the_old_one() {
    let served = Served::start("session");
    let mut first = served.host(1);
    let number = first.send(Request::Run(shell("exec sleep 600")));
    let Reply::Started { pid, .. } = first.answer(number) else {
        panic!("not started");
    };
    let mut second = Host::silent(first.stream.try_clone().expect("a clone"), 2);
    second.hello(b"").expect("a welcome");
    let stat = format!("/proc/{pid}/stat");
    eventually("the program's end", || std::fs::metadata(&stat).is_err());
    // The old session learns that it is over when it asks for something.
    let frame = Request::Ping
        .into_frame(1, 77)
        .expect("fits")
        .encode()
        .expect("fits");
    second.stream.write_all(&frame).expect("writing");
    let mut first = Host::silent(second.stream, 1);
    assert_eq!(failure(&first.answer(77)), Some(FailureCode::NoSession));
}

#[test]
fn a_host_that_goes_away_takes_its_programs_with_it() {
    let served = Served::start("gone");
    let mut first = served.host(1);
    let number = first.send(Request::Run(shell("exec sleep 600")));
    let Reply::Started { pid, .. } = first.answer(number) else {
        panic!("not started");
    };
    drop(first);
    let stat = format!("/proc/{pid}/stat");
    eventually("the program's end", || std::fs::metadata(&stat).is_err());
    let mut second = served.host(2);
    assert!(matches!(second.call(Request::Ping), Reply::Pong(_)));
}

#[test]
fn a_host_that_comes_back_to_a_stuck_flood_is_served() {
    let served = Served::start("flood");
    let mut first = served.host(1);
    for _ in 0..4 {
        let mut run = shell("exec yes");
        run.stdout_limit = u64::MAX;
        first.send(Request::Run(run));
    }
    // It reads nothing, and is replaced.
    let mut second = served.host(2);
    assert!(matches!(second.call(Request::Ping), Reply::Pong(_)));
    assert_eq!(second.run(shell("echo fine")).stdout, b"fine\n");
}

#[test]
fn saying_hello_twice_changes_nothing() {
    let served = Served::start("twice");
    let mut host = served.host(1);
    let number = host.send(Request::Run(shell("read x; echo got $x")));
    assert!(matches!(host.answer(number), Reply::Started { .. }));
    let again = host.send(Request::Hello {
        version: VERSION,
        token: Vec::new(),
    });
    assert!(matches!(host.answer(again), Reply::Welcome(_)));
    assert_eq!(host.collect(number).stdout, b"got\n");
}

#[test]
fn a_newer_host_is_answered_in_the_version_that_the_agent_speaks() {
    let served = Served::start("version");
    let mut host = Host::silent(served.port.connect(), 1);
    host.stream.write_all(&[0; PADDING]).expect("writing");
    let reply = host.call(Request::Hello {
        version: 900,
        token: Vec::new(),
    });
    assert!(
        matches!(&reply, Reply::Welcome(info) if info.protocol == VERSION),
        "{reply:?}"
    );
}

#[test]
fn requests_that_make_no_sense_are_told_so_and_do_no_harm() {
    let served = Served::start("sense");
    let mut host = served.host(1);
    let mut frame = Request::Ping.into_frame(1, 5).expect("fits");
    for (kind, body) in [
        (0x7F, vec![]),
        (0, vec![1, 2, 3]),
        (0, b"\x65dance".to_vec()),
    ] {
        (frame.kind, frame.body) = (kind, body);
        host.stream
            .write_all(&frame.encode().expect("fits"))
            .expect("writing");
        assert_eq!(failure(&host.answer(5)), Some(FailureCode::BadRequest));
    }
    // Pieces of requests that nobody opened.
    for piece in [
        Request::Data(vec![1]),
        Request::End,
        Request::Credit(9),
        Request::Cancel,
    ] {
        host.send(piece);
    }
    assert!(matches!(host.call(Request::Ping), Reply::Pong(_)));
}

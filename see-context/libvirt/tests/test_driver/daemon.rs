//! The test driver behind a real daemon: what the network between brings with it.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use see_libvirt::{Connection, DomainEvent, DomainState, StopCause};
use uuid::Uuid;

use crate::support::{LIMIT, collect_until, started, tiny_domain};

/// A session daemon of our own, on a socket of our own; ended and removed when dropped.
struct Daemon {
    child: Child,
    socket: PathBuf,
    place: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let place = tempfile::tempdir_in("/tmp").unwrap();
        let daemon = Self {
            child: Self::spawn(place.path()),
            socket: place.path().join("libvirt/libvirt-sock"),
            place,
        };
        daemon.wait_for_socket();
        daemon
    }

    fn spawn(place: &Path) -> Child {
        let mut command = Command::new("libvirtd");
        // The account of nobody: as root the daemon would take over the whole system.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(place, Some(65_534), Some(65_534)).unwrap();
            command.uid(65_534).gid(65_534);
        }
        command
            .current_dir(place)
            .env("HOME", place)
            .env("XDG_RUNTIME_DIR", place)
            .env("XDG_CONFIG_HOME", place.join("config"))
            .env("XDG_CACHE_HOME", place.join("cache"))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("libvirtd is installed")
    }

    /// Starts it again on the same socket, after [`Self::kill`].
    fn restart(&mut self) {
        self.child = Self::spawn(self.place.path());
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn wait_for_socket(&self) {
        let deadline = Instant::now() + LIMIT;
        while std::os::unix::net::UnixStream::connect(&self.socket).is_err() {
            assert!(Instant::now() < deadline, "no answer on {:?}", self.socket);
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    async fn connect(&self) -> Connection {
        let socket: &Path = &self.socket;
        let uri = format!("test+unix:///default?socket={}", socket.display());
        Connection::open(&uri, LIMIT).await.unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Either may have ended before; there is nothing to tell then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_connection_whose_daemon_died_tells_so_everywhere_and_drops_quietly() {
    let mut daemon = Daemon::start();
    let connection = daemon.connect().await.within(Duration::from_secs(1));
    let uuid = Uuid::new_v4();
    let mut events = connection.domain_events(uuid).await.unwrap();
    let xml = tiny_domain("test", uuid, "");
    let domain = started(&connection, &xml).await;
    let pool = connection.storage_pool("default-pool").await.unwrap();
    let networks = connection.networks().await.unwrap();
    collect_until(&mut events, &DomainEvent::Started).await;

    daemon.kill();
    let begin = Instant::now();
    let error = domain.status().await.unwrap_err();
    assert!(error.is_connection_lost(), "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(5), "{error}");
    let text = error.to_string();
    assert!(text.contains("the connection was lost"), "{text}");
    assert!(text.contains("Failed to connect socket"), "{text}");
    drop((events, domain, pool, networks));
    drop(connection);
}

#[tokio::test]
async fn a_connection_whose_daemon_comes_back_is_made_anew_with_its_objects_and_watches() {
    let mut daemon = Daemon::start();
    let connection = daemon.connect().await;
    let builtin = connection.domain_by_name("test").await.unwrap();
    let network = connection.network("default").await.unwrap();
    let own = Uuid::new_v4();
    let mut of_builtin = connection.domain_events(builtin.uuid()).await.unwrap();
    let mut of_own = connection.domain_events(own).await.unwrap();

    daemon.kill();
    daemon.restart();
    // Calls and watches meet the loss together, and wait for the daemon.
    let (status, active, first, second) = tokio::join!(
        builtin.status(),
        network.is_active(),
        of_builtin.next(),
        of_own.next()
    );
    assert_eq!(status.unwrap().state, DomainState::Running);
    assert!(active.unwrap());
    assert_eq!(first, Some(DomainEvent::Reconnected));
    assert_eq!(second, Some(DomainEvent::Reconnected));

    // Events flow again, and each once.
    builtin.destroy().await.unwrap();
    let domain = started(&connection, &tiny_domain("test", own, "")).await;
    domain.destroy().await.unwrap();
    let stopped = DomainEvent::Stopped(StopCause::Destroyed);
    let seen = collect_until(&mut of_builtin, &stopped).await;
    assert_eq!(seen, std::slice::from_ref(&stopped));
    let seen = collect_until(&mut of_own, &stopped).await;
    assert_eq!(seen, [DomainEvent::Defined, DomainEvent::Started, stopped]);
}

#[tokio::test]
async fn a_daemon_that_hangs_holds_nobody_longer_than_the_deadline_and_is_named() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    let domain = connection.domain_by_name("test").await.unwrap();
    daemon.signal(Signal::STOP);
    let begin = Instant::now();
    let short = Duration::from_millis(300);
    let patient = domain.within(short);
    let hanging = connection.within(short);
    let (status, destroyed, listed, opened) = tokio::join!(
        patient.status(),
        patient.destroy(),
        hanging.domains(),
        Connection::open(connection.uri(), short),
    );
    let errors = [
        ("cannot read the state of domain test", status.unwrap_err()),
        ("cannot destroy domain test", destroyed.unwrap_err()),
        ("cannot list the domains of test+unix", listed.unwrap_err()),
        ("cannot open test+unix", opened.unwrap_err()),
    ];
    assert!(begin.elapsed() < Duration::from_secs(3));
    for (tried, error) in errors {
        assert!(error.is_timed_out(), "{error}");
        let text = error.to_string();
        assert!(text.starts_with(tried), "{text}");
        assert!(text.contains("waiting for libvirt's answer"), "{text}");
    }
    daemon.signal(Signal::CONT);
    // It answers again, and what it was asked to do meanwhile it did.
    let status = domain.status().await.unwrap();
    assert_eq!(status.state, DomainState::Shutoff);
}

#[tokio::test]
async fn events_and_pictures_come_through_the_daemon() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    let uuid = Uuid::new_v4();
    let mut events = connection.domain_events(uuid).await.unwrap();
    let domain = started(&connection, &tiny_domain("test", uuid, "")).await;
    let picture = domain.screenshot(0, 16 << 20).await.unwrap();
    assert!(picture.bytes.starts_with(b"\x89PNG"));
    let error = domain.screenshot(0, 1).await.unwrap_err();
    assert!(!error.is_connection_lost(), "{error}");
    domain.destroy().await.unwrap();
    let last = DomainEvent::Stopped(StopCause::Destroyed);
    let seen = collect_until(&mut events, &last).await;
    assert_eq!(seen, [DomainEvent::Defined, DomainEvent::Started, last]);
    connection.domains().await.unwrap();
}

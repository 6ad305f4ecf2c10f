//! The test driver behind a real daemon: what the network between brings with it.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use see_libvirt::{Connection, DomainEvent, StartOptions, StopCause};
use uuid::Uuid;

use crate::support::{LIMIT, collect_until, tiny_domain};

/// A session daemon of our own, on a socket of our own; ended and removed when dropped.
struct Daemon {
    child: Child,
    socket: PathBuf,
    _place: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let place = tempfile::tempdir_in("/tmp").unwrap();
        let mut command = Command::new("libvirtd");
        // The account of nobody: as root the daemon would take over the whole system.
        if std::fs::metadata(place.path()).unwrap().uid() == 0 {
            std::os::unix::fs::chown(place.path(), Some(65_534), Some(65_534)).unwrap();
            command.uid(65_534).gid(65_534);
        }
        let child = command
            .current_dir(place.path())
            .env("HOME", place.path())
            .env("XDG_RUNTIME_DIR", place.path())
            .env("XDG_CONFIG_HOME", place.path().join("config"))
            .env("XDG_CACHE_HOME", place.path().join("cache"))
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("libvirtd is installed");
        let daemon = Self {
            child,
            socket: place.path().join("libvirt/libvirt-sock"),
            _place: place,
        };
        daemon.wait_for_socket();
        daemon
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
    let connection = daemon.connect().await;
    let uuid = Uuid::new_v4();
    let mut events = connection.domain_events(uuid).await.unwrap();
    let xml = tiny_domain("test", uuid, "");
    let domain = connection
        .create_domain(&xml, StartOptions::default())
        .await
        .unwrap();
    let pools = connection.storage_pools().await.unwrap();
    let networks = connection.networks().await.unwrap();
    assert_eq!(events.next().await, Some(DomainEvent::Started));
    assert_eq!(connection.close_reason(), None);

    daemon.kill();
    let reason = tokio::time::timeout(LIMIT, connection.closed())
        .await
        .unwrap();
    assert_eq!(connection.close_reason(), Some(reason));
    assert_eq!(
        tokio::time::timeout(LIMIT, events.next()).await.unwrap(),
        None
    );
    let error = domain.status().await.unwrap_err();
    assert!(error.is_connection_lost(), "{error:?}");
    assert!(!connection.is_alive().await.unwrap());
    drop((events, domain, pools, networks));
    drop(connection);
}

#[tokio::test]
async fn events_and_pictures_come_through_the_daemon() {
    let daemon = Daemon::start();
    let connection = daemon.connect().await;
    let uuid = Uuid::new_v4();
    let mut events = connection.domain_events(uuid).await.unwrap();
    let domain = connection
        .create_domain(&tiny_domain("test", uuid, ""), StartOptions::default())
        .await
        .unwrap();
    let picture = domain.screenshot(0, 16 << 20).await.unwrap();
    assert!(picture.bytes.starts_with(b"\x89PNG"));
    let error = domain.screenshot(0, 1).await.unwrap_err();
    assert!(!error.is_connection_lost(), "{error}");
    domain.destroy().await.unwrap();
    let last = DomainEvent::Stopped(StopCause::Destroyed);
    let seen = collect_until(&mut events, &last).await;
    assert_eq!(seen, [DomainEvent::Started, last]);
    assert!(connection.is_alive().await.unwrap());
}

//! Bytes between the host's loopback and that of a private daemon's network.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use rustix::thread::LinkNameSpaceType;

/// Listens on the host's loopback, and joins each connection with one in the daemon's network.
#[derive(Debug)]
pub(super) struct Relay {
    /// The first process of the daemon's namespaces.
    first: u32,
    /// Where the daemon listens in its network.
    inner: u16,
    /// Where this listens; the same after it was closed and opened.
    address: SocketAddr,
    accepting: Option<(JoinHandle<()>, Arc<AtomicBool>)>,
    /// The bytes that went to the daemon.
    passed: Arc<AtomicU64>,
}

impl Relay {
    pub(super) fn start(first: u32, inner: u16) -> Self {
        let mut relay = Self {
            first,
            inner,
            address: (Ipv4Addr::LOCALHOST, 0).into(),
            accepting: None,
            passed: Arc::default(),
        };
        relay.open();
        relay
    }

    /// How many bytes went to the daemon so far.
    pub(super) fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Listens, unless it does.
    pub(super) fn open(&mut self) {
        if self.accepting.is_some() {
            return;
        }
        let listener = TcpListener::bind(self.address).expect("the port is free");
        self.address = listener.local_addr().expect("it is bound");
        let closed = Arc::new(AtomicBool::new(false));
        let (seen, first, inner) = (Arc::clone(&closed), self.first, self.inner);
        let passed = Arc::clone(&self.passed);
        let thread = std::thread::spawn(move || {
            for outer in listener.incoming().flatten() {
                if seen.load(Ordering::SeqCst) {
                    break;
                }
                let passed = Arc::clone(&passed);
                std::thread::spawn(move || join(outer, first, inner, &passed));
            }
        });
        self.accepting = Some((thread, closed));
    }

    /// Listens no more: connections are refused. Those that stand go on until one of their ends does.
    pub(super) fn close(&mut self) {
        let Some((thread, closed)) = self.accepting.take() else {
            return;
        };
        closed.store(true, Ordering::SeqCst);
        // Wakes the wait for a connection.
        drop(TcpStream::connect(self.address));
        thread.join().expect("it does not panic");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.close();
    }
}

/// Runs on a thread of its own, which enters the daemon's network for good.
fn join(outer: TcpStream, first: u32, port: u16, passed: &AtomicU64) {
    let Ok(network) = File::open(format!("/proc/{first}/ns/net")) else {
        return;
    };
    let entered = rustix::thread::move_into_link_name_space(
        network.as_fd(),
        Some(LinkNameSpaceType::Network),
    );
    // A daemon that is gone closes the connection: the other end sees that.
    let Ok(inner) = entered
        .map_err(std::io::Error::from)
        .and_then(|()| TcpStream::connect((Ipv4Addr::LOCALHOST, port)))
    else {
        return;
    };
    let (Ok(outer_again), Ok(inner_again)) = (outer.try_clone(), inner.try_clone()) else {
        return;
    };
    let back = std::thread::spawn(move || pass(inner_again, outer_again, &AtomicU64::new(0)));
    pass(outer, inner, passed);
    // It ends with its connection, and passes no panic on.
    let _ = back.join();
}

/// Passes bytes until either end closes, then closes the other.
fn pass(mut from: TcpStream, mut to: TcpStream, passed: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
        passed.fetch_add(count as u64, Ordering::SeqCst);
    }
    // Either may be closed already.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}

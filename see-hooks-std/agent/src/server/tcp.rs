//! TCP connections, each with a session of its own.

use super::link::{Trust, serve_connection};
use super::{Agent, start_thread};
use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How often a silent connection is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long a write may be stuck.
const STUCK: Duration = Duration::from_secs(60);
/// How long to rest when no connection can be accepted.
const REST: Duration = Duration::from_millis(200);

/// Accepts connections until `stop` is set, which is seen with the next connection.
///
/// The token of the agent's settings, or the one handed over another transport, is needed on each;
/// more than [`Limits::connections`](super::Limits::connections) are closed at once.
pub fn serve_tcp(agent: &Arc<Agent>, listener: &TcpListener, stop: &AtomicBool) {
    let open = Arc::new(AtomicUsize::new(0));
    while !stop.load(Ordering::Relaxed) {
        let Ok((connection, _)) = listener.accept() else {
            // Out of descriptors, or the other side is gone already.
            thread::sleep(REST);
            continue;
        };
        if open.load(Ordering::Relaxed) >= agent.limits.connections {
            continue;
        }
        let agent = Arc::clone(agent);
        let guard = Guard::new(&open);
        // Without a thread the connection closes, which the host sees.
        drop(start_thread("connection", move || {
            let _guard = guard;
            // A connection that fails ends; the host sees that too.
            drop(serve_one(&agent, &connection));
        }));
    }
}

fn serve_one(agent: &Arc<Agent>, connection: &TcpStream) -> io::Result<()> {
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(LOOK))?;
    connection.set_write_timeout(Some(STUCK))?;
    let writer = connection.try_clone()?;
    let result = serve_connection(agent, connection, writer, Trust::Token);
    // The writer's clone would keep it open.
    connection.shutdown(std::net::Shutdown::Both)?;
    result
}

/// Counts a connection for as long as it is served.
struct Guard(Arc<AtomicUsize>);

impl Guard {
    fn new(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

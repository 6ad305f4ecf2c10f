//! The guest's side: an [`Agent`] and the transports it answers on.
//!
//! Everything runs on plain threads. Each transport has a reading and a writing one; each open
//! request has one more, and each running program two or three that move its output and input.
//! Their number is bounded by [`MAX_REQUESTS`](crate::protocol::MAX_REQUESTS), [`Limits`] and the
//! bound on outputs that descendants still hold. No thread is ever started in a way that panics
//! when the guest is out of processes: the request fails instead.

mod agent;
mod answer;
mod background;
mod download;
mod files;
mod folder;
mod job;
mod link;
mod outbox;
mod probe;
mod process;
mod program;
mod request;
mod session;
mod stream;
mod tcp;
mod token;

pub use agent::{Agent, Limits, Settings};
pub use link::{Trust, serve_connection, serve_port};
pub use tcp::serve_tcp;
pub use token::Token;

/// Tells the kernel to take other processes first when memory runs out; programs that the agent
/// starts are exposed to it again. For the process that is an agent and nothing else.
pub fn resist_memory_pressure() {
    crate::platform::resist_memory_pressure();
}

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// How much stack a thread of the agent gets; none of them recurses.
const STACK: usize = 256 * 1024;

/// Locks, also after a panic elsewhere: each critical section leaves its data whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a thread, or says why not.
fn start_thread(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(work)
        .map(drop)
}

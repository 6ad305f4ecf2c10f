//! A server on loopback that misbehaves on request, for the tests of what downloads. Feature `testing`.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use see_image_providers::testing::{Fault, FaultServer, Resource, noise};
//!
//! let server = FaultServer::start().await;
//! server.put("/guest.raw", Resource::new(noise(1 << 20)).fault(Fault::CutAfter(1000)));
//! let address = server.url("/guest.raw"); // its first GET breaks off, the next ones do not
//! # drop(address);
//! # });
//! ```

mod answer;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What goes wrong with one `GET`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Fault {
    /// The connection is closed after so many bytes of the body.
    CutAfter(u64),
    /// One bit of this byte of the whole resource is another.
    Flip(u64),
    /// Another status, with these headers and this body.
    Status(u16, Vec<(String, String)>, Bytes),
    /// `Content-Length` says this, and the body has its own length; then the connection is closed.
    ContentLength(u64),
    /// A redirect to this address.
    Redirect(String),
    /// So many bytes at once, and a pause after each.
    Trickle(usize, Duration),
    /// The same over all connections with this fault together: they share one line.
    Line(usize, Duration),
    /// After so many bytes of the body nothing comes, and the connection stays open.
    Stall(u64),
    /// A range answer that begins so many bytes further than asked.
    ShiftedRange(u64),
    /// Neither `Content-Length` nor `Content-Range` says how long it is.
    NoLength,
    /// After so many bytes of the body the resource becomes this one, and the connection is closed.
    Replace(u64, Box<Resource>),
}

/// What lies at one path.
#[derive(Debug, Clone)]
pub struct Resource {
    body: Bytes,
    length: u64,
    entity_tag: Option<String>,
    last_modified: Option<String>,
    ranges: bool,
    announced: Option<u64>,
    posts: Option<Fault>,
    once: VecDeque<Fault>,
    always: Option<Fault>,
}

impl Resource {
    /// These bytes, with ranges and without any mark of their version.
    pub fn new(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Self {
            length: body.len() as u64,
            body,
            entity_tag: None,
            last_modified: None,
            ranges: true,
            announced: None,
            posts: None,
            once: VecDeque::new(),
            always: None,
        }
    }

    /// The same bytes again and again, until there are so many.
    #[must_use]
    pub fn repeated_to(mut self, length: u64) -> Self {
        self.length = length;
        self
    }

    /// The same with an `ETag`, given without quotes.
    #[must_use]
    pub fn entity_tag(mut self, tag: &str) -> Self {
        self.entity_tag = Some(format!("\"{tag}\""));
        self
    }

    /// The same with an `ETag` as it is given here, with quotes or without.
    #[must_use]
    pub fn raw_entity_tag(mut self, tag: &str) -> Self {
        self.entity_tag = Some(tag.to_owned());
        self
    }

    /// The same with a `Last-Modified`.
    #[must_use]
    pub fn last_modified(mut self, date: &str) -> Self {
        self.last_modified = Some(date.to_owned());
        self
    }

    /// The same from a server that always sends everything.
    #[must_use]
    pub fn without_ranges(mut self) -> Self {
        self.ranges = false;
        self
    }

    /// The same, whose `HEAD` announces another length.
    #[must_use]
    pub fn announcing(mut self, length: u64) -> Self {
        self.announced = Some(length);
        self
    }

    /// The same, which answers a `POST` with this status and these headers.
    #[must_use]
    pub fn for_posts(mut self, status: u16, headers: Vec<(String, String)>) -> Self {
        self.posts = Some(Fault::Status(status, headers, Bytes::new()));
        self
    }

    /// The same with a fault for the next `GET` that has none yet.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.once.push_back(fault);
        self
    }

    /// The same with a fault for every `GET` without one of its own.
    #[must_use]
    pub fn always(mut self, fault: Fault) -> Self {
        self.always = Some(fault);
        self
    }
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// `GET`, `HEAD`…
    pub method: String,
    /// Path and query.
    pub target: String,
    /// The headers, their names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Seen {
    /// A header's first value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// A server with resources that can be replaced while it runs; it ends when it is dropped.
#[derive(Debug)]
pub struct FaultServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    line: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    resources: HashMap<String, Resource>,
    seen: Vec<Seen>,
    sent: u64,
    at_once: usize,
    most_at_once: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl FaultServer {
    /// A server on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// Where none can be listened to.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a port of loopback is free");
        Self::on(listener)
    }

    /// A server on the port of another one that is gone.
    ///
    /// # Panics
    /// Where it cannot be listened to.
    pub async fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address)
            .await
            .expect("the port is free again");
        Self::on(listener)
    }

    fn on(listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared::default());
        let serving = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            // The connections end with the server.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(answer::serve(connection, Arc::clone(&serving)));
                while connections.try_join_next().is_some() {}
            }
        });
        Self {
            address,
            shared,
            task,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Puts a resource at a path, over the one that is there.
    pub fn put(&self, path: &str, resource: Resource) {
        self.shared
            .state()
            .resources
            .insert(path.to_owned(), resource);
    }

    /// Takes a resource away.
    pub fn remove(&self, path: &str) {
        self.shared.state().resources.remove(path);
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.state().seen.clone()
    }

    /// The most bodies that were sent at the same time.
    pub fn most_at_once(&self) -> usize {
        self.shared.state().most_at_once
    }

    /// How many bytes of bodies were sent.
    pub fn sent(&self) -> u64 {
        self.shared.state().sent
    }
}

impl Drop for FaultServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Bytes that are the same on every call and look like nothing: an image of no known format.
pub fn noise(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}

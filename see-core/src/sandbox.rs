//! A throw-away machine, and the abilities that only some hypervisors have.

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use crate::{Identifier, Result, SandboxState};

/// An address under which the guest can be reached from the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The hardware address of the interface, `52:54:00:12:34:56`.
    pub mac: String,
    /// The address.
    pub ip: IpAddr,
}

/// A change of a sandbox, as its hypervisor reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SandboxChange {
    /// It is in this state now.
    State(SandboxState),
    /// The guest restarted.
    Rebooted,
    /// Reports were lost; ask for the state.
    Missed,
}

/// A machine that is allocated once, runs unknown software, and is released for good.
///
/// Commands to one machine queue up behind each other, and a command that has begun ends even when
/// the future that asked for it is dropped. Every method has a deadline of its own: none waits for ever.
/// The methods only act; whether a transition is allowed is checked by the turn, with
/// [`Transition`](crate::Transition)'s table.
///
/// What only some hypervisors can do is an ability: a small trait behind an accessor that says `None`
/// where it is missing.
#[async_trait]
pub trait Sandbox: fmt::Debug + Send + Sync {
    /// The environment that it belongs to.
    fn identifier(&self) -> Identifier;

    /// The state it is in now.
    ///
    /// # Errors
    /// When the hypervisor does not answer, or the machine is gone.
    async fn state(&self) -> Result<SandboxState>;

    /// Starts it, and returns when it runs.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    async fn start(&self) -> Result<()>;

    /// Cuts its power, and returns when it is off. A machine that is off already is no error.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    async fn destroy(&self) -> Result<()>;

    /// Suspends it in memory, and returns when it stands.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    async fn suspend(&self) -> Result<()>;

    /// Continues it after a suspension.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    async fn resume(&self) -> Result<()>;

    /// Asks the guest to shut down, and returns once it was asked, not when it is off.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    async fn shutdown(&self) -> Result<()>;

    /// Asks the guest to restart, and returns once it was asked.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    async fn reboot(&self) -> Result<()>;

    /// The addresses the guest has now; empty where it has no network or no lease yet.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    async fn addresses(&self) -> Result<Vec<Address>>;

    /// Why the guest may have no address, as far as the host shows a cause, such as a firewall that drops its requests:
    /// a sentence for people. Asked when the wait for an address is given up.
    async fn why_no_address(&self) -> Option<String> {
        None
    }

    /// Whether the guest has a network on which addresses may be expected.
    fn has_network(&self) -> bool;

    /// Changes from now on, through a bounded queue.
    fn watch(&self) -> mpsc::Receiver<SandboxChange>;

    /// Prepares the end: no change is told from now on, and no command is taken any more. May be called again.
    ///
    /// It removes nothing. Afterwards, also where it failed, core removes everything that the record names with the
    /// collectors of its kinds, exactly as after a crash: first the machine, whether it is on or off, and what else
    /// [runs](crate::ledger::Collector::runs). So only what belongs to this process is left to do here: to wait for a
    /// command under way, to end tasks, to wait for a child.
    ///
    /// # Errors
    /// When a command under way or something of this process does not end.
    async fn release(&self) -> Result<()>;

    /// Pictures of the screen.
    fn screenshot(&self) -> Option<&dyn Screenshot> {
        None
    }

    /// A byte channel to the guest that needs no network.
    fn guest_channel(&self) -> Option<&dyn GuestChannel> {
        None
    }

    /// The files of this host that hold what the guest writes to its disks; they grow as it writes.
    fn disks(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Text that the guest writes to its console.
    fn console(&self) -> Option<&dyn Console> {
        None
    }

    /// What the hypervisor writes about the machine.
    fn hypervisor_log(&self) -> Option<&dyn HypervisorLog> {
        None
    }

    /// What it takes of the host.
    fn meter(&self) -> Option<&dyn Meter> {
        None
    }

    /// The walls around the guest's network.
    fn isolation(&self) -> Option<&dyn Isolation> {
        None
    }

    /// The hypervisor's own objects, for finer control; what they are, the backend documents.
    fn native(&self) -> Option<&dyn Any> {
        None
    }
}

/// The ability to take pictures of the screen.
#[async_trait]
pub trait Screenshot: Send + Sync {
    /// The screen as it is now, in whatever format the hypervisor gives.
    ///
    /// # Errors
    /// When the machine does not run, has no screen, or the picture is larger than 64 MiB.
    async fn take(&self) -> Result<Picture>;
}

/// A picture as the hypervisor gave it.
#[derive(Debug, Clone)]
pub struct Picture {
    /// What the hypervisor says it is: `image/png`, `image/x-portable-pixmap`.
    pub mime_type: String,
    /// The bytes, unchecked: they may hold what the guest wants.
    pub bytes: Vec<u8>,
}

/// The ability to talk to the guest without a network.
#[async_trait]
pub trait GuestChannel: Send + Sync {
    /// Connects to the host's end of the channel. One connection at a time.
    ///
    /// # Errors
    /// When the machine does not run, or the channel is taken.
    async fn open(&self) -> Result<Box<dyn ChannelStream>>;
}

/// The host's end of a guest channel.
pub trait ChannelStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ChannelStream for T {}

/// The ability to read what the guest wrote to its console.
pub trait Console: Send + Sync {
    /// The file in which the console's output gathers; raw bytes from the guest.
    fn log(&self) -> &Path;
}

/// The ability to read what the hypervisor wrote about the machine, such as why its emulator ended.
#[async_trait]
pub trait HypervisorLog: Send + Sync {
    /// The file, for people.
    fn path(&self) -> &Path;

    /// Its end, of at most `limit` bytes; `None` where there is no such file. It goes with the sandbox.
    ///
    /// # Errors
    /// When it cannot be read, as by a user whose hypervisor belongs to root.
    async fn tail(&self, limit: u64) -> Result<Option<Vec<u8>>>;
}

/// The ability to say what the sandbox takes of the host: what `context.limits` bounds besides files.
#[async_trait]
pub trait Meter: Send + Sync {
    /// What it takes now. A machine that is off takes nothing, but its processor time stays.
    ///
    /// # Errors
    /// When it cannot be found out.
    async fn usage(&self) -> Result<Usage>;
}

/// What a sandbox takes of the host; what is not known is `None`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// The processor time of the guest and of what runs it, since the allocation: it never falls.
    pub cpu: Option<Duration>,
    /// The host's memory that it takes now beyond what the guest was given, in bytes.
    pub memory: Option<u64>,
    /// Processes and threads on the host.
    pub pids: Option<u64>,
    /// The room that its disks take where they are no files of this host, in bytes.
    pub disk: Option<u64>,
    /// Why the hypervisor stopped the guest by itself, such as a disk of the host that is full; the
    /// guest cannot go on, and its run ends.
    pub halted: Option<String>,
    /// Which memory was full, and where its size is said, where the kernel killed something in the sandbox for
    /// that; its run ends.
    pub starved: Option<String>,
}

/// The ability to say what the guest's network keeps it from, and whether that still holds.
#[async_trait]
pub trait Isolation: Send + Sync {
    /// Whether the guest has to prove that everything in [`closed`](Self::closed) is closed before
    /// a sample runs in it.
    fn is_verified(&self) -> bool;

    /// What must not answer the guest, as things stand on this host now.
    ///
    /// # Errors
    /// When the host cannot be looked at.
    async fn closed(&self) -> Result<Vec<Closed>>;

    /// Whether the walls stand as they were built.
    ///
    /// # Errors
    /// [`ErrorKind::Isolation`](crate::ErrorKind::Isolation) where they were changed or are gone,
    /// with what was found; another kind when they cannot be looked at.
    async fn check(&self) -> Result<()>;

    /// Waits until the walls may have changed, so that [`check`](Self::check) is called at once and not only when its
    /// time comes. It may be dropped at any time. A backend that hears of no changes waits for ever, as this does.
    async fn changed(&self) {
        std::future::pending().await
    }
}

/// Something that the guest must not reach.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Closed {
    /// What it is, for people: `the host's SSH`.
    pub what: String,
    /// How it is tried.
    pub target: Target,
}

/// A way to try whether something can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// A TCP connection is taken, or refused by a reset: both are answers.
    Tcp(SocketAddr),
    /// A datagram is answered, or refused by an ICMP message.
    Udp(SocketAddr),
    /// An echo request is answered.
    Ping(IpAddr),
    /// This server resolves this name.
    Dns(SocketAddr, String),
}

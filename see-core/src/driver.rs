//! What a backend implements: the driver of one machine, and the abilities that only some hypervisors have.

use std::any::Any;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{Error, Result, SandboxState};

/// An address under which the guest can be reached from the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// The hardware address of the interface, `52:54:00:12:34:56`.
    pub mac: String,
    /// The address.
    pub ip: IpAddr,
}

/// What a backend implements: plain actions on one machine that is allocated once and released for good.
///
/// Core holds a driver within a [`Machine`](crate::Machine), and that calls its power actions, [`start`](Self::start)
/// to [`reboot`](Self::reboot), one at a time, within a deadline, and in a task that goes on when nobody waits for it
/// any more. So a driver has no queue and no deadline of its own. One exception: [`destroy`](Self::destroy) is called
/// beside an action that does not end. Whether the machine's state allows an action was checked before, with
/// [`Transition`](crate::Transition)'s table. Everything else may be called at any time, also while an action runs.
///
/// What changes is told through the [`ChangeSender`](crate::ChangeSender) of the allocation, whoever changed it.
///
/// What only some hypervisors can do is an ability: a small trait behind an accessor that says `None`
/// where it is missing.
#[async_trait]
pub trait Driver: fmt::Debug + Send + Sync {
    /// The state the machine is in now.
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

    /// Suspends it in memory, and returns when it stands. By default, that is not supported.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    async fn suspend(&self) -> Result<()> {
        Err(Error::unsupported("suspending this machine"))
    }

    /// Continues it after a suspension. By default, that is not supported.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    async fn resume(&self) -> Result<()> {
        Err(Error::unsupported("resuming this machine"))
    }

    /// Asks the guest to shut down, and returns once it was asked, not when it is off. By default, that is not
    /// supported.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    async fn shutdown(&self) -> Result<()> {
        Err(Error::unsupported("asking this machine to shut down"))
    }

    /// Asks the guest to restart, and returns once it was asked. By default, that is not supported.
    ///
    /// # Errors
    /// When the hypervisor refuses.
    async fn reboot(&self) -> Result<()> {
        Err(Error::unsupported("restarting this machine"))
    }

    /// The addresses the guest has now; by default, and where it has no network or no lease yet, none.
    ///
    /// # Errors
    /// When the hypervisor does not answer.
    async fn addresses(&self) -> Result<Vec<Address>> {
        Ok(Vec::new())
    }

    /// Why the guest may have no address, as far as the host shows a cause, such as a firewall that drops its requests:
    /// a sentence for people. Asked when the wait for an address is given up.
    async fn why_no_address(&self) -> Option<String> {
        None
    }

    /// Whether the guest has a network on which addresses may be expected. By default, it has none.
    fn has_network(&self) -> bool {
        false
    }

    /// Ends what belongs to this process, such as tasks, or a child to wait for. Called once, after the last action;
    /// only one that does not end may still run.
    ///
    /// It removes nothing. Afterwards, also where it failed, core removes everything that the record names with the
    /// collectors of its kinds, exactly as after a crash: first the machine, whether it is on or off, and what else
    /// [runs](crate::ledger::Collector::runs). By default, there is nothing to end.
    ///
    /// # Errors
    /// When something of this process does not end.
    async fn release(&self) -> Result<()> {
        Ok(())
    }

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

//! libvirt for SEE: connections, the event loop, domains, networks and storage pools.
//!
//! The one crate that talks to libvirt, and the only one with unsafe code. It knows nothing of
//! the framework. Everything is async: libvirt's blocking calls run on blocking threads, each
//! with a time limit, and a lost or hanging daemon becomes an [`Error`].
//!
//! ```
//! # async fn example() -> Result<(), see_libvirt::Error> {
//! use std::time::Duration;
//! use see_libvirt::{Connection, DomainState};
//!
//! let connection = Connection::open("test:///default", Duration::from_secs(10)).await?;
//! for domain in connection.domains().await? {
//!     let status = domain.status().await?;
//!     assert_eq!(status.state, DomainState::Running);
//! }
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(example()).unwrap();
//! ```

mod ability;
mod alive;
mod call;
mod close_reason;
mod confine;
mod connection;
mod domain;
mod domain_events;
mod driver;
pub mod embedded;
mod error;
mod event_loop;
mod handle;
pub mod kvm;
mod log;
mod network;
mod object;
mod processor;
mod storage;
mod text;
pub mod xml;

pub use ability::Ability;
#[cfg(feature = "testing")]
pub use alive::{Alive, alive};
pub use close_reason::CloseReason;
pub use connection::{
    CALL_LIMIT, Connection, DomainEvent, IoErrorAction, MachineKind, RECONNECT_LIMIT, StopCause,
};
pub use domain::{
    CHANNEL_BACKLOG, ChannelStream, Domain, DomainInfo, DomainState, DomainStatus,
    InterfaceAddresses, Screenshot, ShutdownMode,
};
pub use domain_events::{DomainEvents, EVENT_QUEUE};
pub use driver::is_on_this_host;
pub use embedded::{EmbeddedRoot, EmulatorAccount};
pub use error::{Cause, Error};
pub use log::quiet_log;
pub use network::{DhcpLease, Network};
pub use storage::{StoragePool, Volume, VolumeInfo};

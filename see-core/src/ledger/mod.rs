//! The ledger: what environments make on this host is written down before it is made, so that a
//! crash leaves nothing behind that cannot be found.
//!
//! Every environment has a [`Record`], a file in a folder that only its user can reach. Its owner
//! holds an exclusive lock on it, which the kernel drops when the owner dies, however it dies. A
//! [`Resource`] enters the record with [`Record::intend`], which returns an [`Entry`]; whatever makes
//! the resource takes that entry, and reports how it is recognised ([`Entry::created`]).
//!
//! A resource is removed by the [`Collector`] of its kind, and only where a label or a recorded
//! identity agrees: at the environment's end by [`Record::collect`], after its owner died by
//! [`Ledger::collect`]. An environment is alive while its record is locked, or until the time it was
//! asked to be kept. Process numbers are for display.
//!
//! # What is done with files and folders
//! They are named by a folder that existed before and a path beneath it that contains the
//! environment's identifier and did not exist when it was written down. At collection no link is
//! followed anywhere on the way, and no mount point is crossed. Then:
//! - With a recorded identity (inode, birth time, device): removed when it agrees, else refused.
//! - Without one, because the maker died in between: a regular file or socket is removed when it is
//!   ours and has no second name; a folder when it is ours and empty, since nothing is put into a
//!   folder before its identity is recorded. Everything else is refused.
//!
//! What is refused stays in the record and is reported every time. So does what was made on a file
//! system that is not mounted now.

mod anchor;
mod collect;
mod collector;
mod collectors;
mod files;
mod folder;
mod journal;
mod list;
mod look;
mod looked;
mod path;
mod process;
mod record;
mod resource;
mod root;
mod store;
mod tree;

pub(crate) use collect::REMOVAL;
pub use collect::{CollectOptions, Outcome, RecordOutcome, RecordReport, Report};
pub use collector::{CollectRequest, Collected, Collector};
pub use collectors::Collectors;
pub use list::{Listed, RecordState};
pub use look::Trail;
pub use looked::Looked;
pub use record::{Entry, Record};
pub use resource::{Details, Resource};
pub use store::Ledger;

use crate::fault::pass_on;
use crate::sync::panic_message;
use crate::{Error, ErrorKind, Result};

/// Runs work that waits for the disk on a thread for it; the work ends even when the future does not.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let failed = match tokio::task::spawn_blocking(work).await {
        Ok(done) => return done,
        Err(failed) => failed,
    };
    let what = match failed.try_into_panic() {
        Ok(panic) => panic_message(&*pass_on(panic)),
        Err(cancelled) => cancelled.to_string(),
    };
    let message = format!("work on the ledger did not end by itself: {what}");
    Err(Error::new(ErrorKind::Internal, message))
}

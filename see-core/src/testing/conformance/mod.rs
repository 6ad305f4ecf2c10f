//! The suite that every backend passes: one call, over any [`Backend`](crate::Backend).
//!
//! ```no_run
//! use see_core::testing::conformance::{self, Candidate};
//! use see_core::{Identifier, Registries, Result};
//!
//! #[derive(Debug)]
//! struct Mine;
//!
//! #[async_trait::async_trait]
//! impl Candidate for Mine {
//!     fn registries(&self) -> Result<Registries> {
//!         let registries = Registries::new();
//!         // registries.backends.add::<MyBackend>()?;
//!         Ok(registries)
//!     }
//!
//!     fn context(&self) -> serde_json::Value {
//!         serde_json::json!({ "backend": "my-backend" })
//!     }
//!
//!     async fn remains(&self, identifier: Identifier) -> Vec<String> {
//!         let name = format!("/var/tmp/my-backend-{identifier}");
//!         Vec::from_iter(std::path::Path::new(&name).exists().then_some(name))
//!     }
//! }
//!
//! # async fn test() {
//! // In a test, on a multi-threaded tokio runtime:
//! conformance::run(Mine).await.assert_passed();
//! # }
//! ```
//!
//! The suite knows no backend. It makes core itself fail: at each write of the ledger, and at each look at
//! the stop (of many in a row at the first, and at ever rarer ones), until an allocation passes without
//! reaching the fault. After each of them, what the host would do is done, and then nothing may be left: by
//! the ledger's account, and by the candidate's.

mod abilities;
mod allocation;
mod bench;
mod candidate;
mod configuration;
mod dirty;
mod faults;
mod lifecycle;
mod power;
mod release;
mod watch;

use std::sync::Arc;

pub use super::report::{Finding, Report, Verdict};
pub use candidate::{Candidate, GuestAct, Stranger};

use super::suite::{self, Check, checks};
use bench::Bench;

const CHECKS: &[Check<Bench>] = checks! {
    "configuration", "a malformed configuration is refused, and its place named", configuration::refused;
    "lifecycle", "every legal transition leads where the table says", lifecycle::every_legal_transition;
    "illegal-transitions", "every other one is refused and changes nothing", lifecycle::every_illegal_transition;
    "watch", "every watcher is told of the changes that the host makes", watch::the_hosts_changes;
    "poweroff", "a machine whose power is cut is told as off, never as crashed", power::cut_and_told;
    "interrupted-start", "a start that is cut off leaves the machine on or off, told so, and releasable", power::start_interrupted;
    "guest-power", "what the guest does to its own power becomes an event", watch::the_guests_changes;
    "abilities", "what is claimed works, and the claims stay the same", abilities::claims;
    "failing-allocation", "one whose ledger fails at any write leaves nothing", faults::failing;
    "panicking-allocation", "one that panics at any point leaves nothing that is not written down", faults::panicking;
    "stopped-allocation", "one that is stopped at any point ends and leaves nothing", faults::stopped;
    "dropped-allocation", "one whose future is dropped at any point leaves nothing", faults::dropped;
    "dirty-names", "what already has a planned name is refused and left alone", dirty::names;
    "parallel", "several at once do not disturb each other", allocation::in_parallel;
    "collection", "what a dead owner left is collected by what the ledger says", allocation::of_a_dead_owner;
    "release", "a running machine goes with all that was made for it", release::of_a_running_machine;
    "interrupted-release", "a release that failed goes on where it stood", release::interrupted;
    "dead-machine", "a machine that died behind our back is released", release::of_a_dead_machine;
};

/// Runs the suite over a candidate, and reports on each check; one that fails stops none of the others.
///
/// Needs a multi-threaded tokio runtime with time and what the backend needs besides. It takes a few dozen
/// allocations.
pub async fn run(candidate: impl Candidate + 'static) -> Report {
    run_only(candidate, |_| true).await
}

/// Runs those checks of the suite whose names `wanted` takes.
///
/// As [`run`].
pub async fn run_only(
    candidate: impl Candidate + 'static,
    wanted: impl Fn(&str) -> bool,
) -> Report {
    let candidate: Arc<dyn Candidate> = Arc::new(candidate);
    suite::run(candidate, CHECKS, wanted).await
}

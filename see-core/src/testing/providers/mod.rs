//! The suite that every image provider passes: one call, over any [`ImageProvider`](crate::ImageProvider) and
//! a source that it gets images from.
//!
//! ```no_run
//! use see_core::testing::providers::{self, ImageCandidate};
//! use see_core::{Error, Registries, Result};
//!
//! /// The provider `shelf`, with a folder as its source.
//! #[derive(Debug)]
//! struct Mine(std::path::PathBuf);
//!
//! #[async_trait::async_trait]
//! impl ImageCandidate for Mine {
//!     fn registries(&self) -> Result<Registries> {
//!         let registries = Registries::new();
//!         // registries.images.add::<Shelf>()?;
//!         Ok(registries)
//!     }
//!
//!     fn section(&self, name: &str) -> serde_json::Value {
//!         serde_json::json!({ "provider": "shelf", "name": name })
//!     }
//!
//!     async fn put(&self, name: &str, content: &[u8]) -> Result<()> {
//!         std::fs::write(self.0.join(name), content).map_err(|error| Error::io("put", error))
//!     }
//!
//!     async fn remove(&self, name: &str) -> Result<()> {
//!         std::fs::remove_file(self.0.join(name)).map_err(|error| Error::io("remove", error))
//!     }
//! }
//!
//! # async fn test() {
//! // In a test, on a multi-threaded tokio runtime:
//! providers::run(Mine("/images".into())).await.assert_passed();
//! # }
//! ```
//!
//! As with [backends](super::conformance), core itself fails, panics and stops at each write of the ledger and
//! each look at the stop, until an ask passes without reaching the fault. After each of them the image must be
//! had whole by the next one, and nothing may be left of the one before.

mod bench;
mod candidate;
mod checks;
mod cuts;
mod secrets;

use std::sync::Arc;

pub use candidate::ImageCandidate;

use super::report::Report;
use super::suite::{self, Check, checks};
use bench::Bench;

const CHECKS: &[Check<Bench>] = checks! {
    "configuration", "a malformed section is refused, and its place named", checks::malformed;
    "image", "what is given is an absolute path to the whole image", checks::image;
    "again", "the next ask gives the same file, which nobody wrote to", checks::again;
    "changed", "an image that changed at its source is had as it is now", checks::changed;
    "crowd", "several who ask at once all get it whole", checks::crowd;
    "missing", "an image that is not there is told as such, with advice", checks::missing;
    "spoiled", "other bytes than the promised ones are never given out", checks::spoiled;
    "unreachable", "a source that does not answer is told, or not needed", checks::unreachable;
    "stopped", "an ask that is stopped at any point is in nobody's way", cuts::stopped;
    "stalled", "a stop ends an ask that waits for its source", cuts::stalled;
    "failing", "an ask whose ledger fails at any write leaves nothing", cuts::failing;
    "panicking", "an ask that panics at any point leaves nothing that is not written down", cuts::panicking;
    "progress", "progress never exceeds what there is, never falls, and ends complete", checks::progress;
    "secrets", "what it was given in confidence is in no error, debug form, name or log", secrets::kept;
};

/// Runs the suite over a candidate, and reports on each check; one that fails stops none of the others.
///
/// Needs a multi-threaded tokio runtime with time and what the provider needs besides. It asks for some dozens
/// of images of up to 3 MB.
pub async fn run(candidate: impl ImageCandidate + 'static) -> Report {
    run_only(candidate, |_| true).await
}

/// Runs those checks of the suite whose names `wanted` takes.
///
/// As [`run`].
pub async fn run_only(
    candidate: impl ImageCandidate + 'static,
    wanted: impl Fn(&str) -> bool,
) -> Report {
    let candidate: Arc<dyn ImageCandidate> = Arc::new(candidate);
    suite::run(candidate, CHECKS, wanted).await
}

/// Bytes that nothing shortens and no two seeds have in common.
fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(next)
        .flatten()
        .take(length)
        .collect()
}

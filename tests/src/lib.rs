//! What the tests of real machines share: where the built things lie, and `seectl` as a user runs it, in a
//! home of its own.
//!
//! `cargo xtask test` builds the program and the guest first; a test that finds them missing says how.

mod home;
mod parts;

pub use home::{Home, Outcome, finish, spawn};
pub use parts::{guest, seectl, target_folder};

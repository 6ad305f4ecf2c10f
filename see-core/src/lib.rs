//! The core of SEE: environments, events, hooks, backends and the ledger.

pub mod config;
mod error;

pub use error::{Error, ErrorKind, Result};

//! The configuration: one tree in which every key and value knows where it came from.

mod origin;

pub use origin::{Origin, Place};

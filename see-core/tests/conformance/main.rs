//! The conformance suite over the fake backend, and over fakes that are wrong in one way each.

mod fake;
mod flawed;
mod flaws;
mod providers;

//! For tests: the suites that every backend and every image provider pass, and a backend without a
//! hypervisor that fails or stalls wherever it is told to.

pub mod conformance;
mod fake;
pub mod providers;
mod report;
mod suite;

pub use fake::{FakeBackend, FakeConfiguration, FakeControl, Fault, FaultAt};

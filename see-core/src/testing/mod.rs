//! For tests: the suites that every backend and every image provider pass, and a backend without a
//! hypervisor that fails or stalls wherever it is told to.

pub mod conformance;
mod fake;
mod faults;
pub mod providers;
mod report;
mod suite;

pub(crate) use faults::{Act, Faults, Injected, pass_on};

pub use fake::{FakeBackend, FakeConfiguration, FakeControl, Fault, FaultAt};

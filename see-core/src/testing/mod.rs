//! For tests: a backend without a hypervisor that fails or stalls wherever it is told to.

mod fake;

pub use fake::{FakeBackend, FakeConfiguration, FakeControl, Fault, FaultAt};

//! Images from real servers on loopback: complete, verified, resumed, shared; and the servers themselves.

#![expect(
    clippy::print_stdout,
    reason = "seeds and instants are told, so that a failure can be repeated"
)]

mod conformance;
mod crowd;
mod digests;
mod glance;
mod http;
mod inspected;
mod meanwhile;
mod pools;
mod resume;
mod s3;
mod secrets;
mod servers;
mod starts;
mod store;
mod support;
mod warnings;

//! Environments of the fake backend: the event bus, allocation, runs and teardown.

mod bus;
mod common;
mod ending;
mod environment;
mod isolation;
mod power;
mod protocol;
mod quota;

//! Environments of the fake backend: the event bus, allocation, runs and teardown.

mod bus;
mod common;
mod ending;
mod environment;
mod hooks;
mod image;
mod isolation;
mod power;
mod protocol;
mod quota;
mod removal;

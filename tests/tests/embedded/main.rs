//! Machines on the embedded driver, with neither a daemon nor rights: real guests, run by `seectl` and by the library.

mod agent;
mod domain;
mod hooks;
mod library;
mod names;
mod power;
mod runs;
mod support;

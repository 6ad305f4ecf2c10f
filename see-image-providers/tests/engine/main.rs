//! The engine against a server that breaks, lies and changes.

mod again;
mod disk;
mod download;
mod hosts;
mod keep;
mod memory;
mod mirrors;
mod patience;
mod proxy;
mod retry;
mod streams;
mod support;
mod tls;
mod together;
mod unpack;

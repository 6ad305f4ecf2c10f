//! The engine against a server that breaks, lies and changes.

mod disk;
mod download;
mod hosts;
mod keep;
mod support;
mod together;
mod unpack;

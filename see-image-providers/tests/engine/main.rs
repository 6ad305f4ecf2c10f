//! The engine against a server that breaks, lies and changes.

mod download;
mod support;

//! The crate on libvirt's built-in test driver: no hypervisor, daemon or rights needed.

mod connection;
mod daemon;
mod domain;
mod network;
mod storage;
mod support;
mod vbox;

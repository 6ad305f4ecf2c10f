//! The crate on libvirt's built-in test driver: no hypervisor, daemon or rights needed.

mod domain;
mod support;

//! Whole sandboxes on the embedded driver, with real emulators: allocated, driven and released.
//!
//! They need the emulator and `qemu-img`, but neither a daemon nor rights.

mod collection;
mod configuration;
mod lifecycle;
mod support;

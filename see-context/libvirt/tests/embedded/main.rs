//! The embedded driver with a real QEMU: needs the emulator installed, but neither a daemon nor
//! rights. libvirt allows one root a process, so each test runs in a process of its own.

mod domain;
mod process;
mod reaper;
mod root;

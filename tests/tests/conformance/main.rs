//! The conformance suite over QEMU and containers. No guest is booted: a machine without an operating system has
//! power as well.
//!
//! VirtualBox passes it in see-context, over libvirt's test driver.

mod container;
mod embedded;
mod system;

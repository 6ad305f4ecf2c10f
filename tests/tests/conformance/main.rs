//! The conformance suite over the backends of the system daemon. No guest is booted: a machine without an operating
//! system has power as well.
//!
//! Embedded QEMU passes it in the tests of that: libvirt opens no daemon from a process that has opened its embedded
//! driver. VirtualBox does, over libvirt's test driver, in see-context.

mod container;
mod system;

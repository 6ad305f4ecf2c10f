//! The conformance suite over every backend that comes with SEE, with real machines where the host has the
//! hypervisor. No guest is booted: a machine without an operating system has power as well.

mod embedded;
mod machine;
mod system;

//! The conformance suite over every backend that comes with SEE and runs real machines; that for VirtualBox, over
//! libvirt's test driver, lies in see-context. No guest is booted: a machine without an operating system has power as well.

mod container;
mod embedded;
mod machine;
mod system;

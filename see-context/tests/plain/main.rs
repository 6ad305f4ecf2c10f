//! The backends of machines that use nothing but what all of libvirt's drivers have: `libvirt` over libvirt's test
//! driver, and `vbox` over libvirt's test driver, which is asked for nothing that VirtualBox's driver lacks: no
//! events, no metadata, no networks. VirtualBox itself is not run.

mod backend;
mod candidate;
mod mistakes;

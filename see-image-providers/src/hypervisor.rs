//! The libvirt of this host that a configuration names.

use see_core::config::Located;
use see_core::{Error, Result};
use see_libvirt::is_on_this_host;

/// The hypervisor where none is said, as python-see had it.
const SYSTEM: &str = "qemu:///system";

/// The libvirt that a configuration names.
///
/// # Errors
/// [`ErrorKind::Configuration`](see_core::ErrorKind::Configuration) with the place, where it is none of this host. The URI is not shown: a password may
/// stand in it.
pub(crate) fn hypervisor(uri: Option<Located<String>>) -> Result<String> {
    let Some(uri) = uri else {
        return Ok(SYSTEM.to_owned());
    };
    if uri.contains("://") && is_on_this_host(&uri) {
        return Ok(uri.into_inner());
    }
    let message = "the hypervisor is none of this host";
    Err(Error::configuration(uri.place().clone(), message)
        .advice("expected a libvirt URI such as qemu:///system: images are files of this host"))
}

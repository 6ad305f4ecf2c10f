//! The libvirt of this host that a configuration names.

use see_core::config::Located;
use see_core::{Error, Result};

/// The hypervisor where none is said, as python-see had it.
const SYSTEM: &str = "qemu:///system";

/// The libvirt that a configuration names.
///
/// # Errors
/// [`ErrorKind::Configuration`](see_core::ErrorKind::Configuration) with the place, where it is none of this host. The
/// URI is not shown: a password may stand in it.
pub(crate) fn hypervisor(uri: Option<Located<String>>) -> Result<String> {
    let Some(uri) = uri else {
        return Ok(SYSTEM.to_owned());
    };
    let is_local = uri
        .split_once("://")
        .is_some_and(|(scheme, rest)| !scheme.ends_with("+ext") && rest.starts_with('/'));
    if is_local {
        return Ok(uri.into_inner());
    }
    let message = "the hypervisor is none of this host";
    Err(Error::configuration(uri.place().clone(), message)
        .advice("expected a libvirt URI such as qemu:///system: images are files of this host"))
}

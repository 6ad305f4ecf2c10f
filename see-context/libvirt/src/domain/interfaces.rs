//! The addresses of a domain's network interfaces.

use std::net::IpAddr;
use std::ptr;

use virt_sys as sys;

use super::Domain;
use crate::ability::Ability;
use crate::error::{Cause, Error};
use crate::text;

/// The addresses of one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceAddresses {
    /// The interface, as the source names it.
    pub name: String,
    /// Its hardware address, where the source knows it.
    pub mac: Option<String>,
    /// The addresses with the length of their prefix. What the source gave that is no address
    /// is left out.
    pub addresses: Vec<(IpAddr, u32)>,
}

impl Domain {
    /// The addresses of the domain's interfaces, by the DHCP leases of libvirt's networks. They may be old ones of a
    /// reused hardware address: compare [`crate::Network::dhcp_leases`].
    ///
    /// # Errors
    /// [`Error::is_unsupported`], whatever else libvirt reports, or the time limit.
    pub async fn interface_addresses(&self) -> Result<Vec<InterfaceAddresses>, Error> {
        let operation = "read the addresses of";
        self.object
            .require(Ability::InterfaceAddresses, operation)?;
        self.object.repeat(operation, addresses).await
    }
}

/// The `virt` crate's own call leaks the elements.
fn addresses(domain: &virt::domain::Domain) -> Result<Vec<InterfaceAddresses>, Cause> {
    let mut list: *mut sys::virDomainInterfacePtr = ptr::null_mut();
    let source = sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_LEASE;
    // SAFETY: the domain is valid and `list` a live variable that receives an array.
    let count =
        unsafe { sys::virDomainInterfaceAddresses(domain.as_ptr(), &raw mut list, source, 0) };
    let Ok(count) = usize::try_from(count) else {
        return Err(Cause::last());
    };
    let mut found = Vec::with_capacity(count);
    for index in 0..count {
        // SAFETY: libvirt filled `count` elements, each a valid pointer that is ours to free;
        // each is read once and freed right after.
        unsafe {
            let interface = *list.add(index);
            found.push(read(&*interface));
            sys::virDomainInterfaceFree(interface);
        }
    }
    // SAFETY: the array itself came from malloc and is ours; null is fine.
    unsafe { libc::free(list.cast()) };
    Ok(found)
}

/// # Safety
/// `interface` was filled by libvirt and not freed.
unsafe fn read(interface: &sys::virDomainInterface) -> InterfaceAddresses {
    let mut addresses = Vec::new();
    for index in 0..interface.naddrs as usize {
        // SAFETY: `addrs` holds `naddrs` elements whose texts are valid.
        let (address, prefix) = unsafe {
            let entry = &*interface.addrs.add(index);
            (text::borrowed(entry.addr), entry.prefix)
        };
        if let Some(address) = address.and_then(|text| text.parse().ok()) {
            addresses.push((address, prefix));
        }
    }
    // SAFETY: both texts are null or valid, as libvirt filled them.
    let (name, mac) = unsafe {
        (
            text::borrowed(interface.name),
            text::borrowed(interface.hwaddr),
        )
    };
    InterfaceAddresses {
        name: name.unwrap_or_default(),
        mac,
        addresses,
    }
}

//! DHCP leases; the `virt` crate has no call for them.

use std::net::IpAddr;
use std::ptr;
use std::time::{Duration, SystemTime};

use virt_sys as sys;

use crate::error::Cause;
use crate::text;

/// An address that a network's DHCP server has lent. The texts were chosen by the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpLease {
    /// The client's hardware address; not every IPv6 lease has one.
    pub mac: Option<String>,
    /// The address.
    pub address: IpAddr,
    /// The length of its prefix, in bits.
    pub prefix: u32,
    /// When it ends; `None` for a lease without end.
    pub expires: Option<SystemTime>,
    /// The name that the client gave itself.
    pub hostname: Option<String>,
    /// The identifier that the client gave itself.
    pub client_id: Option<String>,
}

pub(super) fn read(
    network: &virt::network::Network,
    mac: Option<&str>,
) -> Result<Vec<DhcpLease>, Cause> {
    let mac = mac.map(text::c_string).transpose()?;
    let mac = mac.as_ref().map_or(ptr::null(), |mac| mac.as_ptr());
    let mut list: *mut sys::virNetworkDHCPLeasePtr = ptr::null_mut();
    // SAFETY: the network is valid, `mac` null or a terminated string that lives until the end of
    // this function, and `list` a live variable that receives an array.
    let count = unsafe { sys::virNetworkGetDHCPLeases(network.as_ptr(), mac, &raw mut list, 0) };
    let Ok(count) = usize::try_from(count) else {
        return Err(Cause::last());
    };
    let mut leases = Vec::with_capacity(count);
    for index in 0..count {
        // SAFETY: libvirt filled `count` elements, each a valid pointer that is ours to free;
        // each is read once and freed right after.
        unsafe {
            let lease = *list.add(index);
            leases.extend(convert(&*lease));
            sys::virNetworkDHCPLeaseFree(lease);
        }
    }
    // SAFETY: the array itself came from malloc and is ours; null is fine.
    unsafe { libc::free(list.cast()) };
    Ok(leases)
}

/// `None` for what holds no address.
///
/// # Safety
/// `lease` was filled by libvirt and not freed.
unsafe fn convert(lease: &sys::virNetworkDHCPLease) -> Option<DhcpLease> {
    // SAFETY: every text is null or valid, as libvirt filled them.
    let (mac, address, hostname, client_id) = unsafe {
        (
            text::borrowed(lease.mac),
            text::borrowed(lease.ipaddr),
            text::borrowed(lease.hostname),
            text::borrowed(lease.clientid),
        )
    };
    Some(DhcpLease {
        mac,
        address: address?.parse().ok()?,
        prefix: lease.prefix,
        expires: expiry(lease.expirytime),
        hostname,
        client_id,
    })
}

/// Seconds since 1970; libvirt writes 0 for a lease without end.
fn expiry(seconds: i64) -> Option<SystemTime> {
    let seconds = u64::try_from(seconds).ok().filter(|&seconds| seconds > 0)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    fn lease(address: Option<&CString>) -> sys::virNetworkDHCPLease {
        sys::virNetworkDHCPLease {
            iface: ptr::null_mut(),
            expirytime: 60,
            type_: 0,
            mac: ptr::null_mut(),
            iaid: ptr::null_mut(),
            ipaddr: address.map_or(ptr::null_mut(), |text| text.as_ptr().cast_mut()),
            prefix: 24,
            hostname: ptr::null_mut(),
            clientid: ptr::null_mut(),
        }
    }

    #[test]
    fn a_lease_without_a_proper_address_is_left_out() {
        let (good, bad) = (c"192.0.2.7".to_owned(), c"192.0.2.777".to_owned());
        // SAFETY: the texts are null or terminated strings that outlive the calls.
        let found = unsafe {
            [
                convert(&lease(Some(&good))),
                convert(&lease(Some(&bad))),
                convert(&lease(None)),
            ]
        };
        let [Some(first), None, None] = found else {
            panic!("{found:?}");
        };
        assert_eq!(first.address.to_string(), "192.0.2.7");
        assert_eq!(
            first.expires,
            Some(SystemTime::UNIX_EPOCH + Duration::from_secs(60))
        );
        assert_eq!((first.mac, first.prefix), (None, 24));
    }

    #[test]
    fn a_lease_without_end_has_no_expiry() {
        assert_eq!(expiry(0), None);
        assert_eq!(expiry(-1), None);
    }
}

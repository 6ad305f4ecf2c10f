//! The address of a guest that is kept for it, and that others may have had before it.

use std::net::IpAddr;
use std::time::SystemTime;

use see_core::{Address, Result};
use see_libvirt::{DhcpLease, Network};

use crate::error::libvirt;

/// Who lends a guest its address.
#[derive(Debug, Clone)]
pub(crate) struct Lender {
    pub(super) network: Network,
    pub(super) mac: String,
    /// The one address that is kept for the guest. Any other lease of its hardware address is not its own doing.
    pub(super) address: IpAddr,
    /// When the lease ends that the last owner of the hardware address left behind.
    pub(super) stale: Option<SystemTime>,
}

impl Lender {
    /// The addresses that the guest itself has asked for and got.
    pub(crate) async fn addresses(&self) -> Result<Vec<Address>> {
        let leases = self.network.dhcp_leases(Some(&self.mac)).await;
        let leases = leases.map_err(libvirt)?;
        let own = leases
            .iter()
            .filter(|lease| is_own(lease, self.address, self.stale));
        let address = |lease: &DhcpLease| Address {
            mac: self.mac.clone(),
            ip: lease.address,
        };
        Ok(own.map(address).collect())
    }
}

/// Whether a lease is of this address, and not the one that an earlier guest left behind.
fn is_own(lease: &DhcpLease, address: IpAddr, stale: Option<SystemTime>) -> bool {
    lease.address == address && (stale.is_none() || lease.expires != stale)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_fresh_lease_of_its_own_address_is_a_guests() {
        let lease = |last: u8, seconds: u64| DhcpLease {
            mac: None,
            address: [10, 0, 0, last].into(),
            prefix: 24,
            expires: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)),
            hostname: None,
            client_id: None,
        };
        let own = IpAddr::from([10, 0, 0, 2]);
        let stale = lease(2, 60).expires;
        assert!(is_own(&lease(2, 60), own, None));
        assert!(is_own(&lease(2, 61), own, stale));
        assert!(!is_own(&lease(2, 60), own, stale), "of who was here before");
        assert!(!is_own(&lease(3, 61), own, None), "of another address");
    }
}

//! The address of a guest that is kept for it, and that others may have had before it.

use std::net::IpAddr;
use std::time::SystemTime;

use see_core::{Address, Result};
use see_libvirt::Network;

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
        Ok(leases
            .map_err(libvirt)?
            .into_iter()
            .filter(|lease| lease.address == self.address)
            .filter(|lease| self.stale.is_none() || lease.expires != self.stale)
            .map(|lease| Address {
                mac: self.mac.clone(),
                ip: lease.address,
            })
            .collect())
    }
}

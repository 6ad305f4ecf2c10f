//! What of a network is on this host and at libvirt.

use see_core::ledger::{CollectRequest, Looked};

use crate::error::{blocking, libvirt};
use crate::hypervisor;
use crate::residue::is_here;
use crate::residue::look::{self, extend};

/// Where a network could have left something.
pub(super) async fn look(request: &CollectRequest) -> Vec<Looked> {
    let location = request.resource.location.clone();
    let what = format!("the network at {location}");
    let looked = Looked::clear(&*what);
    let at_libvirt = match hypervisor::open(request).await {
        Ok(connection) => match connection.network(&request.resource.name).await {
            Ok(_) => looked.with([what]),
            Err(error) if error.is_no_network() => looked,
            Err(error) => looked.ended_by(&libvirt(error)),
        },
        Err(error) => looked.ended_by(&error),
    };
    let mut looked = vec![at_libvirt];
    if is_here(&location) {
        let request = request.clone();
        let here = blocking("look at the host", move || Ok(look::network(&request))).await;
        extend(&mut looked, here);
    }
    looked
}

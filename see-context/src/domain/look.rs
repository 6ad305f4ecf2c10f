//! What of a domain is on this host and at libvirt.

use std::path::Path;

use see_core::ledger::{CollectRequest, Looked};
use see_libvirt::Connection;

use crate::driver::Driver;
use crate::error::{blocking, libvirt};
use crate::hypervisor;
use crate::residue::is_here;
use crate::residue::look::{self, extend};

/// Where a domain could have left something.
pub(super) async fn look(request: &CollectRequest) -> Vec<Looked> {
    let location = request.resource.location.clone();
    let mut looked = Vec::new();
    let what = format!("the domain at {location}");
    if location.starts_with('/') {
        // What runs in the root of a process that is gone is found among the processes.
        if let Some(connection) = Connection::embedded_on(Path::new(&location)) {
            looked.push(at_libvirt(what, &connection, request).await);
        }
    } else {
        looked.push(match hypervisor::open(request).await {
            Ok(connection) => at_libvirt(what, &connection, request).await,
            Err(error) => Looked::clear(what).ended_by(&error),
        });
    }
    if !is_here(&location) {
        if Driver::of(&location).folders.is_some() {
            let what = format!("the files of the hypervisor at {location}");
            looked.push(Looked::clear(what).denied("they are on another host"));
        }
        return looked;
    }
    let request = request.clone();
    let here = blocking("look at the host", move || Ok(look::domain(&request))).await;
    extend(&mut looked, here);
    looked
}

/// Whether libvirt knows it.
async fn at_libvirt(what: String, connection: &Connection, request: &CollectRequest) -> Looked {
    let looked = Looked::clear(&*what);
    match connection.domain_by_name(&request.resource.name).await {
        Ok(_) => looked.with([what]),
        Err(error) if error.is_no_domain() => looked,
        Err(error) => looked.ended_by(&libvirt(error)),
    }
}

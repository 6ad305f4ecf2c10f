//! What of a domain or network is on this host: among the processes, and in the files that libvirt and the programs that
//! it starts keep.

use see_core::ledger::{CollectRequest, Looked};
use see_core::{Error, ErrorKind, Result};

use super::traces::Traces;
use super::{bridge, emulator, is_of_this_user, places};
use crate::driver::driver_of;

/// Why something that is there may stay.
const ROOTS: &str = "it is root's: only root may look there, and remove it";

/// Adds what was found on this host.
pub(crate) fn extend(looked: &mut Vec<Looked>, here: Result<Vec<Looked>>) {
    match here {
        Ok(here) => looked.extend(here),
        Err(error) => looked.push(Looked::clear("what is on this host").ended_by(&error)),
    }
}

/// Files of which it is not known where they are.
fn not_found(what: impl Into<String>, error: &Error) -> Looked {
    let looked = Looked::clear(what);
    match error.kind() {
        ErrorKind::PermissionDenied => looked.denied(ROOTS),
        _ => looked.failed(error.chain()),
    }
}

/// Adds what was found in one of several places of the same kind.
fn add(looked: &mut Vec<Looked>, found: Looked, of_user: bool) {
    let found = match found.is_clear() || of_user {
        true => found,
        false => Looked {
            denied: Some(ROOTS.to_owned()),
            ..found
        },
    };
    match looked.iter_mut().find(|looked| looked.what == found.what) {
        Some(same) => {
            same.found.extend(found.found);
            same.denied = same.denied.take().or(found.denied);
            same.failed = same.failed.take().or(found.failed);
        }
        None => looked.push(found),
    }
}

/// What a look gave.
fn told<T>(what: &str, found: Result<Vec<T>>, name: impl Fn(T) -> String) -> Looked {
    match found {
        Ok(found) => Looked::clear(what).with(found.into_iter().map(name)),
        Err(error) => Looked::clear(what).ended_by(&error),
    }
}

/// The paths of sockets that carry a name.
fn sockets(name: &str) -> Result<Vec<String>> {
    let table = std::fs::read_to_string("/proc/net/unix").map_err(|error| {
        Error::io("the host's sockets cannot be listed", error).subject("/proc/net/unix")
    })?;
    let paths = table
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(7));
    let ours = paths.filter(|path| path.contains(name));
    Ok(ours.map(str::to_owned).collect())
}

/// What of a domain is here.
pub(crate) fn domain(request: &CollectRequest) -> Vec<Looked> {
    let (location, name) = (&request.resource.location, &request.resource.name);
    let mut looked = vec![
        told(
            "its processes",
            emulator::all_of(location, name),
            |(pid, _)| format!("process {pid}"),
        ),
        told("its open sockets", sockets(name), |path| {
            format!("socket {path}")
        }),
    ];
    let traces = match Traces::of(location) {
        Ok(traces) => traces,
        Err(error) => {
            let what = format!("the files of the hypervisor at {location}");
            looked.push(not_found(what, &error));
            return looked;
        }
    };
    let groups = traces.groups_of(driver_of(location), name);
    let groups = groups.map(|groups| {
        let each = groups.into_iter().flat_map(|(folder, groups)| {
            groups
                .into_iter()
                .map(move |group| format!("/{folder}/{group}"))
        });
        each.collect::<Vec<_>>()
    });
    looked.push(told("its control groups", groups, |path| path));
    let of_user = is_of_this_user(location);
    for place in places::of_domains(location) {
        let entries = traces.entries_of(&place, name);
        let found = told(place.what, entries, |entry| {
            format!("/{}/{entry}", place.folder)
        });
        add(&mut looked, found, of_user);
    }
    looked
}

/// What of a network is here.
pub(crate) fn network(request: &CollectRequest) -> Vec<Looked> {
    let location = &request.resource.location;
    let of_user = is_of_this_user(location);
    let mut looked = Vec::new();
    let devices = told(
        "its bridge and address server",
        bridge::left(request),
        |it| it,
    );
    add(&mut looked, devices, of_user);
    let what = "the address server's files";
    let files = match Traces::of(location) {
        Ok(traces) => {
            let bridge = bridge::name_of(request);
            told(
                what,
                traces.network_files(&request.resource.name, bridge),
                |path| path,
            )
        }
        Err(error) => not_found(what, &error),
    };
    add(&mut looked, files, of_user);
    looked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_where_this_user_may_not_remove_it_is_told_as_that() {
        let found = || Looked::clear("logs").with(["/var/log/a.log".to_owned()]);
        let mut looked = vec![Looked::clear("logs")];
        add(&mut looked, found(), true);
        assert_eq!(looked.len(), 1);
        assert_eq!(looked[0].left(), ["/var/log/a.log"]);
        let mut looked = Vec::new();
        add(&mut looked, found(), false);
        assert!(looked[0].left().is_empty() && !looked[0].is_clear());
    }

    #[test]
    fn a_look_that_failed_is_not_told_as_one_that_found_nothing() {
        let mut looked = Vec::new();
        let broken = Error::new(ErrorKind::Internal, "broken");
        extend(&mut looked, Err(broken));
        assert_eq!(looked.len(), 1);
        assert!(!looked[0].is_clear() && looked[0].left().is_empty());
    }

    #[test]
    fn a_socket_that_carries_the_name_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let name = see_core::Identifier::random().to_string();
        let path = folder.path().join(format!("{name}.sock"));
        assert_eq!(sockets(&name).unwrap(), [] as [&str; 0]);
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_eq!(sockets(&name).unwrap(), [path.to_str().unwrap()]);
    }
}

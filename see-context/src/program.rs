//! The programs of the host that are run.

use std::ffi::OsString;

/// What such a program needs of our environment, and all that it gets: people keep passwords in theirs, for run files to
/// take them from.
const NEEDED: [&str; 4] = ["PATH", "HOME", "TMPDIR", "LD_LIBRARY_PATH"];

/// The environment of a program, which then speaks English.
pub(crate) fn environment() -> impl Iterator<Item = (&'static str, OsString)> {
    let own = |name| Some((name, std::env::var_os(name)?));
    NEEDED
        .into_iter()
        .filter_map(own)
        .chain([("LC_ALL", "C".into())])
}

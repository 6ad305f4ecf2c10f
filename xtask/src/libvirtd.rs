//! What a libvirtd needs that nobody prepared the host for.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::failure::{Failure, While};

/// What the daemons have while they run. A container whose users are not the host's has to pass it.
const RUN_FOLDER: &str = "/run/libvirt";
/// A configuration that serves where there is none: root alone gets at the sockets, as the folder around them is open.
pub(crate) const OWN_CONFIGURATION: &str =
    "unix_sock_ro_perms = \"0770\"\nunix_sock_rw_perms = \"0770\"\n";

/// Makes the daemons' folder as systemd would: virtlogd, which is the first, would keep everybody else out.
pub(crate) fn open_run_folder() -> Result<(), Failure> {
    let failed = || format!("cannot make {RUN_FOLDER}");
    fs::create_dir_all(RUN_FOLDER).doing(failed())?;
    fs::set_permissions(RUN_FOLDER, fs::Permissions::from_mode(0o755)).doing(failed())
}

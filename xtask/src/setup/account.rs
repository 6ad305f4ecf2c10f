//! What a full installation of libvirt, or udev, would have put in place beside the packages.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::failure::{Failure, While};

/// The account that Debian's libvirt runs emulators as. Root's connections fail to open without it, also
/// where the emulators are to run as somebody else.
const EMULATOR: &str = "libvirt-qemu";
/// The group that may use KVM.
const KVM: &str = "kvm";
const DEADLINE: Duration = Duration::from_secs(30);

/// Whether the account is wanted and missing: only root's libvirt looks for it, and only Debian's.
pub(super) fn is_missing() -> bool {
    rustix::process::geteuid().is_root()
        && Path::new("/etc/debian_version").exists()
        && !knows("passwd", EMULATOR)
}

/// Makes the account as Debian's package of the system daemon makes it.
pub(super) fn make() -> Result<(), Failure> {
    for group in [KVM, EMULATOR] {
        let mut groupadd = Command::new("groupadd");
        groupadd.args(["--system", "--force", group]);
        command::output(&mut groupadd, DEADLINE)?;
    }
    let mut useradd = Command::new("useradd");
    useradd
        .args(["--system", "--gid", KVM, "--groups", EMULATOR])
        .args(["--home-dir", "/var/lib/libvirt", "--no-create-home"])
        .args(["--shell", "/usr/sbin/nologin", EMULATOR]);
    command::output(&mut useradd, DEADLINE).map(drop)
}

/// Opens /dev/kvm to its group, as udev does. Where it is closed to the emulators' account, libvirt
/// distrusts what it knows of each emulator and asks all of them again for every machine.
pub(super) fn open_kvm() -> Result<(), Failure> {
    let device = Path::new("/dev/kvm");
    let Ok(found) = fs::metadata(device) else {
        return Ok(());
    };
    if found.mode() & 0o060 == 0o060 {
        return Ok(());
    }
    let Some(group) = group_number(KVM) else {
        return Ok(());
    };
    chown(device, None, Some(group)).doing("cannot give /dev/kvm to its group")?;
    let open = fs::Permissions::from_mode(0o660);
    fs::set_permissions(device, open).doing("cannot open /dev/kvm to its group")
}

fn knows(database: &str, name: &str) -> bool {
    let mut getent = Command::new("getent");
    getent.args([database, name]);
    command::finish(&mut getent, DEADLINE).is_ok_and(|finished| finished.status.success())
}

fn group_number(name: &str) -> Option<u32> {
    let mut getent = Command::new("getent");
    getent.args(["group", name]);
    let line = command::output(&mut getent, DEADLINE).ok()?;
    line.trim().split(':').nth(2)?.parse().ok()
}

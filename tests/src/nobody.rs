//! Somebody without rights.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Home, parts};

/// An account without rights, the same everywhere.
const ACCOUNT: u32 = 65534;

/// A group that no account of this host is in, to be opened to [`Nobody`].
pub const GROUP: &str = "65533";

/// What root's tests run as an account without rights: from a home, with a folder in it that is the account's.
#[derive(Debug)]
pub struct Nobody {
    /// The home, which is root's.
    pub home: Home,
    /// The account's own folder, which others may pass.
    pub own: PathBuf,
}

impl Nobody {
    /// In this home, which others may pass.
    pub fn of(home: Home) -> Self {
        let own = home.path("own");
        std::fs::create_dir(&own).expect("the home is writable");
        chown(&own, Some(ACCOUNT), Some(ACCOUNT)).expect("these tests run as root");
        // The emulators' account passes it to the disks.
        std::fs::set_permissions(&own, PermissionsExt::from_mode(0o711)).expect("root may");
        // The checkout may lie where others may not look.
        std::fs::copy(parts::seectl(), home.path("seectl")).expect("the home is writable");
        Self { home, own }
    }

    /// `seectl` as that account, in these groups only.
    pub fn seectl(&self, groups: Option<&str>) -> Command {
        self.command(&self.home.path("seectl"), groups)
    }

    /// A program as that account, in these groups only.
    pub fn command(&self, program: &Path, groups: Option<&str>) -> Command {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={ACCOUNT}"), format!("--regid={ACCOUNT}")]);
        match groups {
            Some(groups) => command.arg(format!("--groups={groups}")),
            None => command.arg("--clear-groups"),
        };
        command.arg("--").arg(program);
        self.home.furnish(&mut command);
        command
            .current_dir(&self.own)
            .env("HOME", &self.own)
            .env("SEE_STATE_DIR", self.own.join("state"))
            .env("XDG_CACHE_HOME", self.own.join("cache"))
            .env("XDG_CONFIG_HOME", self.own.join("config"))
            .env("XDG_RUNTIME_DIR", &self.own);
        command
    }
}

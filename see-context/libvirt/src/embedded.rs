//! QEMU without a daemon: libvirt's embedded driver, and the folder it lives in.
//!
//! libvirt allows **one root for the life of a process**, also after every connection to it was
//! closed, and one process at a time for a root. So a process prepares one root and runs all its
//! domains there.
//!
//! # Rights
//! The driver runs QEMU with the rights of this process. As an ordinary user that means as that
//! user. As root libvirt would switch to a system account (`libvirt-qemu` on Debian) and re-own
//! every file it hands to QEMU, the user's images included; the root's `etc/qemu.conf` tells it
//! not to ([`EmulatorAccount::Caller`]): QEMU then has uid 0, but no capability (seen to by this
//! crate, as libvirt's own attempt fails) and libvirt's seccomp filter. It may still do what the
//! permission bits let root's files' owner do, so prefer an ordinary user where the software is
//! hostile. [`EmulatorAccount::Libvirt`] keeps libvirt's account. libvirt as root refuses to
//! start when that account does not exist, whichever is chosen.
//!
//! # Processes
//! QEMU leaves its starter and becomes an orphan, and libvirt's destroy waits until somebody has reaped it. So that
//! this does not hang on pid 1, which in a container may be a program that reaps nobody, the first
//! [`Connection::open_embedded`](crate::Connection::open_embedded) makes this process a *child subreaper*
//! (`PR_SET_CHILD_SUBREAPER`), and a thread reaps the emulators of the root: those alone, each by its pidfd. What
//! changes for a program that does this:
//!
//! - Orphans among the descendants of its other children come to it, no longer to pid 1. When they end they stay
//!   zombies until the program waits for them, or ends. `getppid` in them tells the program's pid in place of 1.
//! - It gets `SIGCHLD` for emulators that end.
//! - It may itself wait for any child (`waitpid(-1)`) if it wants to: an emulator it takes so is reaped, too.
//! - It may take the attribute back after the first open (`prctl(PR_SET_CHILD_SUBREAPER, 0)`); later opens leave it
//!   alone. Emulators started after that are pid 1's to reap, as without SEE.
//!
//! Where inotify or a thread is not to be had, a warning says so and all of it stays with pid 1.
//!
//! # The end of the process
//! libvirt's threads run until the process ends, also while it ends in the usual way: the exit handlers of the
//! libraries then take away what those threads stand on, and now and then a process crashes that had done everything.
//! A program that does not want that ends by [`end_process`].

mod cache;
mod folder;
mod open;
mod reaper;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::driver;
use crate::error::Error;

pub use self::open::opened_root;

/// Ends this process with this code at once, without the exit handlers of its libraries, where the embedded driver
/// was opened in it, or begun to be; elsewhere it returns, and the usual end is safe.
///
/// What the program has buffered, in stdout too, has to be written before.
///
/// ```no_run
/// use std::io::Write;
/// use std::process::ExitCode;
///
/// fn main() -> ExitCode {
///     // ... opens the embedded driver and runs machines there ...
///     std::io::stdout().flush().ok();
///     see_libvirt::embedded::end_process(0);
///     ExitCode::SUCCESS
/// }
/// ```
pub fn end_process(code: u8) {
    if driver::knows_embedded() {
        // SAFETY: it takes no pointer, and nothing of this process runs after it.
        unsafe { libc::_exit(code.into()) }
    }
}

/// The longest path of a root, in bytes. Unix socket paths end at 107 bytes, and libvirt puts
/// QEMU's monitor socket up to 59 bytes deep into the root. A channel without a path of its own
/// goes deeper, so shorter is better.
pub const MAX_ROOT_LENGTH: usize = 48;

/// Whose rights QEMU gets when this process is root. Without meaning otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EmulatorAccount {
    /// The caller's: uid 0, no capabilities. libvirt changes the owner of no file. QEMU reads
    /// and writes what root owns, as far as the permission bits let the owner.
    #[default]
    Caller,
    /// The system account that libvirt was built with. libvirt gives it every disk, kernel and
    /// initrd file whose XML does not say `<seclabel model='dac' relabel='no'/>`; those, and all
    /// folders above them and above the root, must be open to it by their own permissions.
    Libvirt,
}

/// The folder in which the embedded driver keeps its state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedRoot {
    path: PathBuf,
    saved: Option<PathBuf>,
}

impl EmbeddedRoot {
    /// Makes a new root at `path`, which must not exist and whose parent must. `saved` is a
    /// folder of this user that keeps what libvirt found out about the emulators: a first open
    /// without it takes seconds, each later one a fraction of a second.
    ///
    /// Blocks for some small files.
    ///
    /// # Errors
    /// `path` is relative, longer than [`MAX_ROOT_LENGTH`], exists, or cannot be made. On an
    /// error nothing is left at `path`.
    pub fn create(
        path: &Path,
        saved: Option<&Path>,
        account: EmulatorAccount,
    ) -> Result<Self, Error> {
        folder::create(path, account)
            .map_err(|cause| Error::new("prepare the embedded root", subject(path), cause))?;
        if let Some(saved) = saved {
            // A lost cache costs time only.
            if let Err(cause) = cache::seed(saved, path) {
                tracing::warn!(%cause, "libvirt will probe the emulators again");
            }
        }
        Ok(Self {
            path: path.to_owned(),
            saved: saved.map(Path::to_owned),
        })
    }

    /// A root that an earlier process left: to end what still runs there.
    ///
    /// # Errors
    /// `path` is no folder, is a link, belongs to somebody else, or is longer than
    /// [`MAX_ROOT_LENGTH`].
    pub fn existing(path: &Path) -> Result<Self, Error> {
        folder::check_existing(path)
            .map_err(|cause| Error::new("use the embedded root", subject(path), cause))?;
        Ok(Self {
            path: path.to_owned(),
            saved: None,
        })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The URI under which libvirt opens it.
    #[must_use]
    pub fn uri(&self) -> String {
        let mut uri = String::from("qemu:///embed?root=");
        percent_encode(self.path.as_os_str(), &mut uri);
        uri
    }
}

fn subject(path: &Path) -> String {
    path.display().to_string()
}

fn percent_encode(text: &OsStr, into: &mut String) {
    for &byte in text.as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_uri_escapes_what_a_query_would_misread() {
        let root = EmbeddedRoot {
            path: "/tmp/a b&c=ü".into(),
            saved: None,
        };
        assert_eq!(root.uri(), "qemu:///embed?root=/tmp/a%20b%26c%3D%C3%BC");
    }
}

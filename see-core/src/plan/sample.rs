//! The sample of a run: a file of this host that can be read.

use std::fs::{self, FileType, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use crate::{Error, ErrorKind, Result};

/// `O_NONBLOCK` of Linux: opening a pipe in place of a file waits for nobody.
const NON_BLOCKING: i32 = 0o4000;

/// Whether this is a file that can be read.
///
/// # Errors
/// [`ErrorKind::PermissionDenied`] where it may not be read, else [`ErrorKind::Configuration`]: it is not there, or
/// something else than a file.
pub(super) fn check(sample: &Path) -> Result<()> {
    let wrong = |kind, message: String| {
        Error::new(kind, message).subject(format!("sample {}", sample.display()))
    };
    let unreadable = |error: io::Error| {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            _ => ErrorKind::Configuration,
        };
        wrong(kind, format!("it cannot be read: {error}")).caused_by(error)
    };
    let found = fs::metadata(sample).map_err(unreadable)?.file_type();
    if !found.is_file() {
        let message = format!("expected a file, found {}", name_of(found));
        return Err(wrong(ErrorKind::Configuration, message));
    }
    let mut options = OpenOptions::new();
    let opened = options.read(true).custom_flags(NON_BLOCKING).open(sample);
    opened.map(drop).map_err(unreadable)
}

fn name_of(kind: FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a folder",
        _ if kind.is_fifo() => "a named pipe",
        _ if kind.is_socket() => "a socket",
        _ => "a device",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_a_configuration_error() {
        let error = check(Path::new("/dev/null")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("found a device"), "{error}");
    }

    #[test]
    fn what_may_not_be_read_is_a_missing_right() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("locked");
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        match check(&path) {
            // Root reads everything.
            Ok(()) => assert!(rustix::process::geteuid().is_root()),
            Err(error) => assert_eq!(error.kind(), ErrorKind::PermissionDenied),
        }
    }
}

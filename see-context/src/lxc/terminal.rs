//! The host's end of a container's console.

use std::fs::File;
use std::io;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::termios::OptionalActions;
use tokio::io::Join;
use tokio::net::unix::pipe;

/// The kernel's numbers for the ends of pseudo-terminals that programs use.
const PSEUDO_TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

/// A pseudo-terminal that passes every byte on as it is.
///
/// It is read and written as a pipe is, whose checked constructors would refuse a terminal.
pub(super) type Terminal = Join<pipe::Receiver, pipe::Sender>;

/// Opens the terminal at this path, which is not the guest's to choose. Needs a tokio runtime.
pub(super) fn open(path: &Path) -> io::Result<Terminal> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let found = rustix::fs::fstat(&file)?;
    let is_terminal = FileType::from_raw_mode(found.st_mode) == FileType::CharacterDevice
        && PSEUDO_TERMINALS.contains(&rustix::fs::major(found.st_rdev));
    if !is_terminal {
        return Err(io::Error::other("it is no pseudo-terminal"));
    }
    let mut settings = rustix::termios::tcgetattr(&file)?;
    settings.make_raw();
    rustix::termios::tcsetattr(&file, OptionalActions::Now, &settings)?;
    let again = file.try_clone()?;
    Ok(tokio::io::join(
        pipe::Receiver::from_file_unchecked(file)?,
        pipe::Sender::from_file_unchecked(again)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_pseudo_terminal_is_taken_for_a_console() {
        for path in ["/dev/null", "/etc/passwd", "/proc/self/fd/0", "/dev/pts"] {
            assert!(open(Path::new(path)).is_err(), "{path}");
        }
    }
}

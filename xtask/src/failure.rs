//! What a duty that did not succeed says, and the code it exits with.

use std::fmt;

/// The exit codes of `cargo xtask`.
pub(crate) mod exit_code {
    /// A duty ran and failed.
    pub(crate) const FAILED: u8 = 1;
    /// The command line was wrong; nothing was done.
    pub(crate) const USAGE: u8 = 2;
    /// Something must be done as root; the message holds the exact command.
    pub(crate) const MISSING_RIGHTS: u8 = 3;
    /// No apt here: the message names the packages to install.
    pub(crate) const INSTALL_BY_HAND: u8 = 4;
    /// Everything passed, but something of ours was left on the host.
    pub(crate) const LEFT_BEHIND: u8 = 5;
    /// A benchmark is below what was promised.
    pub(crate) const TOO_SLOW: u8 = 6;

    /// Every code with its meaning, for `--help`.
    pub(crate) const ALL: &[(u8, &str)] = &[
        (0, "done"),
        (FAILED, "the duty failed"),
        (USAGE, "wrong command line, nothing done"),
        (
            MISSING_RIGHTS,
            "needs root; the exact command to run was printed",
        ),
        (
            INSTALL_BY_HAND,
            "no apt here; the packages to install were named",
        ),
        (LEFT_BEHIND, "all passed, but something was left behind"),
        (TOO_SLOW, "a benchmark is below its promised ratio"),
    ];
}

/// Why a duty did not succeed.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: u8,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::with(exit_code::FAILED, message)
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::with(exit_code::USAGE, message)
    }

    pub(crate) fn with(exit: u8, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Says what was being done when something of the system failed.
pub(crate) trait While<T> {
    /// Turns the error into a [`Failure`] that begins with `doing`.
    fn doing(self, doing: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: fmt::Display> While<T> for Result<T, E> {
    fn doing(self, doing: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| Failure::new(format!("{doing}: {error}")))
    }
}

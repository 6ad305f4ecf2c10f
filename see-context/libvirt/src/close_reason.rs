//! Why a connection was lost.

use std::fmt;
use std::os::raw::c_int;

use virt_sys as sys;

/// Why a connection ended without being asked to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// Reading from or writing to the daemon failed.
    Error,
    /// The daemon closed its end.
    EndOfFile,
    /// The daemon answered no keep-alive request.
    KeepAlive,
    /// Our own side asked for it.
    Client,
    /// A reason this version does not know.
    Other(i32),
}

impl CloseReason {
    pub(crate) fn from_libvirt(reason: c_int) -> Self {
        match u32::try_from(reason) {
            Ok(sys::VIR_CONNECT_CLOSE_REASON_ERROR) => Self::Error,
            Ok(sys::VIR_CONNECT_CLOSE_REASON_EOF) => Self::EndOfFile,
            Ok(sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE) => Self::KeepAlive,
            Ok(sys::VIR_CONNECT_CLOSE_REASON_CLIENT) => Self::Client,
            _ => Self::Other(reason),
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "reading or writing failed",
            Self::EndOfFile => "the daemon closed it",
            Self::KeepAlive => "the daemon answered no keep-alive request",
            Self::Client => "this side closed it",
            Self::Other(reason) => return write!(f, "reason {reason}"),
        })
    }
}

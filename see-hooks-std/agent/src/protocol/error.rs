//! What can be wrong with a message.

use std::fmt;

/// A message that does not follow the protocol, or cannot be put into it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A body ends before its last field.
    Truncated,
    /// A body goes on after its last field, by this many bytes.
    Trailing(usize),
    /// No message of this kind exists in this direction.
    UnknownKind(u8),
    /// A field has a value outside its range.
    OutOfRange {
        /// The field.
        field: &'static str,
        /// What was found.
        found: u64,
        /// The largest value that is allowed.
        most: u64,
    },
    /// The message is longer than a frame can carry.
    TooLong {
        /// The length of its body in bytes.
        found: usize,
    },
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the message ends before its last field"),
            Self::Trailing(extra) => write!(f, "{extra} bytes follow the message's last field"),
            Self::UnknownKind(kind) => write!(f, "there is no message of kind {kind:#04x}"),
            Self::OutOfRange { field, found, most } => {
                write!(f, "{field} is {found}, at most {most} is allowed")
            }
            Self::TooLong { found } => write!(
                f,
                "the message takes {found} bytes, at most {} fit a frame",
                super::MAX_BODY
            ),
        }
    }
}

impl std::error::Error for ProtocolError {}

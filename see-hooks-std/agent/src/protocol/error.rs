//! What can be wrong with a message.

use std::fmt;

/// A message that does not follow the protocol, or cannot be put into it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A body is no message of this version in this direction: why.
    Malformed(String),
    /// A body goes on after its message, by this many bytes.
    Trailing(usize),
    /// No frame of this kind exists in this direction.
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
            Self::Malformed(why) => write!(f, "the message cannot be read: {why}"),
            Self::Trailing(extra) => write!(f, "{extra} bytes follow the message"),
            Self::UnknownKind(kind) => write!(f, "there is no frame of kind {kind} here"),
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

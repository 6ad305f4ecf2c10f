//! What can go wrong between the host and a guest agent.

use see_agent::protocol::{FailureCode, ProtocolError};
use see_core::ErrorKind;
use std::time::Duration;

/// A call to a guest agent that failed. Texts from the guest are escaped when displayed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The connection ended: the machine is off, or the agent closed it.
    #[error("the connection to the guest agent ended: {0}")]
    Lost(String),
    /// Another host took the agent over, or the agent was started anew: the session is gone.
    #[error("the session with the guest agent is gone: the agent was restarted or taken over")]
    NoSession,
    /// The guest broke the protocol.
    #[error("the guest agent broke its protocol: {0}")]
    Violation(String),
    /// The agent said no.
    #[error("the guest agent refused: {} ({code:?})", message.escape_debug())]
    Refused {
        /// Why.
        code: FailureCode,
        /// Why, in the guest's words.
        message: String,
    },
    /// The program has ended, and takes no more input.
    #[error("the program has ended and takes no more input")]
    Ended,
    /// The deadline passed.
    #[error("waited {waited:.1?} for {what}")]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
    /// The request does not fit the protocol.
    #[error("the request cannot be sent: {0}")]
    Unsendable(#[from] ProtocolError),
    /// A file of the host could not be read or written.
    #[error("{doing}: {message}")]
    Local {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        message: String,
    },
}

impl ClientError {
    /// Whether the agent, rather than the one call, is lost.
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_) | Self::NoSession | Self::Violation(_))
    }

    pub(super) fn local(doing: &'static str, error: &std::io::Error) -> Self {
        Self::Local {
            doing,
            message: error.to_string(),
        }
    }
}

impl From<ClientError> for see_core::Error {
    fn from(error: ClientError) -> Self {
        let kind = match &error {
            ClientError::Lost(_) | ClientError::NoSession => ErrorKind::Unavailable,
            ClientError::Violation(_) | ClientError::Refused { .. } | ClientError::Ended => {
                ErrorKind::Guest
            }
            ClientError::Timeout { .. } => ErrorKind::Timeout,
            ClientError::Unsendable(_) => ErrorKind::Configuration,
            ClientError::Local { .. } => ErrorKind::Io,
        };
        Self::new(kind, error.to_string())
    }
}

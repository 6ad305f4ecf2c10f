//! Why a guest is not ready: for programs a word, for people a sentence and what to do.

use see_core::{Error, ErrorKind, Event};
use tokio::time::Instant;

/// Why the guest is not ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    NoPower,
    NoChannel,
    NoBootOutput,
    NoLease,
    NoAgent,
    NoToken,
    WrongToken,
    BadAgent,
    Isolation,
}

impl Cause {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::NoPower => "no_power",
            Self::NoChannel => "no_channel",
            Self::NoBootOutput => "no_boot_output",
            Self::NoLease => "no_lease",
            Self::NoAgent => "no_agent",
            Self::NoToken => "no_token",
            Self::WrongToken => "wrong_token",
            Self::BadAgent => "bad_agent",
            Self::Isolation => "isolation",
        }
    }

    /// Whether waiting longer cannot help.
    pub(super) fn is_final(self) -> bool {
        matches!(
            self,
            Self::NoPower | Self::NoToken | Self::WrongToken | Self::BadAgent | Self::Isolation
        )
    }
}

/// A reason, in a word and in a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotReady {
    pub(super) cause: Cause,
    pub(super) message: String,
}

impl NotReady {
    pub(super) fn new(cause: Cause, message: impl Into<String>) -> Self {
        Self {
            cause,
            message: message.into(),
        }
    }

    /// The same with what to try, for who gives up.
    pub(super) fn with_advice(mut self) -> Self {
        let advice = match self.cause {
            Cause::NoBootOutput => {
                "either its disk holds no system that boots on this machine (an empty disk, another firmware, disk bus \
                 or architecture), or that system does not use the serial console"
            }
            Cause::NoAgent => {
                "is the agent in the image, and started when it boots? Or the system does not get that far"
            }
            _ => return self,
        };
        self.message = format!(
            "{}: {advice}. A picture of the screen tells: the hook `screen` with `\"screenshot_on_event\": \
             [\"not_ready\"]`",
            self.message
        );
        self
    }

    pub(super) fn event(&self, name: &'static str, since: Instant) -> Event {
        Event::new(name)
            .with("cause", self.cause.name())
            .with("message", self.message.clone())
            .with("seconds", since.elapsed().as_secs_f64())
    }
}

impl From<NotReady> for Error {
    fn from(why: NotReady) -> Self {
        let message = format!(
            "the guest is not ready: {} ({})",
            why.message,
            why.cause.name()
        );
        let kind = match why.cause {
            Cause::Isolation => ErrorKind::Isolation,
            _ => ErrorKind::Unavailable,
        };
        Self::new(kind, message)
    }
}

//! The states of a sandbox, and the one table of what may be done in which.

use std::fmt;

use crate::{Error, ErrorKind, Result};

/// The state of a sandbox, in libvirt's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SandboxState {
    /// Defined and not running.
    Shutoff,
    /// Running.
    Running,
    /// Suspended in memory by the host.
    Paused,
    /// On its way down after a shutdown request.
    ShuttingDown,
    /// Asleep by its own power management.
    Suspended,
    /// The guest crashed; what is left of it may still hold the machine.
    Crashed,
}

impl SandboxState {
    /// Every state.
    pub const ALL: [Self; 6] = [
        Self::Shutoff,
        Self::Running,
        Self::Paused,
        Self::ShuttingDown,
        Self::Suspended,
        Self::Crashed,
    ];

    /// Whether the machine does not run and holds no guest.
    pub fn is_off(self) -> bool {
        matches!(self, Self::Shutoff | Self::Crashed)
    }
}

impl fmt::Display for SandboxState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shutoff => "shut off",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::ShuttingDown => "shutting down",
            Self::Suspended => "suspended",
            Self::Crashed => "crashed",
        })
    }
}

/// What can be done to the power of a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transition {
    /// Start it.
    Poweron,
    /// Suspend it in memory.
    Pause,
    /// Continue it.
    Resume,
    /// Cut its power.
    Poweroff,
    /// Ask the guest to shut down.
    Shutdown,
    /// Ask the guest to restart.
    Restart,
}

impl Transition {
    /// Every transition.
    pub const ALL: [Self; 6] = [
        Self::Poweron,
        Self::Pause,
        Self::Resume,
        Self::Poweroff,
        Self::Shutdown,
        Self::Restart,
    ];

    /// Its name, as in the events `pre_NAME` and `post_NAME`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poweron => "poweron",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Poweroff => "poweroff",
            Self::Shutdown => "shutdown",
            Self::Restart => "restart",
        }
    }

    /// The names of the events before and after it.
    pub fn events(self) -> (&'static str, &'static str) {
        match self {
            Self::Poweron => ("pre_poweron", "post_poweron"),
            Self::Pause => ("pre_pause", "post_pause"),
            Self::Resume => ("pre_resume", "post_resume"),
            Self::Poweroff => ("pre_poweroff", "post_poweroff"),
            Self::Shutdown => ("pre_shutdown", "post_shutdown"),
            Self::Restart => ("pre_restart", "post_restart"),
        }
    }

    /// The states in which it is allowed: the table.
    pub fn allowed_in(self) -> &'static [SandboxState] {
        use SandboxState::{Crashed, Paused, Running, Shutoff, ShuttingDown, Suspended};
        match self {
            Self::Poweron => &[Shutoff, Crashed],
            Self::Pause => &[Running],
            Self::Resume => &[Paused, Suspended],
            Self::Poweroff => &[Running, Paused, ShuttingDown, Suspended, Crashed],
            Self::Shutdown | Self::Restart => &[Running],
        }
    }

    /// The state that it leads to.
    pub fn leads_to(self) -> SandboxState {
        match self {
            Self::Poweron | Self::Resume | Self::Restart => SandboxState::Running,
            Self::Pause => SandboxState::Paused,
            Self::Poweroff | Self::Shutdown => SandboxState::Shutoff,
        }
    }

    /// Refuses the transition where the table does not allow it.
    ///
    /// # Errors
    /// [`ErrorKind::IllegalTransition`], naming the state and the states that allow it.
    pub fn check(self, state: SandboxState) -> Result<()> {
        let allowed = self.allowed_in();
        if allowed.contains(&state) {
            return Ok(());
        }
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        Err(Error::new(
            ErrorKind::IllegalTransition,
            format!("the machine is {state}"),
        )
        .during(self.name())
        .advice(format!("possible when it is {}", allowed.join(" or "))))
    }
}

impl fmt::Display for Transition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

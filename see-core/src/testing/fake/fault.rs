//! What goes wrong in the fake backend, and where.

use serde::Deserialize;

/// What goes wrong at a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fault {
    /// The step fails, and nothing of it is done.
    Fail,
    /// The step panics.
    Panic,
    /// The step waits for `stall` first; a stop ends the wait with an error.
    Stall,
}

/// A step at which a fault can be injected.
///
/// The first three are the resources of an allocation, in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultAt {
    /// Making the first resource.
    Disk,
    /// Making the second resource.
    Network,
    /// Making the third resource.
    Domain,
    /// [`Driver::state`].
    State,
    /// [`Driver::start`].
    Start,
    /// [`Driver::destroy`].
    Destroy,
    /// [`Driver::suspend`].
    Suspend,
    /// [`Driver::resume`].
    Resume,
    /// [`Driver::shutdown`].
    Shutdown,
    /// [`Driver::reboot`].
    Reboot,
    /// [`Driver::addresses`].
    Addresses,
    /// [`Driver::release`].
    Release,
    /// Removing the first resource: another folder stands in its place, which no collector removes.
    Removal,
    /// [`Isolation::check`], which fails as a broken wall does.
    Walls,
}

impl FaultAt {
    /// The steps of an allocation.
    pub const ALLOCATION: [Self; 3] = [Self::Disk, Self::Network, Self::Domain];

    pub(super) fn folder(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Network => "network",
            _ => "domain",
        }
    }
}

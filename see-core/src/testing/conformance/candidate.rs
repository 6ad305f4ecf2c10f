//! What the suite has to know of a backend that it cannot find out.

use async_trait::async_trait;
use std::time::Duration;

use serde_json::Value;

use crate::ledger::Resource;
use crate::{Identifier, Machine, Registries, Result};

/// A backend that stands for the suite, with what a stranger cannot know of it.
#[async_trait]
pub trait Candidate: std::fmt::Debug + Send + Sync {
    /// Registries that know the backend and its collectors, and image providers if it needs them.
    ///
    /// # Errors
    /// What the registries refuse: the suite then fails.
    fn registries(&self) -> Result<Registries>;

    /// A `context` section that makes the smallest machine, and names the backend; paths are absolute.
    fn context(&self) -> Value;

    /// What is left of an environment on this host, one line for each thing: an empty list is the proof
    /// that nothing is. Look wherever the backend makes something.
    async fn remains(&self, identifier: Identifier) -> Vec<String>;

    /// Sections that are malformed in ways of the backend's own, beside those that the suite finds: a key
    /// that nobody knows, and values of the wrong type.
    fn malformed(&self) -> Vec<Value> {
        Vec::new()
    }

    /// How many environments are allocated at once. 4.
    fn parallel(&self) -> usize {
        4
    }

    /// How long a single step may take, an allocation say, before it counts as hung. One minute.
    fn patience(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Whether the guest follows a request to shut down. By default it does not: machines without an
    /// operating system have nothing that would.
    fn obeys_shutdown(&self) -> bool {
        false
    }

    /// Brings a running machine to where its abilities can be shown and it would obey, and waits for it; by default, that is
    /// at once.
    ///
    /// # Errors
    /// When that does not work: the abilities then count as failed.
    async fn settle(&self, machine: &Machine) -> Result<()> {
        let _ = machine;
        Ok(())
    }

    /// Makes the guest in a running machine do this by itself; `None` where the candidate cannot.
    async fn provoke(&self, machine: &Machine, act: GuestAct) -> Option<Result<()>> {
        let _ = (machine, act);
        None
    }

    /// Ends a running machine behind the backend's back, as the host's administrator or its lack of memory
    /// would; `None` where the candidate cannot.
    async fn kill(&self, machine: &Machine) -> Option<Result<()>> {
        let _ = machine;
        None
    }

    /// Makes something that is not ours and has the name of a planned resource, such as a domain; `None`
    /// for kinds that the candidate cannot make. Files and folders the suite makes by itself.
    async fn plant(&self, resource: &Resource) -> Option<Result<Box<dyn Stranger>>> {
        let _ = resource;
        None
    }
}

/// What a guest does to its own power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestAct {
    /// It switches itself off.
    Poweroff,
    /// It crashes.
    Crash,
    /// It restarts.
    Reboot,
}

impl GuestAct {
    pub(super) const ALL: [Self; 3] = [Self::Poweroff, Self::Crash, Self::Reboot];

    /// The event that an environment posts for it.
    pub(super) fn event(self) -> &'static str {
        match self {
            Self::Poweroff => "guest_poweroff",
            Self::Crash => "guest_crash",
            Self::Reboot => "guest_reboot",
        }
    }
}

/// Something on the host that is not ours, under a name that an allocation plans to use.
#[async_trait]
pub trait Stranger: Send + Sync {
    /// What is wrong with it: `None` while it is as it was made.
    async fn harm(&self) -> Option<String>;

    /// Removes it again.
    ///
    /// # Errors
    /// When that does not work.
    async fn remove(self: Box<Self>) -> Result<()>;
}

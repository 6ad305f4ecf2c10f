//! What a machine is able to do, by what was made for it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use see_core::GuestChannel;
use tokio::task::AbortHandle;

use crate::network::Attachment;

/// What the resources of a sandbox make it able to do.
#[derive(Default)]
pub(crate) struct Abilities {
    /// The way to the agent that needs no network.
    pub(crate) channel: Option<Arc<dyn GuestChannel>>,
    /// The file that the guest's console is written to.
    pub(crate) console: Option<PathBuf>,
    /// The files and folders of this host that grow as the guest writes.
    pub(crate) disks: Vec<PathBuf>,
    /// The volumes of another host that grow as the guest writes.
    pub(crate) volumes: Vec<see_libvirt::Volume>,
    /// How it is connected.
    pub(crate) network: Attachment,
    /// Paths that the hypervisor opens, for advice when it is refused.
    pub(crate) opened: Vec<PathBuf>,
    /// What goes on as long as there is the sandbox, or its allocation.
    pub(crate) tasks: Vec<Task>,
}

/// A task that ends with its owner, whatever becomes of that.
#[derive(Debug)]
pub(crate) struct Task(AbortHandle);

impl Task {
    /// Begins it. Needs a tokio runtime.
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(work).abort_handle())
    }

    pub(super) fn end(&self) {
        self.0.abort();
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for Abilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Abilities")
            .field("channel", &self.channel.is_some())
            .field("console", &self.console)
            .field("disks", &self.disks)
            .field("volumes", &self.volumes)
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn what_goes_on_beside_an_allocation_ends_with_it_where_it_fails() {
        let (held, ended) = tokio::sync::oneshot::channel::<()>();
        let mut abilities = Abilities::default();
        abilities.tasks.push(Task::spawn(async move {
            let _held = held;
            std::future::pending().await
        }));
        drop(abilities);
        let ended = tokio::time::timeout(Duration::from_secs(60), ended).await;
        assert!(ended.expect("the task has ended").is_err());
    }
}

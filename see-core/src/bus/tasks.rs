//! What belongs to one owner of an environment, a hook say, and ends with it: its handlers and tasks.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::bounded::{Bounded, Crew};
use crate::StopToken;
use crate::mishap::{MishapKind, Mishaps};

/// How long aborted tasks are waited for.
const ABORTED: Duration = Duration::from_secs(1);

/// The tasks of one owner: counted, bounded, joined at the end or aborted.
#[derive(Clone)]
pub(crate) struct Tasks {
    set: Arc<Bounded<JoinSet<()>>>,
    runtime: Handle,
    mishaps: Arc<Mishaps>,
    stop: StopToken,
}

impl Crew for JoinSet<()> {
    fn sweep(&mut self) {
        while self.try_join_next().is_some() {}
    }

    fn count(&self) -> usize {
        self.len()
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").finish_non_exhaustive()
    }
}

impl Tasks {
    pub(crate) fn new(runtime: Handle, mishaps: Arc<Mishaps>, stop: StopToken) -> Self {
        Self {
            set: Arc::new(Bounded::new(JoinSet::new())),
            runtime,
            mishaps,
            stop,
        }
    }

    pub(crate) fn stop(&self) -> &StopToken {
        &self.stop
    }

    /// Spawns unless `limit` tasks of this owner are running; says whether it did.
    pub(crate) fn spawn_within(
        &self,
        limit: usize,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        self.set.admit(limit, |set| {
            set.spawn_on(task, &self.runtime);
        })
    }

    pub(crate) fn record(&self, event: &str, owner: &str, what: MishapKind) {
        self.mishaps.record(event, owner, what);
    }

    /// Waits until every task ended, or aborts what is left at the deadline, and waits a moment until that is gone: one
    /// that does not yield is left behind, since nobody can wait for its end. Returns how many were aborted.
    pub(crate) async fn finish(&self, deadline: Instant) -> usize {
        let Some(mut set) = self.set.close() else {
            return 0;
        };
        let joined =
            tokio::time::timeout_at(deadline, async { while set.join_next().await.is_some() {} });
        if joined.await.is_ok() {
            return 0;
        }
        let left = set.len();
        set.abort_all();
        // What they hold is let go of when they are dropped.
        let ended = async { while set.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(ABORTED, ended).await;
        left
    }
}

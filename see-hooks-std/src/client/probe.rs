//! Having the guest try what is to be closed to it.

use super::{Client, ClientError};
use see_agent::protocol::{Finding, MAX_TARGETS, Probe, ProbeTarget, Reply, Request};
use std::time::Duration;
use tokio::task::JoinSet;

/// How many requests are under way at once. The agent tries all targets of each at once, so that as many times
/// [`MAX_TARGETS`] take about the time of one target; a small guest has no room for more threads.
const AT_ONCE: usize = 4;
/// How many waits for an answer a target may cost: an echo request takes the time of a process more.
const WAITS: u32 = 4;
/// What a request may take beyond its waits, in a guest that is busy or whose links are still being set up.
const SLACK: Duration = Duration::from_secs(20);

impl Client {
    /// Has the agent try each target and wait `patience` for its answer; gives what came of them, in
    /// their order.
    ///
    /// # Errors
    /// When the agent is lost, does not know how, or is much slower than it may be.
    pub async fn probe(
        &self,
        targets: &[ProbeTarget],
        patience: Duration,
    ) -> Result<Vec<Finding>, ClientError> {
        let mut all = Vec::with_capacity(targets.len());
        for targets in targets.chunks(MAX_TARGETS * AT_ONCE) {
            let mut asked = JoinSet::new();
            for (number, targets) in targets.chunks(MAX_TARGETS).enumerate() {
                let (client, targets) = (self.clone(), targets.to_vec());
                asked.spawn(async move { (number, client.probe_at_once(targets, patience).await) });
            }
            let mut findings = asked.join_all().await;
            findings.sort_by_key(|(number, _)| *number);
            for (_, findings) in findings {
                all.extend(findings?);
            }
        }
        Ok(all)
    }

    /// The same of as many targets as a request takes.
    async fn probe_at_once(
        &self,
        targets: Vec<ProbeTarget>,
        patience: Duration,
    ) -> Result<Vec<Finding>, ClientError> {
        let count = targets.len();
        let probe = Request::Probe(Probe { patience, targets });
        match self.ask(probe, patience * WAITS + SLACK).await? {
            Reply::Probed(findings) if findings.len() == count => Ok(findings),
            Reply::Probed(_) => Err(self
                .link
                .violated("it tells of other targets than it was given")),
            other => Err(self.link.unexpected(other)),
        }
    }
}

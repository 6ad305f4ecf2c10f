//! Having the guest try what is to be closed to it.

use super::{Client, ClientError, unexpected};
use see_agent::protocol::{Finding, MAX_TARGETS, Probe, ProbeTarget, Reply, Request};
use std::time::Duration;

/// How many waits for an answer a target may cost: a server of names is asked twice, an echo request
/// takes the time of a process more.
const WAITS: u32 = 4;
/// How many times over the agent works through what one request may hold.
const ROUNDS: u32 = 2;
/// What a request may take beyond its waits, in a guest that is busy.
const SLACK: Duration = Duration::from_secs(15);

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
        let deadline = patience * WAITS * ROUNDS + SLACK;
        let mut all = Vec::with_capacity(targets.len());
        for targets in targets.chunks(MAX_TARGETS) {
            let probe = Probe {
                patience,
                targets: targets.to_vec(),
            };
            match self.ask(Request::Probe(probe), deadline).await? {
                Reply::Probed(findings) if findings.len() == targets.len() => all.extend(findings),
                Reply::Probed(_) => {
                    let message = "the agent tells of other targets than it was given";
                    return Err(ClientError::Violation(message.to_owned()));
                }
                other => return Err(unexpected(other)),
            }
        }
        Ok(all)
    }
}

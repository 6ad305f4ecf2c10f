//! Keeping the agent of a guest that goes on: it is looked for again each time when it was lost.

use super::guest::{Guest, Way};
use super::readiness::{CALL, LOOK, Search, reason_of};
use crate::client::{Client, ClientError};
use std::time::Duration;
use tokio::time::Instant;

/// How often an agent that is ready is pinged: one that was restarted behind a guest channel is noticed by that, and
/// over TCP it closes a connection that is silent for fifteen minutes.
const PING_AGAIN: Duration = Duration::from_secs(30);

/// Looks for the agent each time when it was lost, until it is not found any more.
pub(super) async fn stay(guest: &Guest, mut way: Way) {
    let mut rest = LOOK;
    while let Way::Agent(client) = way {
        let found = Instant::now();
        let why = until_lost(&client).await;
        drop(client);
        // A guest that greets and leaves again and again keeps nobody busy.
        match found.elapsed() < PING_AGAIN {
            true => tokio::time::sleep(rest).await,
            false => rest = LOOK,
        }
        rest = CALL.min(rest * 2);
        if !guest.looks_again() {
            return;
        }
        tracing::warn!("the guest's agent is looked for again: {why}");
        let found = match why {
            // A guest that lies to its host once is not asked again.
            ClientError::Violation(_) => Err(reason_of(&why)),
            _ => Search::new(guest).agent().await,
        };
        way = match found {
            Ok(way) => way,
            Err(why) => return guest.never_is_ready(why.with_advice()),
        };
        guest.is_ready(way.clone());
    }
}

/// Waits until the agent is lost, asking it now and then whether it is there. One that is slow, or paused, is not lost.
async fn until_lost(client: &Client) -> ClientError {
    loop {
        tokio::select! {
            why = client.lost() => return why,
            () = tokio::time::sleep(PING_AGAIN) => drop(client.ping(CALL).await),
        }
    }
}

//! The agent of a guest from its boot on: it is looked for, and again each time when it was lost.

use super::guest::{Guest, Way};
use super::readiness::{CALL, LOOK, Search, look, reason_of};
use crate::client::{Client, ClientError};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often an agent that is ready is pinged: one that was restarted behind a guest channel is noticed by that, and
/// over TCP it closes a connection that is silent for fifteen minutes.
const PING_AGAIN: Duration = Duration::from_secs(30);

/// The guest boots: looks for its agent, in place of whatever was looked for before.
pub(super) fn begin(guest: &Arc<Guest>) {
    let boot = guest.boots();
    let looking = Arc::clone(guest);
    guest.context().spawn(async move {
        let guest = &looking;
        tokio::select! {
            biased;
            () = guest.context().stop_token().stopped() => {}
            () = guest.boots_anew(boot) => {}
            () = attend(guest) => {}
        }
    });
}

/// Looks for the agent, tells the guest's address, and looks for the agent again each time when it was lost.
async fn attend(guest: &Guest) {
    let mut search = Search::new(guest);
    if let Some(way) = look(&mut search).await {
        tokio::join!(search.tell_address(), stay(guest, way));
    }
}

/// Looks for the agent each time when it was lost, until it is not found any more.
async fn stay(guest: &Guest, mut way: Way) {
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

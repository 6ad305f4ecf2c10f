//! The guest as the hook knows it: whether somebody in it answers, and how.

use super::CommandsConfiguration;
use super::not_ready::{Cause, NotReady};
use super::python_agent::PythonAgent;
use crate::client::Client;
use see_core::{Context, Error, ErrorKind, Event, Result};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::watch;

/// What the tasks of one hook share.
#[derive(Debug)]
pub(super) struct Guest {
    configuration: CommandsConfiguration,
    context: Context,
    /// How long its becoming ready takes at most.
    patience: Duration,
    reach: watch::Sender<Reach>,
    /// Counts the boots, so that looking for one agent ends when the next boot begins.
    boots: watch::Sender<u64>,
    address: watch::Sender<Option<IpAddr>>,
    /// What came of trying the walls, in the first boot in which that was done to its end. Later a sample may
    /// have run, and then nothing that the guest says proves anything.
    walls: OnceLock<Result<(), NotReady>>,
}

/// Whether somebody in the guest answers.
#[derive(Debug, Clone)]
enum Reach {
    /// The machine was not powered on, or is off again.
    Off,
    /// It boots, or its agent was lost and is looked for again.
    Looking,
    /// Somebody does.
    Ready(Way),
    /// Nobody did in time.
    Never(NotReady),
}

/// How commands reach the guest.
#[derive(Debug, Clone)]
pub(super) enum Way {
    /// SEE's agent.
    Agent(Client),
    /// python-see's agent.
    Python(Arc<PythonAgent>),
    /// Nobody is there to take commands, as configured.
    Nobody,
}

impl Guest {
    pub(super) fn new(
        configuration: CommandsConfiguration,
        context: &Context,
        patience: Duration,
    ) -> Self {
        Self {
            configuration,
            context: context.clone(),
            patience,
            reach: watch::Sender::new(Reach::Off),
            boots: watch::Sender::new(0),
            address: watch::Sender::new(None),
            walls: OnceLock::new(),
        }
    }

    pub(super) fn configuration(&self) -> &CommandsConfiguration {
        &self.configuration
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    /// The guest boots, with nobody in it yet; gives the number of the boot.
    pub(super) fn boots(&self) -> u64 {
        self.address.send_replace(None);
        self.reach.send_replace(Reach::Looking);
        let mut number = 0;
        self.boots.send_modify(|boots| {
            *boots += 1;
            number = *boots;
        });
        number
    }

    /// The number of this boot, or of the time without power after it.
    pub(super) fn boot(&self) -> u64 {
        *self.boots.borrow()
    }

    /// Waits until that number is another one.
    pub(super) async fn boots_anew(&self, boot: u64) {
        // The sender is this guest's own.
        let _ = self.boots.subscribe().wait_for(|now| *now != boot).await;
    }

    /// Nobody is in the guest any more.
    pub(super) fn is_gone(&self) {
        self.boots.send_modify(|boots| *boots += 1);
        self.reach.send_replace(Reach::Off);
    }

    /// The guest switched itself off. While its agent is looked for, that look tells so itself.
    pub(super) fn ended_by_itself(&self) {
        self.reach.send_if_modified(|reach| {
            let was_ready = matches!(reach, Reach::Ready(_));
            if was_ready {
                *reach = Reach::Off;
            }
            was_ready
        });
    }

    /// Somebody else knows the guest's address.
    pub(super) fn learn_address(&self, address: &str) {
        match address.parse() {
            Ok(address) => {
                self.address.send_replace(Some(address));
            }
            Err(_) => tracing::warn!(address, "`ip_address` has no address that can be used"),
        }
    }

    /// The address that somebody told, if any did since the guest booted.
    pub(super) fn told_address(&self) -> Option<IpAddr> {
        *self.address.borrow()
    }

    pub(super) fn is_ready(&self, way: Way) {
        self.reach.send_replace(Reach::Ready(way));
    }

    pub(super) fn never_is_ready(&self, why: NotReady) {
        self.reach.send_replace(Reach::Never(why));
    }

    /// The agent of a guest that goes on was lost, and is looked for again; false where the guest is known to be off.
    pub(super) fn looks_again(&self) -> bool {
        self.reach.send_if_modified(|reach| {
            let was_ready = matches!(reach, Reach::Ready(_));
            if was_ready {
                *reach = Reach::Looking;
            }
            was_ready
        })
    }

    /// What came of trying the walls around the guest in an earlier boot: a guest that had a hole is never
    /// ready, and one that had none is not asked again.
    pub(super) fn tried_walls(&self) -> Option<Result<(), NotReady>> {
        self.walls.get().cloned()
    }

    /// Keeps what came of trying the walls.
    pub(super) fn keep_tried(&self, outcome: Result<(), NotReady>) {
        // Only the look of the current boot tries them.
        let _ = self.walls.set(outcome);
    }

    /// Who answers in the guest; waits for it while it boots, and while a lost agent is looked for again.
    pub(super) async fn way(&self) -> Result<Way> {
        let mut reach = self.reach.subscribe();
        let settled = reach.wait_for(|reach| match reach {
            Reach::Ready(Way::Agent(client)) => !client.is_lost(),
            Reach::Ready(_) | Reach::Never(_) => true,
            Reach::Off | Reach::Looking => false,
        });
        let reach = match tokio::time::timeout(self.patience, settled).await {
            Ok(Ok(reach)) => reach.clone(),
            _ => Reach::Off,
        };
        match reach {
            Reach::Ready(way) => Ok(way),
            Reach::Never(why) => Err(why.into()),
            Reach::Off | Reach::Looking => Err(NotReady {
                cause: Cause::NoPower,
                message: "the machine was not powered on".to_owned(),
            }
            .into()),
        }
    }

    /// The same, once it was seen to answer: an agent that was restarted behind its port is first found again.
    pub(super) async fn answering(&self, patience: Duration) -> Result<Way> {
        let way = self.way().await?;
        match &way {
            Way::Agent(client) => match client.ping(patience).await {
                Err(error) if error.is_lost() => self.way().await,
                // One that is slow is for its caller to judge.
                _ => Ok(way),
            },
            _ => Ok(way),
        }
    }

    /// Posts an event that the run may wait for: when the queue is full, again until it is not.
    pub(super) async fn post_surely(&self, event: Event) {
        for _ in 0..300 {
            match self.context.post(event.clone()) {
                Err(error) if error.kind() == ErrorKind::Exhausted => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Err(error) => return not_posted(&event, &error),
                Ok(()) => return,
            }
        }
        tracing::warn!(
            event = event.name(),
            "not posted: the queue of events stays full"
        );
    }
}

fn not_posted(event: &Event, error: &Error) {
    tracing::debug!(event = event.name(), "not posted: {error}");
}

//! The walls around a run's guest: looked at during the run and after it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::bus::{Listener, Turn};
use crate::event::Value;
use crate::proof::{ISOLATION_BROKEN, ISOLATION_NOT_CHECKED, IsolationVerdict, Proof};
use crate::shared::Shared;
use crate::{Error, ErrorKind, Event, Machine, Result};

/// How often the walls are looked at, beside whenever they may have changed.
const INTERVAL: Duration = Duration::from_secs(1);
/// The longest look.
const LOOK: Duration = Duration::from_secs(15);
/// Looks in a row that may fail for other reasons than a broken wall.
const BLIND: u32 = 3;

/// A hole, or walls that changed.
#[derive(Debug)]
struct Breach {
    why: String,
    holes: Vec<String>,
}

/// The walls of one run.
#[derive(Debug)]
pub(crate) struct Walls {
    machine: Machine,
    proof: Arc<Proof>,
    not_checked: Listener,
    hole: Listener,
    broken: Option<Breach>,
    /// Why the guest could not try the walls.
    untried: Option<String>,
    /// Looks in a row that failed.
    blind: u32,
    looks: tokio::time::Interval,
}

impl Walls {
    /// Begins to listen; the first look comes with [`Self::broken`].
    pub(crate) fn watch(shared: &Shared, turn: &mut Turn) -> Self {
        let mut looks = tokio::time::interval(INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            machine: shared.machine.clone(),
            proof: Arc::clone(&shared.proof),
            not_checked: turn.listen(ISOLATION_NOT_CHECKED),
            hole: turn.listen(ISOLATION_BROKEN),
            broken: None,
            untried: None,
            blind: 0,
            looks,
        }
    }

    /// Whether the run has ended for their sake.
    pub(crate) fn have_ended_the_run(&self) -> bool {
        self.broken.is_some() || self.untried.is_some()
    }

    /// Waits until the walls are found broken, or cannot be tried; for ever where they stand. May be dropped at
    /// any time.
    pub(crate) async fn broken(&mut self) -> Error {
        loop {
            let occasion = tokio::select! {
                biased;
                Some(event) = self.hole.heard() => return self.hole_of(&event),
                Some(event) = self.not_checked.heard() => return self.could_not_be_tried(&event),
                () = changed(&self.machine) => "notification",
                _ = self.looks.tick() => "interval",
            };
            if let Err(error) = self.look().await {
                tracing::info!(occasion, "the guest's network is not closed any more");
                return self.found(error);
            }
        }
    }

    /// The hole, or the walls that could not be tried, that somebody has told of and that was not waited for.
    pub(crate) fn told(&mut self) -> Option<Error> {
        if let Some(event) = self.hole.heard_already() {
            return Some(self.hole_of(&event));
        }
        let event = self.not_checked.heard_already()?;
        Some(self.could_not_be_tried(&event))
    }

    /// Looks a last time.
    pub(crate) async fn last_look(&mut self) -> Result<()> {
        if self.broken.is_some() {
            return Ok(());
        }
        // Nobody looks again: what cannot be seen now is never seen.
        self.blind = BLIND;
        match self.look().await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.found(error)),
        }
    }

    /// What is known in the end.
    pub(crate) fn verdict(&self) -> IsolationVerdict {
        match &self.broken {
            Some(found) => IsolationVerdict::Broken {
                why: found.why.clone(),
                holes: found.holes.clone(),
            },
            None => match (self.machine.isolation(), &self.untried) {
                (None, _) => IsolationVerdict::NoWalls,
                (Some(_), Some(why)) => IsolationVerdict::Unproven { why: why.clone() },
                (Some(isolation), None) => self.proof.verdict(isolation),
            },
        }
    }

    async fn look(&mut self) -> Result<()> {
        let Some(isolation) = self.machine.isolation() else {
            return Ok(());
        };
        let looked = tokio::time::timeout(LOOK, isolation.check()).await;
        let error = match looked {
            Ok(Ok(())) => {
                self.blind = 0;
                return Ok(());
            }
            Ok(Err(error)) if error.kind() == ErrorKind::Isolation => return Err(error),
            Ok(Err(error)) => error,
            Err(_) => Error::timeout("a look at the walls around the guest", LOOK),
        };
        self.blind += 1;
        if self.blind < BLIND {
            tracing::warn!(%error, "the walls around the guest cannot be looked at");
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Isolation,
            "whether the walls around the guest stand cannot be found out",
        )
        .caused_by(error))
    }

    fn hole_of(&mut self, event: &Event) -> Error {
        let message = event.get("message").and_then(Value::as_str);
        let message = message.unwrap_or("the guest got through").to_owned();
        let holes = match event.get("holes") {
            Some(Value::Json(holes)) => holes.as_array().into_iter().flatten().collect(),
            _ => Vec::new(),
        };
        let holes = holes.into_iter().filter_map(|hole| hole.as_str());
        let holes = holes.map(str::to_owned).collect();
        self.breach(Error::new(ErrorKind::Isolation, message), holes)
    }

    fn could_not_be_tried(&mut self, event: &Event) -> Error {
        let message = event.get("message").and_then(Value::as_str);
        let message = message.unwrap_or("the guest could not try the walls around its network");
        self.untried = Some(message.to_owned());
        self.proof.end(message);
        Error::new(ErrorKind::Isolation, message.to_owned())
    }

    fn found(&mut self, error: Error) -> Error {
        self.breach(error, Vec::new())
    }

    fn breach(&mut self, error: Error, holes: Vec<String>) -> Error {
        let why = error.chain();
        self.proof.end(why.clone());
        self.broken = Some(Breach { why, holes });
        error
    }
}

/// Waits until the walls may have changed.
async fn changed(machine: &Machine) {
    match machine.isolation() {
        Some(isolation) => isolation.changed().await,
        None => std::future::pending().await,
    }
}

//! What a run may use of the host: time, room for what the guest writes, and the host's own memory,
//! processors and processes.

mod blind;
mod meter;
mod room;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

pub(crate) use self::room::Captures;

use self::meter::Metered;
use self::room::Room;
use crate::config::Size;
use crate::mishap::Mishaps;
use crate::settings::Limits;
use crate::sync::died;
use crate::{Error, ErrorKind, Machine};

/// How often is measured.
const INTERVAL: Duration = Duration::from_millis(250);

/// The limits of one run.
#[derive(Debug, Clone)]
pub struct RunLimits {
    pub(crate) time: Duration,
    others: Option<Limits>,
    results: Option<PathBuf>,
}

impl RunLimits {
    /// A run that has this much time, and no other limit.
    pub fn time(time: Duration) -> Self {
        Self {
            time,
            others: None,
            results: None,
        }
    }

    /// The limits of a context section; those of the results hold for the folder `results`.
    pub fn new(limits: &Limits, results: Option<PathBuf>) -> Self {
        Self {
            time: limits.run.0,
            others: Some(limits.clone()),
            results,
        }
    }

    /// Begins to measure: what is used already does not count.
    pub(crate) async fn watch(
        &self,
        machine: &Machine,
        captures: &Captures,
        mishaps: &Arc<Mishaps>,
    ) -> Quotas {
        let Some(limits) = &self.others else {
            return Quotas::default();
        };
        let mut rooms = vec![
            Room::of_paths("disk", machine.disks(), limits.disk.0),
            Room::of_captures(captures.clone(), limits.captures.0),
        ];
        if let Some(console) = machine.console() {
            let log = vec![console.log().to_owned()];
            rooms.push(Room::of_paths("console", log, limits.console.0));
        }
        if let Some(folder) = &self.results {
            let folder = vec![folder.clone()];
            rooms.push(Room::of_paths("results", folder, limits.results.0));
        }
        // Looking at files waits for the disk, so it has a thread of its own.
        let measured = tokio::task::spawn_blocking(move || {
            rooms.iter().for_each(Room::begin);
            Arc::new(rooms)
        });
        Quotas {
            rooms: measured.await.unwrap_or_default(),
            metered: Some(Metered::begin(machine, mishaps, limits).await),
        }
    }
}

/// What is measured during a run.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    rooms: Arc<Vec<Room>>,
    metered: Option<Metered>,
}

impl Quotas {
    /// Waits until one of the limits is reached; for ever where none is. What ended one step does not end each
    /// that follows: from then on as much may be used once more.
    pub(crate) async fn reached(&self) -> Error {
        // A hypervisor that does not answer keeps nobody from looking at the disks.
        tokio::select! {
            full = self.full() => full,
            taken = self.taken() => taken,
        }
    }

    /// Waits until the room on the disks is used up.
    async fn full(&self) -> Error {
        let mut interval = ticks();
        loop {
            interval.tick().await;
            let rooms = Arc::clone(&self.rooms);
            let looked = tokio::task::spawn_blocking(move || {
                let mut indexed = rooms.iter().enumerate();
                indexed.find_map(|(index, room)| Some((index, room.reached()?)))
            });
            match looked.await {
                Ok(Some((index, full))) => return self.rooms[index].told(full),
                Ok(None) => {}
                Err(failed) => return died(failed).during("measure the run's room on the disks"),
            }
        }
    }

    /// Waits until too much is taken of the host's memory, processors or processes.
    async fn taken(&self) -> Error {
        let mut interval = ticks();
        loop {
            interval.tick().await;
            if let Some(metered) = &self.metered
                && let Some(error) = metered.reached().await
            {
                return error;
            }
        }
    }
}

fn ticks() -> tokio::time::Interval {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// A limit that was reached.
#[derive(Debug, Clone, Copy)]
struct Full {
    /// The bytes that are used; `None` where there are too many files to count them.
    used: Option<u64>,
}

/// The error for a limit that was reached: `what` grew beyond it.
fn exceeded(what: &str, key: &str, limit: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Exhausted,
        format!("the {what} reached the limit of {limit}"),
    )
    .advice(format!("it is the key `context.limits.{key}`"))
}

/// The same for a number of bytes.
fn full(what: &str, key: &str, limit: u64) -> Error {
    exceeded(what, key, Size(limit))
}

//! The end of an environment: hooks in reverse, then the machine and all that the record names; every step even when one
//! before it failed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::bus::{EventBus, Turn};
use crate::hook::Attached;
use crate::ledger::{Collectors, Outcome, REMOVAL, Record, Resource};
use crate::mishap::MishapKind;
use crate::shared::Shared;
use crate::sync::died;
use crate::{Context, Error, ErrorKind};

/// What becomes of the sandbox.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Fate {
    /// It is released, and nothing is left.
    Released,
    /// It stays until then, without an owner.
    Kept(SystemTime),
}

/// A hook that was attached, with what belongs to it.
pub(crate) struct Resident {
    pub(crate) name: &'static str,
    /// Whether its failures are the run's.
    pub(crate) required: bool,
    pub(crate) context: Context,
    pub(crate) hook: Box<dyn Attached>,
}

/// What is taken apart at the end.
pub(crate) struct Rest {
    pub(crate) hooks: Vec<Resident>,
    /// Contexts that were given to the environment's owner.
    pub(crate) owners: Vec<Context>,
    pub(crate) stay: Stay,
    pub(crate) tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Counts an environment among those that live, until it is dropped.
#[derive(Debug)]
pub(crate) struct Stay(watch::Sender<usize>);

impl Stay {
    pub(crate) fn new(staying: &watch::Sender<usize>) -> Self {
        staying.send_modify(|count| *count += 1);
        Self(staying.clone())
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

pub(crate) async fn tear_down(
    shared: Arc<Shared>,
    bus: Arc<EventBus>,
    mut rest: Rest,
    fate: Fate,
) -> Teardown {
    let mut errors = Vec::new();
    let limits = shared.limits.clone();
    // Whoever holds the turn may finish, and what was posted is still heard; who does not finish is
    // cancelled.
    let last_turn = async {
        let mut turn = Turn::take(Arc::clone(&shared), Arc::clone(&bus)).await;
        if !shared.stop_token.is_stopped()
            && let Err(error) = turn.handle_posted().await
        {
            tracing::debug!("posted events are left: {error}");
        }
    };
    let finished = tokio::time::timeout(limits.turn, last_turn).await;
    shared.closed.store(true, Ordering::Release);
    shared.notice();
    if finished.is_err() {
        errors.push(Error::timeout("handlers that run", limits.turn).during("deallocate"));
        shared.stop();
    }
    for resident in rest.hooks.drain(..).rev() {
        let (name, required) = (resident.name, resident.required);
        for error in end_hook(resident, limits.hook).await {
            match required {
                true => errors.push(error),
                false => bus.record("cleanup", name, MishapKind::Failed(error.chain())),
            }
        }
    }
    for owner in rest.owners.drain(..).rev() {
        owner.end(limits.hook).await;
    }
    shared.stop();
    let kept = match fate {
        Fate::Released => false,
        // What cannot be said to be kept would be collected in mid-use: it is released, too.
        Fate::Kept(until) => match shared.record.keep_until(until).await {
            Ok(()) => true,
            Err(error) => {
                errors.push(error.during("keep"));
                false
            }
        },
    };
    if !kept {
        errors.extend(release(&shared, limits.release).await);
        errors.extend(remove_all(&shared.record, &shared.collectors, limits.removal).await);
    }
    for task in rest.tasks {
        task.abort();
    }
    match shared.record.close().await {
        Ok(left) if left.is_empty() || kept => {}
        Ok(left) => errors.push(
            Error::new(
                ErrorKind::Hypervisor,
                format!("{} resources could not be removed", left.len()),
            )
            .during("deallocate")
            .advice("they are in the ledger: `seectl gc` collects them"),
        ),
        Err(error) => errors.push(error),
    }
    drop(rest.stay);
    for error in &errors {
        tracing::warn!(environment = %shared.identifier, "teardown: {}", error.chain());
    }
    Teardown { errors, kept }
}

async fn end_hook(resident: Resident, limit: Duration) -> Vec<Error> {
    let mut errors = Vec::new();
    let Resident {
        name,
        required: _,
        context,
        hook,
    } = resident;
    let aborted = context.end(limit).await;
    if aborted > 0 {
        errors.push(
            Error::timeout(format!("{aborted} tasks"), limit)
                .during("cleanup")
                .subject(format!("hook {name}")),
        );
    }
    let cleanup = tokio::spawn(async move { hook.leave().await });
    let failed = match tokio::time::timeout(limit, cleanup).await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(error))) => Some(error),
        Ok(Err(failed)) => Some(died(failed)),
        Err(_) => Some(Error::timeout("the hook's cleanup", limit)),
    };
    errors.extend(failed.map(|error| error.during("cleanup").subject(format!("hook {name}"))));
    errors
}

async fn release(shared: &Arc<Shared>, limit: Duration) -> Option<Error> {
    shared.machine.is_to_end();
    match tokio::time::timeout(limit, shared.machine.release()).await {
        Ok(released) => released.err(),
        Err(_) => Some(Error::timeout("the machine's release", limit)),
    }
}

/// Removes everything that a record names, as a collection does after a crash. What failed comes back. What is at work
/// at the limit keeps the record locked until it ends, also when the record is closed.
pub(crate) async fn remove_all(
    record: &Record,
    collectors: &Collectors,
    limit: Duration,
) -> Vec<Error> {
    let each = REMOVAL.min(limit);
    let removal = async {
        let outcomes = record.collect(collectors, each).await?;
        // What was busy for a moment gets a second try; what did not end in time would take that long again.
        let failed = outcomes.iter().filter_map(|(_, outcome)| match outcome {
            Outcome::Failed(error) => Some(error.kind()),
            _ => None,
        });
        let failed: Vec<ErrorKind> = failed.collect();
        match failed.is_empty() || failed.contains(&ErrorKind::Timeout) {
            true => Ok(outcomes),
            false => record.collect(collectors, each).await,
        }
    };
    let outcomes = match tokio::time::timeout(limit, removal).await {
        Ok(Ok(outcomes)) => outcomes,
        Ok(Err(error)) => return vec![error],
        Err(_) => return vec![Error::timeout("the removal of what was made", limit)],
    };
    let failed = |(resource, outcome): (Resource, Outcome)| {
        let error = match outcome {
            Outcome::Failed(error) => error,
            Outcome::Refused(why) => Error::new(ErrorKind::Io, why),
            Outcome::Removed | Outcome::AlreadyGone | Outcome::Waiting => return None,
        };
        let name = match resource.path() {
            Some(path) => path.display().to_string(),
            None => resource.name,
        };
        Some(error.during(format!("remove the {} {name}", resource.kind)))
    };
    outcomes.into_iter().filter_map(failed).collect()
}

/// How an environment's end went.
#[derive(Debug, Default)]
pub struct Teardown {
    /// What failed, in the order in which it did. What could not be removed stays in the ledger.
    pub errors: Vec<Error>,
    /// Whether the machine stays. One that could not be kept was removed.
    pub kept: bool,
}

impl Teardown {
    /// Whether nothing is left.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }
}

//! What every allocation does: it writes down at once all that it will make, and lets what has begun come to its end.
//!
//! Each resource is a plan in a module of its own: `intents` says what it will make, `make` takes the ledger's entries
//! for that and gives what the machine needs of it. A backend is straight code over these plans. Whatever becomes of an
//! allocation, the collectors of its resources remove what was made.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::pin::pin;
use std::task::Poll;

use see_core::ledger::{Entry, Resource};
use see_core::{
    Allocation, ChangeSender, Error, ErrorKind, Identifier, ImageProgress, Result, StopToken,
};

/// Where an allocation takes place.
#[derive(Debug)]
pub(crate) struct Site<'a> {
    /// The environment, which everything is named after.
    pub(crate) identifier: Identifier,
    /// What finds the hypervisor again: its URI, or the embedded driver's folder.
    pub(crate) location: String,
    /// Looked at between long steps.
    pub(crate) stop: &'a StopToken,
    /// Told how far an image is on its way to another host.
    pub(crate) progress: &'a ImageProgress,
    /// Where the machine's driver tells of changes.
    pub(crate) changes: &'a ChangeSender,
    allocation: &'a Allocation,
}

impl<'a> Site<'a> {
    pub(crate) fn new(allocation: &'a Allocation, location: String) -> Self {
        Self {
            identifier: allocation.identifier,
            location,
            stop: &allocation.stop,
            progress: &allocation.progress,
            changes: &allocation.changes,
            allocation,
        }
    }

    /// Writes down what the plans will make, with one write for all. The entries come back in the same order.
    pub(crate) async fn intend<const N: usize>(
        &self,
        planned: [Vec<Resource>; N],
    ) -> Result<[Vec<Entry>; N]> {
        let counts = planned.each_ref().map(Vec::len);
        let all: Vec<Resource> = planned.into_iter().flatten().collect();
        let mut entries = self.allocation.record.intend(all).await?.into_iter();
        Ok(counts.map(|count| entries.by_ref().take(count).collect()))
    }
}

/// The entries of a plan that intends this many resources.
pub(crate) fn exactly<const N: usize>(entries: Vec<Entry>) -> Result<[Entry; N]> {
    <[Entry; N]>::try_from(entries).map_err(|entries| {
        let found = entries.len();
        let message = format!("a plan intended {found} resources and makes {N}");
        Error::new(ErrorKind::Internal, message)
    })
}

/// Makes the folder of an entry.
pub(crate) async fn make_folder(entry: Entry) -> Result<PathBuf> {
    match entry.create_folder().await {
        // Somebody else's.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(refused(entry, error).await),
        made => made,
    }
}

/// Strikes an entry off whose thing was refused, so that a stranger of the same name is left alone. Where the
/// answer may have been lost, the entry is left to its collector.
pub(crate) async fn refused(entry: Entry, error: Error) -> Error {
    let unknown = matches!(
        error.kind(),
        ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Internal
    );
    if !unknown && let Err(error) = entry.gone().await {
        tracing::warn!(%error, "the ledger keeps something that was never made");
    }
    error
}

/// Does both at once, each to its end: neither is cut off where the other fails or panics, since a collection that
/// begins while something is still being made would not find it.
pub(crate) async fn both<A, B>(
    one: impl Future<Output = Result<A>>,
    other: impl Future<Output = Result<B>>,
) -> Result<(A, B)> {
    match tokio::join!(caught(one), caught(other)) {
        (Err(panic), _) | (_, Err(panic)) => resume_unwind(panic),
        (Ok(Err(one)), Ok(Err(other))) => {
            // A stop beside a failure is not what went wrong.
            let (error, other) = match one.kind() {
                ErrorKind::Stopped => (other, one),
                _ => (one, other),
            };
            tracing::warn!(%other, "something else failed as well");
            Err(error)
        }
        (Ok(Err(error)), Ok(Ok(_))) | (Ok(Ok(_)), Ok(Err(error))) => Err(error),
        (Ok(Ok(one)), Ok(Ok(other))) => Ok((one, other)),
    }
}

/// The output of a future, or its panic.
async fn caught<T>(work: impl Future<Output = T>) -> std::thread::Result<T> {
    let mut work = pin!(work);
    std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(done)) => Poll::Ready(Ok(done)),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_failure_is_told_rather_than_a_stop_beside_it() {
        let stopped = || async { Err::<(), _>(Error::stopped("allocate")) };
        let failed = || async { Err::<(), _>(Error::new(ErrorKind::Hypervisor, "it fails")) };
        for outcome in [
            both(stopped(), failed()).await,
            both(failed(), stopped()).await,
        ] {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Hypervisor);
        }
    }

    #[tokio::test]
    async fn what_goes_on_beside_a_failure_or_a_panic_comes_to_its_end() {
        async fn fails(panics: bool) -> Result<()> {
            assert!(!panics, "it panics");
            Err(Error::new(ErrorKind::Hypervisor, "it fails"))
        }
        for panics in [false, true] {
            let ended = AtomicBool::new(false);
            let slow = async {
                tokio::task::yield_now().await;
                ended.store(true, Ordering::SeqCst);
                Ok(())
            };
            let outcome = caught(both(fails(panics), slow)).await;
            assert_eq!(outcome.is_err(), panics);
            assert!(
                outcome
                    .unwrap_or(Err(Error::stopped("it panicked")))
                    .is_err()
            );
            assert!(ended.load(Ordering::SeqCst));
        }
    }
}

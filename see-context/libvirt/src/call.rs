//! Running libvirt's blocking calls beside async code: bounded in number and in time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::error::{Cause, Error};

/// How many calls of one connection may be under way at once. A call beyond that waits for a
/// place, within its own time. A daemon serves five requests of a client at once, keep-alive ones among
/// them (`max_client_requests`): with all five taken by calls that hang, the connection would be
/// taken for dead.
pub(crate) const CALLS_AT_ONCE: usize = 4;

/// The places for calls under way, one set a connection.
pub(crate) type Places = Arc<Semaphore>;

/// Runs `work` on a blocking thread and waits for it, `limit` at most.
///
/// A call that outlives its time keeps its thread and place until it ends, and its result is
/// dropped: libvirt cannot cancel it.
pub(crate) async fn call<T, F>(
    places: &Places,
    limit: Duration,
    operation: &'static str,
    subject: impl Into<String>,
    work: F,
) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Cause> + Send + 'static,
{
    let started = Instant::now();
    let outcome = async {
        let place = tokio::time::timeout(limit, Arc::clone(places).acquire_owned())
            .await
            .map_err(|_| Cause::TimedOut {
                after: started.elapsed(),
                waiting_for: "other calls of this connection to end",
            })?
            .map_err(|_| Cause::Aborted("the connection is closed".into()))?;
        let running = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(place);
            result
        });
        let remaining = limit.saturating_sub(started.elapsed());
        match tokio::time::timeout(remaining, running).await {
            Ok(Ok(result)) => result,
            Ok(Err(join)) => Err(Cause::Aborted(join.to_string())),
            Err(_) => Err(Cause::TimedOut {
                after: started.elapsed(),
                waiting_for: "libvirt's answer",
            }),
        }
    }
    .await;
    outcome.map_err(|cause| Error::new(operation, subject, cause))
}

/// Runs `work` where blocking is allowed, without waiting for it: for releases in `drop`.
pub(crate) fn release<F: FnOnce() + Send + 'static>(work: F) {
    match tokio::runtime::Handle::try_current() {
        // A runtime that is shutting down drops the closure unrun; what it owns is then released
        // by the closure's own drop.
        Ok(runtime) => drop(runtime.spawn_blocking(work)),
        Err(_) => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn work_that_outlives_its_time_is_reported_and_still_ends() {
        let places: Places = Arc::new(Semaphore::new(1));
        let (let_go, held) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel();
        let error = call(
            &places,
            Duration::from_millis(20),
            "hold",
            "a place",
            move || {
                let result = held.recv_timeout(LONG);
                ended
                    .send(result)
                    .map_err(|e| Cause::Aborted(e.to_string()))
            },
        )
        .await
        .unwrap_err();
        assert!(error.is_timed_out(), "{error}");

        // Its place is taken until then, and the next call says so.
        let error = call(
            &places,
            Duration::from_millis(20),
            "have",
            "a place",
            || Ok(()),
        )
        .await
        .unwrap_err();
        assert!(error.to_string().contains("other calls"), "{error}");

        let_go.send(()).unwrap();
        assert_eq!(end.recv_timeout(LONG), Ok(Ok(())));
        call(&places, LONG, "have", "a place", || Ok(()))
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_panic_in_the_work_is_an_error_and_frees_the_place() {
        let places: Places = Arc::new(Semaphore::new(1));
        for _ in 0..2 {
            let error = call(&places, LONG, "fail", "here", || -> Result<(), Cause> {
                panic!("on purpose")
            })
            .await
            .unwrap_err();
            assert!(matches!(error.cause(), Cause::Aborted(_)), "{error}");
        }
    }
}

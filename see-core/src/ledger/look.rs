//! A look at the host once an environment has ended: whether what was made for it is really gone.
//!
//! The ledger knows what was to be made; whether that is still there only the host can tell. So the collectors are
//! asked about every resource that was ever written down, those that were struck off included.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::collector::CollectRequest;
use super::collectors::Collectors;
use super::looked::Looked;
use super::record::Record;
use crate::Error;
use crate::sync::{died, lock};

/// The time for each resource.
const LIMIT: Duration = Duration::from_secs(15);
/// How much longer a collector is waited for, so that it can say why it was late.
const GRACE: Duration = Duration::from_secs(1);
/// The time for all of them together.
const BUDGET: Duration = Duration::from_secs(60);

/// What one environment wrote into the ledger, also after its record is gone: whoever allocates keeps one, to look
/// at the host in the end. Cheap to clone; empty until the allocation begins.
#[derive(Debug, Clone, Default)]
pub struct Trail(Arc<Mutex<Option<Record>>>);

impl Trail {
    /// One that no environment is known of yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn follow(&self, record: &Record) {
        *lock(&self.0) = Some(record.clone());
    }

    /// Looks at the host for everything that was written down, by the collectors of its kinds. It takes no longer than
    /// about a minute; what was not looked at by then has [failed](Looked::failed).
    pub async fn look(&self, collectors: &Collectors) -> Vec<Looked> {
        self.look_within(collectors, LIMIT, BUDGET).await
    }

    async fn look_within(
        &self,
        collectors: &Collectors,
        limit: Duration,
        budget: Duration,
    ) -> Vec<Looked> {
        let end = tokio::time::Instant::now() + budget;
        let record = lock(&self.0).clone();
        let Some(record) = record else {
            return Vec::new();
        };
        let mut looked: Vec<Looked> = Vec::new();
        for request in record.recorded() {
            let left = end.saturating_duration_since(tokio::time::Instant::now());
            let what = request.name();
            match one(request, collectors, left.min(limit)).await {
                Ok(found) => looked.extend(found),
                Err(error) => looked.push(Looked::clear(what).ended_by(&error)),
            }
        }
        looked.dedup();
        looked
    }
}

/// Looks for one resource, in a task of its own: whatever becomes of that, the others are looked for.
async fn one(
    mut request: CollectRequest,
    collectors: &Collectors,
    limit: Duration,
) -> Result<Vec<Looked>, Error> {
    let late = || Error::timeout("the look at the host", limit);
    if limit.is_zero() {
        return Err(late());
    }
    let collector = Arc::clone(collectors.find(&request.resource.kind)?);
    request.dry_run = true;
    request.deadline = Instant::now() + limit;
    let mut looking = tokio::spawn(async move { collector.look(&request).await });
    match tokio::time::timeout(limit + GRACE, &mut looking).await {
        Ok(looked) => looked.map_err(died),
        Err(_) => {
            looking.abort();
            Err(late())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use async_trait::async_trait;

    use crate::ledger::{Collected, Collector, Ledger, Resource};
    use crate::{ErrorKind, Identifier, Result};

    #[tokio::test]
    async fn what_was_struck_off_the_ledger_and_is_still_there_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open_blocking(folder.path().join("ledger")).unwrap();
        let identifier = Identifier::random();
        let record = ledger.begin(identifier, "test").await.unwrap();
        let trail = Trail::new();
        assert_eq!(trail.look(&Collectors::core()).await, []);
        trail.follow(&record);
        let paths = ["gone", "left"].map(|name| format!("{name}-{identifier}"));
        let resources = paths
            .each_ref()
            .map(|name| Resource::folder(folder.path(), name).unwrap());
        for entry in record.intend(resources).await.unwrap() {
            entry.create_folder().await.unwrap();
            entry.gone().await.unwrap();
        }
        std::fs::remove_dir(folder.path().join(&paths[0])).unwrap();
        assert_eq!(record.close().await.unwrap(), []);
        let looked = trail.look(&Collectors::core()).await;
        let [gone, left] = &looked[..] else {
            panic!("{looked:?}");
        };
        assert!(gone.is_clear(), "{gone:?}");
        assert!(left.left()[0].ends_with(&paths[1]), "{left:?}");
    }

    /// What a collector answers; `None`: never.
    type Answer = fn() -> Option<Result<Collected>>;

    #[derive(Debug)]
    struct Told(&'static str, Answer);

    #[async_trait]
    impl Collector for Told {
        fn kind(&self) -> &str {
            self.0
        }

        async fn collect(&self, _: &CollectRequest) -> Result<Collected> {
            match (self.1)() {
                Some(answer) => answer,
                None => std::future::pending().await,
            }
        }
    }

    /// What a look for one resource of each of these kinds gives.
    async fn looked(answers: &[(&'static str, Answer)], limit: Duration) -> Vec<Looked> {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open_blocking(folder.path().join("ledger")).unwrap();
        let record = ledger.begin(Identifier::random(), "test").await.unwrap();
        let trail = Trail::new();
        trail.follow(&record);
        let mut collectors = Collectors::core();
        for (kind, answer) in answers {
            collectors.add(Arc::new(Told(kind, *answer))).unwrap();
            let intended = record.intend([Resource::new(*kind, "one", "here")]).await;
            for entry in intended.unwrap() {
                entry.gone().await.unwrap();
            }
        }
        trail.look_within(&collectors, limit, limit).await
    }

    #[tokio::test]
    async fn only_what_this_user_has_no_right_to_is_denied_and_every_other_failed_look_counts() {
        let looked = looked(
            &[
                ("denied", || {
                    Some(Err(Error::new(ErrorKind::PermissionDenied, "injected")))
                }),
                ("unavailable", || {
                    Some(Err(Error::new(ErrorKind::Unavailable, "injected")))
                }),
                ("refused", || {
                    Some(Ok(Collected::Refused("injected".to_owned())))
                }),
                ("panics", || panic!("injected")),
                ("gone", || Some(Ok(Collected::AlreadyGone))),
            ],
            LIMIT,
        )
        .await;
        let states: Vec<_> = looked
            .iter()
            .map(|looked| (looked.denied.is_some(), looked.failed.is_some()))
            .collect();
        let (denied, failed, clear) = ((true, false), (false, true), (false, false));
        assert_eq!(
            states,
            [denied, failed, failed, failed, clear],
            "{looked:?}"
        );
    }

    #[tokio::test]
    async fn collectors_that_never_answer_hold_the_end_of_a_run_no_longer_than_all_may_together() {
        let never: Answer = || None;
        let kinds = ["a", "b", "c"].map(|kind| (kind, never));
        let looked = looked(&kinds, Duration::from_millis(1)).await;
        assert_eq!(looked.len(), kinds.len());
        for looked in looked {
            assert!(looked.failed.unwrap().contains("waited"));
        }
    }

    #[test]
    fn what_this_user_may_not_remove_is_told_and_is_no_failure_of_the_run() {
        let log = Looked::clear("logs")
            .with(["a.log".to_owned()])
            .denied("only root");
        assert!(log.left().is_empty() && !log.is_clear());
    }
}

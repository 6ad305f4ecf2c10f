//! The removal of what was made, where collectors fail for a moment or do not end in time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use see_core::ledger::{
    CollectOptions, CollectRequest, Collected, Collector, Collectors, Ledger, RecordState, Resource,
};
use see_core::{AllocateOptions, EndLimits, Error, ErrorKind, Host, Registries, Result, Stop};
use tokio::sync::Semaphore;

use crate::common::{TestHost, environment, prepared, until};

/// Fails for its first calls, and afterwards waits for a permit.
#[derive(Debug)]
struct Slow {
    failures: usize,
    calls: AtomicUsize,
    permits: Semaphore,
}

#[async_trait]
impl Collector for Slow {
    fn kind(&self) -> &str {
        "slow"
    }

    async fn collect(&self, _: &CollectRequest) -> Result<Collected> {
        if self.calls.fetch_add(1, Ordering::SeqCst) < self.failures {
            return Err(Error::new(ErrorKind::Io, "it is busy for a moment"));
        }
        self.permits.acquire().await.unwrap().forget();
        Ok(Collected::Removed)
    }
}

/// The end of an environment that made something slow, removed within this time.
async fn ended(slow: &Arc<Slow>, removal: Duration) -> (Vec<ErrorKind>, TestHost) {
    let TestHost { folder, .. } = TestHost::new();
    let mut registries = Registries::new();
    registries.collectors.add(slow.clone()).unwrap();
    let ledger = Ledger::open_blocking(folder.path().join("state")).unwrap();
    let host = Host::new(registries, ledger).unwrap();
    let host = TestHost { host, folder };
    let options = AllocateOptions {
        end: EndLimits {
            removal,
            ..EndLimits::default()
        },
        ..AllocateOptions::default()
    };
    let prepared = prepared(host.fake(), Vec::new());
    let allocating = host.host.allocate(prepared, options, Stop::new());
    let mut environment = allocating.await.unwrap();
    let record = environment.context("test").record().clone();
    let resource = Resource::new("slow", "thing", "test");
    drop(record.intend_one(resource).await.unwrap());
    let teardown = environment.deallocate().await;
    let kinds = teardown.errors.iter().map(Error::kind).collect();
    (kinds, host)
}

#[tokio::test]
async fn what_nobody_could_remove_is_refused_before_it_is_made() {
    let (_host, mut environment) = environment().await;
    let record = environment.context("test").record().clone();
    let resources = [Resource::process("p"), Resource::new("odd", "o", "test")];
    let before = record.holdings();
    let refused = record.intend(resources).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(refused.message().contains("odd"), "{refused}");
    assert_eq!(record.holdings(), before);
    let teardown = environment.deallocate().await;
    assert!(teardown.is_clean(), "{teardown:?}");
}

#[tokio::test]
async fn what_was_busy_for_a_moment_is_removed_by_the_second_try() {
    for (failures, expected) in [
        (0, &[][..]),
        (1, &[]),
        (2, &[ErrorKind::Io, ErrorKind::Hypervisor]),
    ] {
        let slow = Arc::new(Slow {
            failures,
            calls: AtomicUsize::new(0),
            permits: Semaphore::new(1),
        });
        let (errors, host) = ended(&slow, Duration::from_secs(60)).await;
        assert_eq!(errors, expected, "{failures} failures");
        assert_eq!(slow.calls.load(Ordering::SeqCst), 2.min(failures + 1));
        assert_eq!(host.left(), 0);
    }
}

#[tokio::test]
async fn what_is_still_being_removed_when_the_time_is_over_keeps_its_record_locked_until_it_ends() {
    let slow = Arc::new(Slow {
        failures: 0,
        calls: AtomicUsize::new(0),
        permits: Semaphore::new(0),
    });
    let (errors, host) = ended(&slow, Duration::from_millis(100)).await;
    assert_eq!(errors, [ErrorKind::Timeout, ErrorKind::Hypervisor]);
    let state = || {
        let listed = host.host.ledger().list_blocking().unwrap();
        matches!(listed[0].state, RecordState::Alive)
    };
    assert!(state());
    slow.permits.add_permits(1);
    until("the record is left to collection", || !state()).await;

    slow.permits.add_permits(1);
    let mut collectors = Collectors::core();
    collectors.add(slow).unwrap();
    let ledger = host.host.ledger();
    let report = ledger.collect(&collectors, CollectOptions::default()).await;
    assert!(report.unwrap().is_clean());
    assert_eq!(host.left(), 0);
}

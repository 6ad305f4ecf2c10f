//! Ends that are not a plain deallocation: a panic of the owner, and a sandbox that is to stay.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, SystemTime};

use see_core::ledger::{CollectOptions, Collectors, RecordOutcome, RecordState};
use see_core::{AllocateOptions, Environment, Stop};

use crate::common::{TestHost, collect, environment, prepared};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_panic_of_the_owner_tears_everything_down_before_the_host_is_gone() {
    let host = TestHost::new();
    let (folder, ledger) = (host.folder, host.host.ledger().clone());
    let made = folder.path().join("made");
    let seen = std::cell::Cell::new(0);
    let count = || std::fs::read_dir(&made).unwrap().count();
    let fake = see_core::testing::FakeConfiguration::new(&made);
    let host = host.host;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            // As a program has them: the host lives as long as what it made, and a little longer.
            let host = host;
            let options = AllocateOptions::default();
            let allocating = host.allocate(prepared(fake, Vec::new()), options, Stop::new());
            let _environment: Environment = allocating.await.unwrap();
            seen.set(count());
            panic!("the owner gave up");
        });
    }));
    assert!(panicked.is_err());
    assert!(seen.get() > 0, "nothing was there to be torn down");
    assert_eq!(count(), 0);
    assert_eq!(ledger.list_blocking().unwrap().len(), 0);
}

#[tokio::test]
async fn a_kept_sandbox_stays_until_its_time_or_until_it_is_asked_for() {
    let (host, environment) = environment().await;
    let identifier = environment.identifier();
    let made = host.left();
    let teardown = environment.keep(SystemTime::now() + HOUR).await;
    assert!(teardown.is_clean(), "{teardown:?}");
    assert_eq!(host.left(), made);
    let listed = host.host.ledger().list_blocking().unwrap();
    assert!(
        matches!(listed[0].state, RecordState::Kept(_)),
        "{listed:?}"
    );
    let report = collect(&host).await;
    let outcome = &report.records[0].outcome;
    assert!(matches!(outcome, RecordOutcome::Kept(_)), "{report:?}");

    let options = CollectOptions {
        only: Some(identifier),
        include_kept: true,
        ..CollectOptions::default()
    };
    let collectors = Collectors::core();
    let report = host.host.ledger().collect(&collectors, options).await;
    assert!(report.unwrap().is_clean());
    assert_eq!(host.left(), 0);
}

#[tokio::test]
async fn a_kept_sandbox_whose_time_is_over_is_collected() {
    let (host, environment) = environment().await;
    environment.keep(SystemTime::now() - HOUR).await;
    assert!(collect(&host).await.is_clean());
    assert_eq!(host.left(), 0);
    assert_eq!(host.host.ledger().list_blocking().unwrap().len(), 0);
}

//! What a new run does first: it removes what dead ones left, briefly, and in nobody's way.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use see_core::ledger::{
    CollectRequest, Collected, Collector, Collectors, Ledger, RecordOutcome, Resource,
};
use see_core::{ErrorKind, Identifier, Result};
use tokio::sync::Notify;

const PATIENCE: Duration = Duration::from_secs(30);

fn ledger() -> (tempfile::TempDir, Ledger) {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let ledger = Ledger::open_blocking(scratch.path().join("see")).expect("the ledger opens");
    (scratch, ledger)
}

/// A record without an owner that names one resource of this kind.
fn orphan(ledger: &Ledger, kind: &'static str) {
    let record = ledger
        .begin_blocking(Identifier::random(), "")
        .expect("a record begins");
    let resource = Resource::new(kind, "left", "");
    drop(record.intend_one_blocking(resource).expect("an entry"));
    record.close_blocking().expect("it closes");
}

/// Takes its time until it is let go, and counts.
#[derive(Debug, Default)]
struct Slow {
    asked: AtomicUsize,
    begun: Notify,
    go: Notify,
    held: AtomicBool,
}

#[async_trait]
impl Collector for Slow {
    fn kind(&self) -> &str {
        "slow"
    }

    async fn collect(&self, _: &CollectRequest) -> Result<Collected> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.begun.notify_one();
        if self.held.load(Ordering::SeqCst) {
            self.go.notified().await;
        }
        Ok(Collected::Removed)
    }
}

fn slow(held: bool) -> (Arc<Slow>, Collectors) {
    let slow = Arc::new(Slow::default());
    slow.held.store(held, Ordering::SeqCst);
    let mut collectors = Collectors::core();
    collectors.add(slow.clone()).expect("a new kind");
    (slow, collectors)
}

#[tokio::test]
async fn tidying_removes_orphans_and_leaves_the_living_alone() {
    let (scratch, ledger) = ledger();
    let run = scratch.path().join("run");
    fs::create_dir(&run).unwrap();
    let make = |ledger: &Ledger| {
        let record = ledger.begin_blocking(Identifier::random(), "").unwrap();
        let name = record.identifier().to_string();
        let folder = Resource::folder(&run, name).unwrap();
        let entry = record.intend_one_blocking(folder).unwrap();
        let path = entry.create_folder_blocking().unwrap();
        (record, path)
    };
    let (alive, kept) = make(&ledger);
    let (dead, gone) = make(&ledger);
    dead.close_blocking().unwrap();
    let report = ledger.tidy(&Collectors::core(), PATIENCE).await.unwrap();
    assert!(report.expect("nobody else collects").is_clean());
    assert!(kept.exists() && !gone.exists());
    drop(alive);
}

#[tokio::test]
async fn a_collection_in_progress_is_not_waited_for() {
    let (_scratch, ledger) = ledger();
    orphan(&ledger, "slow");
    let (slow, collectors) = slow(true);
    let (other, lent) = (ledger.clone(), collectors.clone());
    let first = tokio::spawn(async move { other.tidy(&lent, PATIENCE).await });
    slow.begun.notified().await;
    let begin = Instant::now();
    assert!(ledger.tidy(&collectors, PATIENCE).await.unwrap().is_none());
    assert!(begin.elapsed() < PATIENCE / 2);
    slow.go.notify_one();
    assert!(first.await.unwrap().unwrap().unwrap().is_clean());
    assert_eq!(slow.asked.load(Ordering::SeqCst), 1);
    // The lock ends with the collection.
    assert!(ledger.tidy(&collectors, PATIENCE).await.unwrap().is_some());
}

#[tokio::test]
async fn a_collector_that_hangs_holds_nobody_beyond_the_time_for_tidying() {
    let (_scratch, ledger) = ledger();
    orphan(&ledger, "slow");
    orphan(&ledger, "slow");
    let (slow, collectors) = slow(true);
    // Long enough for the collector to be asked on a busy host.
    let within = Duration::from_secs(3);
    let begin = Instant::now();
    let error = ledger.tidy(&collectors, within).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(begin.elapsed() < within + PATIENCE / 2);
    // It is at work on the first still, and the second is left for later.
    assert_eq!(slow.asked.load(Ordering::SeqCst), 1);
    slow.go.notify_one();
}

#[tokio::test]
async fn without_time_every_record_is_left_for_later() {
    let (_scratch, ledger) = ledger();
    orphan(&ledger, "slow");
    let (slow, collectors) = slow(false);
    let options = see_core::ledger::CollectOptions {
        within: Some(Duration::ZERO),
        ..Default::default()
    };
    let report = ledger.collect(&collectors, options).await.unwrap();
    let outcome = &report.records[0].outcome;
    assert!(matches!(outcome, RecordOutcome::Postponed), "{report:?}");
    assert!(report.is_clean());
    assert_eq!(slow.asked.load(Ordering::SeqCst), 0);
}

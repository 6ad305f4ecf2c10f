//! Collectors that fail, hang, or meet each other.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::place::*;
use async_trait::async_trait;
use see_core::ledger::{
    CollectOptions, CollectRequest, Collected, Collector, Collectors, Details, Ledger, Outcome,
    Record, RecordOutcome, RecordReport, Resource,
};
use see_core::{Error, ErrorKind, Identifier, Result};

/// Counts its calls, and does as it is told.
#[derive(Debug)]
struct Told {
    kind: &'static str,
    calls: AtomicUsize,
    answer: fn() -> Result<Collected>,
    identities: std::sync::Mutex<Vec<Option<Details>>>,
}

fn told(kind: &'static str, answer: fn() -> Result<Collected>) -> Arc<Told> {
    Arc::new(Told {
        kind,
        calls: AtomicUsize::new(0),
        answer,
        identities: std::sync::Mutex::default(),
    })
}

#[async_trait]
impl Collector for Told {
    fn kind(&self) -> &str {
        self.kind
    }

    fn runs(&self) -> bool {
        self.kind == "domain"
    }

    async fn collect(&self, request: &CollectRequest) -> Result<Collected> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let identity = request.identity.clone();
        self.identities.lock().unwrap().push(identity);
        (self.answer)()
    }
}

#[tokio::test]
async fn a_failure_is_reported_and_stops_neither_its_record_nor_another() {
    let place = Place::new();
    let broken = place.begin();
    let folder = place.folder(&broken, "").create_folder_blocking().unwrap();
    let resources = [
        Resource::new("domain", "d", "test"),
        Resource::new("odd", "o", "test"),
        Resource::new("network", "n", "test"),
        Resource::new("panicking", "p", "test"),
    ];
    let entries = broken.intend_blocking(resources).unwrap();
    let identity = Resource::new("x", "x", "").detail("uuid", "u").details;
    entries[0].created_blocking(identity.clone()).unwrap();
    let fine = place.begin();
    place.folder(&fine, "").create_folder_blocking().unwrap();
    drop((broken, entries, fine));

    let domains = told("domain", || {
        Err(Error::new(ErrorKind::PermissionDenied, "not allowed"))
    });
    let networks = told("network", || Ok(Collected::Removed));
    let panicking = told("panicking", || panic!("a broken collector"));
    let mut collectors = Collectors::core();
    collectors.add(domains.clone()).unwrap();
    collectors.add(networks.clone()).unwrap();
    collectors.add(panicking).unwrap();
    let twice = collectors.add(networks.clone()).unwrap_err();
    assert_eq!(twice.kind(), ErrorKind::AlreadyExists);

    let report = place.collect_with(&collectors).await;
    let left: Vec<&RecordReport> = report
        .records
        .iter()
        .filter(|record| matches!(record.outcome, RecordOutcome::Left))
        .collect();
    assert_eq!((report.records.len(), left.len()), (2, 1));
    let outcomes: Vec<(&str, String)> = left[0]
        .resources
        .iter()
        .map(|(resource, outcome)| (resource.kind.as_ref(), format!("{outcome:?}")))
        .collect();
    // The machine, then the reverse of the intention.
    let kinds: Vec<&str> = outcomes.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["domain", "panicking", "network", "odd", "folder"]);
    assert!(outcomes[0].1.contains("PermissionDenied"), "{outcomes:?}");
    assert!(outcomes[1].1.contains("Internal"), "{outcomes:?}");
    assert_eq!(outcomes[2].1, "Removed");
    assert!(outcomes[3].1.contains("Unsupported"), "{outcomes:?}");
    // A machine that still runs may need its folder.
    assert_eq!(outcomes[4].1, "Waiting");
    assert!(folder.exists());
    assert_eq!(place.left().len(), 1);
    assert_eq!(*domains.identities.lock().unwrap(), [Some(identity)]);

    // Next time only what is left is tried.
    let mut able = Collectors::core();
    for kind in ["domain", "odd", "panicking"] {
        able.add(told(kind, || Ok(Collected::AlreadyGone))).unwrap();
    }
    let report = place.collect_with(&able).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(networks.calls.load(Ordering::SeqCst), 1);
    assert_eq!(place.left(), Vec::<PathBuf>::new());
    assert_eq!(place.records(), 0);
}

/// What becomes of each kind, in the order of collection, where these collectors stand beside some that succeed.
async fn collected(
    place: &Place,
    record: &Record,
    failing: impl IntoIterator<Item = Arc<Told>>,
) -> Vec<(String, bool)> {
    let mut collectors = Collectors::core();
    for collector in failing {
        collectors.add(collector).unwrap();
    }
    for kind in ["firewall", "network", "capture"] {
        let able = told(kind, || Ok(Collected::Removed));
        collectors.add(able).unwrap();
    }
    let limit = Duration::from_secs(10);
    let outcomes = record.collect(&collectors, limit).await.unwrap();
    assert_eq!(place.records(), 1);
    let gone = |(resource, outcome): &(Resource, Outcome)| {
        (resource.kind.clone().into_owned(), outcome.is_gone())
    };
    outcomes.iter().map(gone).collect()
}

fn pairs<const N: usize>(expected: [(&str, bool); N]) -> Vec<(String, bool)> {
    expected.map(|(kind, gone)| (kind.to_owned(), gone)).into()
}

#[tokio::test]
async fn a_machine_that_fails_or_refuses_to_end_keeps_what_it_stands_on_and_what_came_after_it_goes()
 {
    let answers: [fn() -> Result<Collected>; 2] = [
        || Err(Error::new(ErrorKind::Hypervisor, "it does not end")),
        || Ok(Collected::Refused("it has no label of ours".to_owned())),
    ];
    for answer in answers {
        let place = Place::new();
        let record = place.begin();
        let _folder = place.folder(&record, "").create_folder_blocking().unwrap();
        let resources = ["firewall", "network", "domain", "capture"];
        let resources = resources.map(|kind| Resource::new(kind, kind, "test"));
        drop(record.intend_blocking(resources).unwrap());
        let outcomes = collected(&place, &record, [told("domain", answer)]).await;
        let expected = [
            ("domain", false),
            ("capture", true),
            ("network", false),
            ("firewall", false),
            ("folder", false),
        ];
        assert_eq!(outcomes, pairs(expected));
    }
}

#[tokio::test]
async fn a_kind_that_nobody_knows_and_a_process_that_cannot_be_ended_keep_what_came_before() {
    for kind in ["unknown", Resource::PROCESS] {
        let place = Place::new();
        let record = place.begin();
        let resources = ["firewall", kind].map(|kind| Resource::new(kind, kind, "test"));
        let entries = record.intend_blocking(resources).unwrap();
        // No process is told by such an identity.
        let identity = Resource::new("x", "x", "").detail("uuid", "u").details;
        entries[1].created_blocking(identity).unwrap();
        let outcomes = collected(&place, &record, []).await;
        assert_eq!(outcomes, pairs([(kind, false), ("firewall", false)]));
    }
}

#[tokio::test]
async fn everything_is_removed_also_where_the_ledger_can_take_no_more_lines() {
    let place = Place::new();
    let record = place.begin();
    let folder = place.folder(&record, "").create_folder_blocking().unwrap();
    let resources = ["firewall", "network", "domain"];
    let resources = resources.map(|kind| Resource::new(kind, kind, "test"));
    let entries = record.intend_blocking(resources).unwrap();
    for length in [60_000, 5_000, 300, 0] {
        let identity = Resource::new("x", "x", "").detail("x", "x".repeat(length));
        while entries[0]
            .created_blocking(identity.details.clone())
            .is_ok()
        {}
    }
    let machine = told("domain", || Ok(Collected::Removed));
    let outcomes = collected(&place, &record, [machine]).await;
    let expected = ["domain", "network", "firewall", "folder"];
    assert_eq!(outcomes, pairs(expected.map(|kind| (kind, true))));
    assert!(!folder.exists());
    // So that a collection looks once more.
    assert_ne!(record.close().await.unwrap(), []);
    assert_eq!(place.records(), 1);
}

#[tokio::test]
async fn machines_and_processes_go_first_in_the_order_of_their_intention_and_leases_last() {
    let place = Place::new();
    let record = place.begin();
    let lease = Resource::lease(place.run(), format!("{}.lease", record.identifier())).unwrap();
    let resources = ["network", "domain", "capture", Resource::PROCESS];
    let resources = resources.map(|kind| Resource::new(kind, kind, "test"));
    drop(record.intend_blocking(resources).unwrap());
    // A hook may ask for an image of its own.
    drop(record.intend_blocking([lease]).unwrap());
    let machine = told("domain", || Ok(Collected::Removed));
    let outcomes = collected(&place, &record, [machine]).await;
    let expected = ["domain", "process", "capture", "network", "lease"];
    assert_eq!(outcomes, pairs(expected.map(|kind| (kind, true))));
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_collections_and_listings_disturb_nobody() {
    let place = Place::new();
    let alive = place.begin();
    place.folder(&alive, "").create_folder_blocking().unwrap();
    let networks = told("network", || Ok(Collected::Removed));
    let mut collectors = Collectors::core();
    collectors.add(networks.clone()).unwrap();
    const DEAD: usize = 40;
    for _ in 0..DEAD {
        let record = place.begin();
        place.folder(&record, "").create_folder_blocking().unwrap();
        drop(record.intend_blocking([Resource::new("network", "n", "")]));
    }
    let collections: Vec<_> = (0..4)
        .map(|_| {
            // Each with files of its own, as processes have.
            let ledger = Ledger::open_blocking(place.scratch.path().join("see")).unwrap();
            let collectors = collectors.clone();
            tokio::spawn(
                async move { ledger.collect(&collectors, CollectOptions::default()).await },
            )
        })
        .collect();
    let beginnings: Vec<_> = (0..20)
        .map(|_| {
            let ledger = place.ledger.clone();
            tokio::spawn(async move {
                ledger.list().await.unwrap();
                ledger.begin(Identifier::random(), "").await.unwrap()
            })
        })
        .collect();
    for collection in collections {
        let report = collection.await.unwrap().unwrap();
        assert!(report.is_clean(), "{report:?}");
    }
    for beginning in beginnings {
        let record = beginning.await.unwrap();
        assert_eq!(record.close().await.unwrap(), []);
    }
    // Whoever came first took each, once; the last may have met a lock.
    assert!(place.collect_with(&collectors).await.is_clean());
    assert_eq!(networks.calls.load(Ordering::SeqCst), DEAD);
    assert_eq!(place.left().len(), 1);
    assert_eq!(place.records(), 1);
}

#[tokio::test]
async fn what_died_before_its_record_had_a_name_is_swept_away() {
    let place = Place::new();
    let name = format!(".{}.01234567.new", Identifier::random());
    fs::write(place.ledger.path().join(name), "half a li").unwrap();
    let foreign = place.ledger.path().join("notes.txt");
    fs::write(&foreign, "mine").unwrap();
    let report = place.collect().await;
    // What is not ours is told, and is nothing that was left behind.
    assert_eq!(report.foreign, std::slice::from_ref(&foreign));
    assert!(report.is_clean(), "{report:?}");
    assert!(foreign.exists());
    assert_eq!(place.records(), 1);
}

#[tokio::test]
async fn a_collector_that_never_answers_is_left_behind_and_keeps_its_record_locked() {
    #[derive(Debug)]
    struct Silent;
    #[async_trait]
    impl Collector for Silent {
        fn kind(&self) -> &str {
            "silent"
        }
        async fn collect(&self, _: &CollectRequest) -> Result<Collected> {
            std::future::pending().await
        }
    }
    let place = Place::new();
    let record = place.begin();
    drop(record.intend_blocking([Resource::new("silent", "s", "")]));
    drop(record);
    let mut collectors = Collectors::core();
    collectors.add(Arc::new(Silent)).unwrap();
    let options = CollectOptions {
        deadline: Duration::from_millis(10),
        ..CollectOptions::default()
    };
    let report = place.ledger.collect(&collectors, options).await.unwrap();
    let outcome = &only(&report).resources[0].1;
    assert!(
        matches!(outcome, Outcome::Failed(error) if error.kind() == ErrorKind::Timeout),
        "{report:?}"
    );
    let report = place.collect_with(&collectors).await;
    assert!(matches!(only(&report).outcome, RecordOutcome::Alive));
}

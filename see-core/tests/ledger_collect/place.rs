//! A ledger of its own for each test.

use std::fs;
use std::path::PathBuf;

use see_core::Identifier;
use see_core::ledger::{
    CollectOptions, Collectors, Entry, Ledger, Outcome, Record, RecordOutcome, RecordReport,
    Report, Resource,
};

/// A ledger, and a folder for what it records.
pub(crate) struct Place {
    pub(crate) scratch: tempfile::TempDir,
    pub(crate) ledger: Ledger,
}

impl Place {
    pub(crate) fn new() -> Self {
        let scratch = tempfile::Builder::new()
            .prefix("see collect ü ")
            .tempdir()
            .expect("a scratch folder");
        fs::create_dir(scratch.path().join("run")).expect("a folder for runs");
        let ledger = Ledger::open_blocking(scratch.path().join("see")).expect("the ledger opens");
        Self { scratch, ledger }
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.scratch.path().join("run")
    }

    pub(crate) fn begin(&self) -> Record {
        self.ledger
            .begin_blocking(Identifier::random(), "")
            .expect("a record begins")
    }

    pub(crate) fn folder(&self, record: &Record, suffix: &str) -> Entry {
        let name = format!("{}{suffix}", record.identifier());
        let folder = Resource::folder(self.run(), name).expect("a folder to be");
        record.intend_one_blocking(folder).expect("an entry")
    }

    pub(crate) fn file(&self, record: &Record, suffix: &str) -> Entry {
        let name = format!("{}{suffix}", record.identifier());
        let file = Resource::file(self.run(), name).expect("a file to be");
        record.intend_one_blocking(file).expect("an entry")
    }

    pub(crate) async fn collect(&self) -> Report {
        self.collect_with(&Collectors::core()).await
    }

    pub(crate) async fn collect_with(&self, collectors: &Collectors) -> Report {
        let options = CollectOptions::default();
        let report = self.ledger.collect(collectors, options).await;
        report.expect("a report")
    }

    pub(crate) fn records(&self) -> usize {
        fs::read_dir(self.ledger.path())
            .expect("the ledger")
            .count()
    }

    pub(crate) fn left(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.run()).expect("the folder for runs");
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

pub(crate) fn only(report: &Report) -> &RecordReport {
    assert_eq!(report.records.len(), 1, "{report:?}");
    &report.records[0]
}

pub(crate) fn refused(report: &Report) -> &str {
    let record = only(report);
    assert!(matches!(record.outcome, RecordOutcome::Left), "{report:?}");
    match &record.resources[0].1 {
        Outcome::Refused(reason) => reason,
        other => panic!("expected a refusal: {other:?}"),
    }
}

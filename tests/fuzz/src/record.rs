//! The ledger's records, as a crash or another program may leave them.

use see_core::Identifier;
use see_core::ledger::{CollectOptions, Collectors, Ledger, RecordState};
use std::path::{Path, PathBuf};
use tokio::runtime::{Builder, Runtime};

/// Where the records of the corpus say that a folder lies: what is there is kept.
const NOWHERE: &[u8] = b"/nowhere";
/// The environment that the records of the corpus belong to.
const NAME: &str = "6ca14d2c-2815-45c4-884b-649bac0cab90";

/// A ledger of this thread's own, in memory where the system has a place there.
struct Books {
    ledger: Ledger,
    /// The record.
    file: PathBuf,
    /// What the records of the corpus name: it is never removed, since every collection here is a dry run.
    kept: PathBuf,
    runtime: Runtime,
    _folder: tempfile::TempDir,
}

thread_local! {
    static BOOKS: Books = Books::open();
}

impl Books {
    fn open() -> Self {
        let memory = Path::new("/dev/shm");
        let within = match memory.is_dir() {
            true => memory.to_owned(),
            false => std::env::temp_dir(),
        };
        let folder = tempfile::tempdir_in(within).expect("a temporary folder");
        let ledger = Ledger::open_blocking(folder.path().join("state")).expect("a ledger");
        let identifier: Identifier = NAME.parse().expect("it is one");
        let record = ledger.begin_blocking(identifier, "").expect("a record");
        drop(record);
        let kept = folder.path().join(format!("disk-{NAME}"));
        std::fs::create_dir(&kept).expect("the folder is writable");
        let file = format!("state/ledger/{identifier}.jsonl");
        Self {
            ledger,
            file: folder.path().join(file),
            kept,
            runtime: Builder::new_current_thread()
                .enable_time()
                .build()
                .expect("a runtime"),
            _folder: folder,
        }
    }

    /// The same record with the folder that it names where ours is.
    fn settle(&self, bytes: &[u8]) -> Vec<u8> {
        let here = self.kept.parent().expect("it lies in a folder");
        let here = here.as_os_str().as_encoded_bytes();
        let mut rest = bytes;
        let mut settled = Vec::with_capacity(bytes.len());
        while let Some(at) = rest.windows(NOWHERE.len()).position(|part| part == NOWHERE) {
            settled.extend([&rest[..at], here].concat());
            rest = &rest[at + NOWHERE.len()..];
        }
        settled.extend(rest);
        settled
    }

    fn read(&self, bytes: &[u8]) -> bool {
        std::fs::write(&self.file, self.settle(bytes)).expect("there is room");
        let listed = self.ledger.list_blocking().expect("the folder is there");
        assert_eq!(listed.len(), 1, "a record is never overlooked");
        let readable = !matches!(listed[0].state, RecordState::Broken(_));
        // Costs several times as much: only for what a collection would not give up at once.
        if readable {
            let options = CollectOptions {
                dry_run: true,
                ..CollectOptions::default()
            };
            let collectors = Collectors::core();
            let collecting = self.ledger.collect(&collectors, options);
            let report = self.runtime.block_on(collecting);
            report.expect("a broken record is reported, and no error");
            assert!(
                self.kept.is_dir() && self.file.is_file(),
                "a dry run removes nothing"
            );
        }
        readable
    }
}

/// A record: read, or told to be broken, and a dry run of a collection removes nothing.
pub(crate) fn ledger_record(bytes: &[u8]) -> bool {
    BOOKS.with(|books| books.read(bytes))
}

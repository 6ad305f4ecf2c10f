//! Collection: what is removed, what is refused, and who is left alone.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use see_core::ledger::{
    CollectOptions, CollectRequest, Collected, Collector, Collectors, Details, Entry, Ledger,
    Outcome, Record, RecordOutcome, RecordReport, Report, Resource,
};
use see_core::{Error, ErrorKind, Identifier, Result};

/// A ledger, and a folder for what it records.
struct Place {
    scratch: tempfile::TempDir,
    ledger: Ledger,
}

impl Place {
    fn new() -> Self {
        let scratch = tempfile::Builder::new()
            .prefix("see collect ü ")
            .tempdir()
            .expect("a scratch folder");
        fs::create_dir(scratch.path().join("run")).expect("a folder for runs");
        let ledger = Ledger::open_blocking(scratch.path().join("see")).expect("the ledger opens");
        Self { scratch, ledger }
    }

    fn run(&self) -> PathBuf {
        self.scratch.path().join("run")
    }

    fn begin(&self) -> Record {
        self.ledger
            .begin_blocking(Identifier::random(), "")
            .expect("a record begins")
    }

    fn folder(&self, record: &Record, suffix: &str) -> Entry {
        let name = format!("{}{suffix}", record.identifier());
        let folder = Resource::folder(self.run(), name).expect("a folder to be");
        record.intend_one_blocking(folder).expect("an entry")
    }

    fn file(&self, record: &Record, suffix: &str) -> Entry {
        let name = format!("{}{suffix}", record.identifier());
        let file = Resource::file(self.run(), name).expect("a file to be");
        record.intend_one_blocking(file).expect("an entry")
    }

    async fn collect(&self) -> Report {
        self.collect_with(&Collectors::core()).await
    }

    async fn collect_with(&self, collectors: &Collectors) -> Report {
        let options = CollectOptions::default();
        let report = self.ledger.collect(collectors, options).await;
        report.expect("a report")
    }

    fn records(&self) -> usize {
        fs::read_dir(self.ledger.path())
            .expect("the ledger")
            .count()
    }

    fn left(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.run()).expect("the folder for runs");
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

fn only(report: &Report) -> &RecordReport {
    assert_eq!(report.records.len(), 1, "{report:?}");
    &report.records[0]
}

fn refused(report: &Report) -> &str {
    let record = only(report);
    assert!(matches!(record.outcome, RecordOutcome::Left), "{report:?}");
    match &record.resources[0].1 {
        Outcome::Refused(reason) => reason,
        other => panic!("expected a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn a_folder_goes_with_all_it_holds_however_deep_and_whatever_its_modes() {
    let place = Place::new();
    let record = place.begin();
    let outside = place.scratch.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("precious"), "x").unwrap();
    let path = place.folder(&record, "").create_folder().await.unwrap();
    let mut deep = path.join("deep");
    fs::create_dir(&deep).unwrap();
    // Deeper than any path may be long, so one step at a time.
    let mut at = fs::File::open(&deep).unwrap();
    for _ in 0..1500 {
        let rwx = rustix::fs::Mode::RWXU;
        rustix::fs::mkdirat(&at, "next", rwx).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY;
        let next = rustix::fs::openat(&at, "next", flags, rustix::fs::Mode::empty()).unwrap();
        at = next.into();
    }
    deep.push("closed");
    fs::create_dir(&deep).unwrap();
    fs::write(deep.join("file"), "x").unwrap();
    fs::create_dir(deep.join("inner")).unwrap();
    fs::write(deep.join("inner/file"), "x").unwrap();
    for folder in [deep.join("inner"), deep] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o000)).unwrap();
    }
    symlink(&outside, path.join("link")).unwrap();
    symlink("nowhere", path.join("dangling")).unwrap();
    use std::os::unix::ffi::OsStrExt;
    let odd = std::ffi::OsStr::from_bytes(b"\xff\n\x1b");
    fs::create_dir(path.join(odd)).unwrap();
    fs::write(path.join(odd).join(odd), "x").unwrap();
    drop(record);

    let report = place.collect().await;
    assert!(report.is_clean(), "{report:?}");
    assert!(matches!(only(&report).outcome, RecordOutcome::Collected));
    assert_eq!(place.left(), Vec::<PathBuf>::new());
    assert_eq!(place.records(), 0);
    assert_eq!(fs::read(outside.join("precious")).unwrap(), b"x");
}

#[tokio::test]
async fn what_is_alive_kept_or_young_is_not_touched() {
    let place = Place::new();
    let alive = place.begin();
    place.folder(&alive, "").create_folder_blocking().unwrap();
    let kept = place.begin();
    place.folder(&kept, "").create_folder_blocking().unwrap();
    let until = std::time::SystemTime::now() + Duration::from_secs(600);
    kept.keep_until_blocking(until).unwrap();
    kept.close_blocking().unwrap();
    let young = place.begin();
    place.folder(&young, "").create_folder_blocking().unwrap();
    young.close_blocking().unwrap();

    let options = CollectOptions {
        older_than: Duration::from_secs(600),
        ..CollectOptions::default()
    };
    let report = place
        .ledger
        .collect(&Collectors::core(), options)
        .await
        .unwrap();
    assert!(report.is_clean());
    for record in &report.records {
        let expected = match record.outcome {
            RecordOutcome::Alive => alive.identifier(),
            RecordOutcome::Kept(_) => kept.identifier(),
            RecordOutcome::Young(_) => young.identifier(),
            ref other => panic!("an unexpected outcome: {other:?}"),
        };
        assert_eq!(record.identifier, expected);
    }
    assert_eq!(place.left().len(), 3);
    // Asked for by name, the kept one goes, and only that one.
    let options = CollectOptions {
        only: Some(kept.identifier()),
        include_kept: true,
        ..CollectOptions::default()
    };
    let report = place.ledger.collect(&Collectors::core(), options).await;
    assert!(matches!(
        only(&report.unwrap()).outcome,
        RecordOutcome::Collected
    ));
    assert_eq!(place.left().len(), 2);
}

#[tokio::test]
async fn an_unknown_environment_is_not_found() {
    let place = Place::new();
    let options = CollectOptions {
        only: Some(Identifier::random()),
        ..CollectOptions::default()
    };
    let report = place.ledger.collect(&Collectors::core(), options).await;
    assert_eq!(report.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_says_the_same() {
    let place = Place::new();
    let record = place.begin();
    let path = place.folder(&record, "").create_folder_blocking().unwrap();
    fs::create_dir(path.join("inner")).unwrap();
    drop(place.file(&record, ".never"));
    drop(record);
    let file = fs::read_dir(place.ledger.path()).unwrap().next().unwrap();
    let file = file.unwrap().path();
    let before = fs::read(&file).unwrap();
    let options = CollectOptions {
        dry_run: true,
        ..CollectOptions::default()
    };
    let collectors = Collectors::core();
    let dry = place.ledger.collect(&collectors, options).await.unwrap();
    assert_eq!(fs::read(&file).unwrap(), before);
    assert!(path.join("inner").exists());
    let wet = place.collect().await;
    let outcomes = |report: &Report| format!("{:?}", only(report).resources);
    assert_eq!(outcomes(&dry), outcomes(&wet));
    assert!(outcomes(&wet).contains("AlreadyGone"));
    assert!(!path.exists());
}

#[tokio::test]
async fn a_link_planted_in_place_of_a_folder_or_file_is_refused() {
    for is_folder in [true, false] {
        let place = Place::new();
        let precious = place.scratch.path().join("precious");
        let record = place.begin();
        let entry = if is_folder {
            fs::create_dir(&precious).unwrap();
            fs::write(precious.join("file"), "x").unwrap();
            let entry = place.folder(&record, "");
            entry.create_folder_blocking().unwrap();
            fs::remove_dir(entry.path().unwrap()).unwrap();
            entry
        } else {
            fs::write(&precious, "x").unwrap();
            let entry = place.file(&record, "");
            entry.create_file_blocking().unwrap();
            fs::remove_file(entry.path().unwrap()).unwrap();
            entry
        };
        symlink(&precious, entry.path().unwrap()).unwrap();
        drop((entry, record));
        let report = place.collect().await;
        assert!(refused(&report).contains("symbolic link"), "{report:?}");
        assert!(!report.is_clean());
        assert!(precious.exists());
        assert_eq!(place.left().len(), 1);
        assert_eq!(place.records(), 1);
    }
}

#[tokio::test]
async fn a_link_planted_on_the_way_is_refused() {
    let place = Place::new();
    let record = place.begin();
    let entry = place.folder(&record, "");
    let path = entry.create_folder_blocking().unwrap();
    let moved = place.scratch.path().join("moved");
    fs::rename(place.run(), &moved).unwrap();
    symlink(&moved, place.run()).unwrap();
    drop((entry, record));
    let report = place.collect().await;
    let outcome = &only(&report).resources[0].1;
    assert!(
        matches!(outcome, Outcome::Failed(error) if error.to_string().contains("symbolic link")),
        "{report:?}"
    );
    assert!(moved.join(path.file_name().unwrap()).exists());
}

#[tokio::test]
async fn another_folder_or_file_under_the_same_name_is_refused() {
    for is_folder in [true, false] {
        let place = Place::new();
        let record = place.begin();
        let path = if is_folder {
            let path = place.folder(&record, "").create_folder_blocking().unwrap();
            fs::remove_dir(&path).unwrap();
            fs::create_dir(&path).unwrap();
            fs::write(path.join("foreign"), "x").unwrap();
            path
        } else {
            let entry = place.file(&record, "");
            entry.create_file_blocking().unwrap();
            let path = entry.path().unwrap();
            fs::remove_file(&path).unwrap();
            fs::write(&path, "x").unwrap();
            path
        };
        drop(record);
        let report = place.collect().await;
        assert!(refused(&report).contains("another"), "{report:?}");
        assert!(path.exists());
        // It stays reported until somebody decides.
        assert!(!place.collect().await.is_clean());
    }
}

#[tokio::test]
async fn without_an_identity_only_what_cannot_be_anothers_is_removed() {
    let place = Place::new();
    let empty = place.begin();
    fs::create_dir(place.folder(&empty, "").path().unwrap()).unwrap();
    let file = place.begin();
    fs::write(place.file(&file, ".qcow2").path().unwrap(), "x").unwrap();
    drop((empty, file));
    let report = place.collect().await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(place.left(), Vec::<PathBuf>::new());

    let full = place.begin();
    let path = place.folder(&full, "").path().unwrap();
    fs::create_dir(&path).unwrap();
    fs::write(path.join("file"), "x").unwrap();
    drop(full);
    let report = place.collect().await;
    assert!(refused(&report).contains("not empty"), "{report:?}");
    assert!(path.join("file").exists());
    fs::remove_dir_all(&path).unwrap();
    assert!(place.collect().await.is_clean());

    let linked = place.begin();
    let path = place.file(&linked, "").path().unwrap();
    let precious = place.scratch.path().join("precious");
    fs::write(&precious, "x").unwrap();
    fs::hard_link(&precious, &path).unwrap();
    drop(linked);
    let report = place.collect().await;
    assert!(refused(&report).contains("other names"), "{report:?}");
}

#[tokio::test]
async fn neighbours_with_similar_names_are_not_touched() {
    let place = Place::new();
    let record = place.begin();
    let path = place.folder(&record, "").create_folder_blocking().unwrap();
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    for neighbour in [format!("{name}.old"), format!("x{name}"), name[..35].into()] {
        fs::create_dir(place.run().join(&neighbour)).unwrap();
    }
    drop(record);
    assert!(place.collect().await.is_clean());
    assert_eq!(place.left().len(), 3);
}

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
        Resource::new("network", "n", "test"),
        Resource::new("domain", "d", "test"),
        Resource::new("odd", "o", "test"),
        Resource::new("panicking", "p", "test"),
    ];
    let entries = broken.intend_blocking(resources).unwrap();
    let identity = Resource::new("x", "x", "").detail("uuid", "u").details;
    entries[1].created_blocking(identity.clone()).unwrap();
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
    // The reverse of the intention.
    let kinds: Vec<&str> = outcomes.iter().map(|(kind, _)| *kind).collect();
    assert_eq!(kinds, ["panicking", "odd", "domain", "network", "folder"]);
    assert!(outcomes[0].1.contains("Internal"), "{outcomes:?}");
    assert!(outcomes[1].1.contains("Unsupported"), "{outcomes:?}");
    assert!(outcomes[2].1.contains("PermissionDenied"), "{outcomes:?}");
    assert_eq!(outcomes[3].1, "Removed");
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

#[tokio::test]
async fn the_owner_removes_single_resources_and_all_that_was_forgotten() {
    let place = Place::new();
    let record = place.begin();
    let deadline = Duration::from_secs(10);
    let collectors = Collectors::core();
    let entry = place.folder(&record, ".a");
    let path = entry.create_folder().await.unwrap();
    entry.remove(&collectors, deadline).await.unwrap();
    assert!(!path.exists());
    assert_eq!(record.holdings(), []);

    let entry = place.file(&record, ".b");
    drop(entry.create_file().await.unwrap());
    let replaced = entry.path().unwrap();
    fs::remove_file(&replaced).unwrap();
    fs::write(&replaced, "another's").unwrap();
    assert!(entry.remove(&collectors, deadline).await.is_err());
    assert_eq!(record.holdings().len(), 1);
    fs::remove_file(&replaced).unwrap();

    let forgotten = place.folder(&record, ".c").create_folder().await.unwrap();
    let outcomes = record.collect(&collectors, deadline).await.unwrap();
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(|(_, outcome)| outcome.is_gone()));
    assert!(!forgotten.exists());
    assert_eq!(record.close().await.unwrap(), []);
    assert_eq!(place.records(), 0);
}

#[tokio::test]
async fn a_file_that_exists_by_then_is_not_taken_over() {
    let place = Place::new();
    let record = place.begin();
    let entry = place.file(&record, "");
    fs::write(entry.path().unwrap(), "another's").unwrap();
    let error = entry.create_file().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let entry = place.folder(&record, ".d");
    symlink("nowhere", entry.path().unwrap()).unwrap();
    let error = entry.create_folder().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(entry.identify().await.is_err());
}

/// A process of ours that is ended with the test.
struct Sleeper(Child);

impl Sleeper {
    fn start(mark: Option<(&str, String)>) -> Self {
        let mut command = Command::new("sleep");
        command.arg("600").stdin(Stdio::null()).envs(mark);
        Self(command.spawn().expect("sleep starts"))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("its state").is_some()
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn processes_are_ended_by_their_mark_and_only_by_it() {
    let place = Place::new();
    let record = place.begin();
    let process = || {
        record
            .intend_one_blocking(Resource::process("sleep"))
            .unwrap()
    };
    let recorded = process();
    let mut first = Sleeper::start(Some(recorded.mark()));
    recorded.spawned(first.pid()).await.unwrap();
    // Its maker died before it could record it.
    let unrecorded = process();
    let mut second = Sleeper::start(Some(unrecorded.mark()));
    // Recorded, but without a mark: nothing shows that it is ours.
    let unmarked = process();
    let mut third = Sleeper::start(None);
    unmarked.spawned(third.pid()).await.unwrap();
    // The number is now another's.
    let stale = process();
    let mut fourth = Sleeper::start(Some(("SEE_LEDGER", "another's".to_owned())));
    let old = Resource::new("x", "x", "").detail("pid", fourth.pid());
    stale
        .created(old.detail("started", 1).details)
        .await
        .unwrap();
    drop((recorded, unrecorded, unmarked, stale, record));

    let report = place.collect().await;
    let outcomes: Vec<String> = only(&report)
        .resources
        .iter()
        .map(|(_, outcome)| format!("{outcome:?}"))
        .collect();
    assert_eq!(outcomes[0], "AlreadyGone");
    assert!(outcomes[1].starts_with("Refused"), "{outcomes:?}");
    assert_eq!(outcomes[2..], ["Removed", "Removed"]);
    // It was waited for.
    assert!(first.has_ended() && second.has_ended());
    assert!(!third.has_ended() && !fourth.has_ended());
    drop(third);
    assert!(place.collect().await.is_clean());
}

/// What an ordinary user may not remove. As root the test starts itself again as nobody.
#[test]
fn missing_rights_are_reported() {
    const PLACE: &str = "SEE_TEST_WITHOUT_RIGHTS";
    if !rustix::process::geteuid().is_root() {
        let scratch = std::env::var_os(PLACE).map(PathBuf::from);
        return without_rights(scratch.as_deref());
    }
    const NOBODY: u32 = 65534;
    let scratch = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(scratch.path(), Some(NOBODY), Some(NOBODY)).unwrap();
    // Where the build lies, nobody may be unable to go.
    let program = scratch.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(&program)
        .args(["--exact", "missing_rights_are_reported"])
        .env(PLACE, scratch.path())
        .env("TMPDIR", scratch.path())
        .current_dir(scratch.path())
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "{text}");
}

fn without_rights(scratch: Option<&Path>) {
    if let Some(scratch) = scratch {
        // Another's ledger: root's cannot be opened, nor made where one may not write.
        let error = Ledger::open_blocking("/see-test-of-missing-rights").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(scratch.exists());
    }
    let place = Place::new();
    let record = place.begin();
    let path = place.folder(&record, "").create_folder_blocking().unwrap();
    drop(record);
    fs::set_permissions(place.run(), fs::Permissions::from_mode(0o500)).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let report = runtime.block_on(place.collect());
    fs::set_permissions(place.run(), fs::Permissions::from_mode(0o700)).unwrap();
    let outcome = &only(&report).resources[0].1;
    assert!(
        matches!(outcome, Outcome::Failed(error) if error.kind() == ErrorKind::PermissionDenied
            && error.to_string().contains(path.to_str().unwrap())),
        "{report:?}"
    );
    assert!(path.exists());
    assert!(runtime.block_on(place.collect()).is_clean());
}

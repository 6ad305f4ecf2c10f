//! Collection: what is removed, what is refused, and who is left alone.

mod collectors;
mod links;
mod place;
mod processes;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::time::Duration;

use place::*;
use see_core::ledger::{CollectOptions, Collectors, Outcome, RecordOutcome, Report};
use see_core::{ErrorKind, Identifier};

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
async fn a_record_that_comes_back_after_a_power_failure_is_collected_though_all_is_gone() {
    let place = Place::new();
    let record = place.begin();
    place.folder(&record, "").create_folder_blocking().unwrap();
    let file = fs::read_dir(place.ledger.path()).unwrap().next().unwrap();
    let file = file.unwrap().path();
    let before = fs::read(&file).unwrap();
    drop(record);
    assert!(place.collect().await.is_clean());
    assert_eq!(place.records(), 0);
    fs::write(&file, before).unwrap();
    let report = place.collect().await;
    assert!(report.is_clean(), "{report:?}");
    assert!(matches!(only(&report).outcome, RecordOutcome::Collected));
    let [(_, outcome)] = &only(&report).resources[..] else {
        panic!("{report:?}");
    };
    assert!(matches!(outcome, Outcome::AlreadyGone), "{outcome:?}");
    assert_eq!(place.records(), 0);
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

#[tokio::test]
async fn the_owner_removes_all_that_was_forgotten_and_what_it_could_not_once_it_can() {
    let place = Place::new();
    let record = place.begin();
    let deadline = Duration::from_secs(10);
    let collectors = Collectors::core();
    let entry = place.file(&record, ".b");
    drop(entry.create_file().await.unwrap());
    let replaced = entry.path().unwrap();
    fs::remove_file(&replaced).unwrap();
    fs::write(&replaced, "another's").unwrap();
    let outcomes = record.collect(&collectors, deadline).await.unwrap();
    assert!(matches!(outcomes[0].1, Outcome::Refused(_)), "{outcomes:?}");
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

//! The ledger's records: what they hold, who may open them, and what a crash may do to them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use proptest::prelude::*;
use see_core::ledger::{CollectOptions, Collectors, Ledger, Record, RecordState, Resource};
use see_core::{ErrorKind, Identifier};

fn scratch() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("see ledger ü ")
        .tempdir()
        .expect("a scratch folder")
}

fn open(root: &Path) -> Ledger {
    Ledger::open_blocking(root).expect("the ledger opens")
}

fn begin(ledger: &Ledger) -> Record {
    ledger
        .begin_blocking(Identifier::random(), "a note")
        .expect("a record begins")
}

fn file_of(ledger: &Ledger, identifier: Identifier) -> PathBuf {
    ledger.path().join(format!("{identifier}.jsonl"))
}

fn domain(name: &str) -> Resource {
    Resource::new("domain", name, "qemu:///system").detail("uuid", "u")
}

#[test]
fn missing_folders_are_made_for_their_user_alone() {
    let scratch = scratch();
    let root = scratch.path().join("a b/ü/see");
    let ledger = open(&root);
    for folder in [&root, ledger.path(), root.parent().unwrap()] {
        let mode = fs::metadata(folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "{}", folder.display());
    }
    // A second opening finds it as it is.
    begin(&open(&root));
}

#[test]
fn a_folder_that_others_can_reach_is_refused() {
    let scratch = scratch();
    let root = scratch.path().join("see");
    open(&root);
    fs::set_permissions(&root, fs::Permissions::from_mode(0o750)).unwrap();
    let error = Ledger::open_blocking(&root).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("0750"), "{error}");
}

#[test]
fn a_root_that_is_a_link_a_file_or_relative_is_refused() {
    let scratch = scratch();
    let real = scratch.path().join("real");
    open(&real);
    let link = scratch.path().join("link");
    symlink(&real, &link).unwrap();
    assert!(Ledger::open_blocking(&link).is_err());
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(Ledger::open_blocking(&file).is_err());
    let error = Ledger::open_blocking("relative").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    // Nor may the folder inside it be one.
    let other = scratch.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::set_permissions(&other, fs::Permissions::from_mode(0o700)).unwrap();
    symlink(real.join("ledger"), other.join("ledger")).unwrap();
    assert!(Ledger::open_blocking(&other).is_err());
}

#[test]
fn an_identifier_has_one_record() {
    let scratch = scratch();
    let ledger = open(scratch.path().join("see").as_path());
    let record = begin(&ledger);
    let error = ledger.begin_blocking(record.identifier(), "").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    // The attempt left nothing beside the record.
    assert_eq!(fs::read_dir(ledger.path()).unwrap().count(), 1);
    assert_eq!(ledger.list_blocking().unwrap().len(), 1);
}

#[test]
fn the_list_tells_alive_kept_orphaned_and_broken_apart() {
    let scratch = scratch();
    let ledger = open(scratch.path().join("see").as_path());
    let alive = begin(&ledger);
    let kept = begin(&ledger);
    let orphan = begin(&ledger);
    let expired = begin(&ledger);
    for record in [&kept, &orphan, &expired] {
        drop(record.intend_blocking([domain("left")]).unwrap());
    }
    let hour = Duration::from_secs(3600);
    kept.keep_until_blocking(SystemTime::now() + hour).unwrap();
    expired
        .keep_until_blocking(SystemTime::now() - hour)
        .unwrap();
    for record in [&kept, &orphan, &expired] {
        assert_eq!(record.close_blocking().unwrap(), [domain("left")]);
    }
    let broken = Identifier::random();
    fs::write(file_of(&ledger, broken), "{}\n").unwrap();

    let listed = ledger.list_blocking().unwrap();
    assert_eq!(listed.len(), 5);
    for one in &listed {
        let state = match &one.state {
            RecordState::Alive => alive.identifier(),
            RecordState::Kept(until) => {
                let left = until.duration_since(SystemTime::now()).unwrap();
                assert!(left <= hour && left > hour / 2);
                kept.identifier()
            }
            RecordState::Orphaned if one.identifier == expired.identifier() => one.identifier,
            RecordState::Orphaned => orphan.identifier(),
            RecordState::Broken(_) => broken,
            other => panic!("an unknown state: {other:?}"),
        };
        assert_eq!(one.identifier, state);
        assert!(one.age < hour);
        if !matches!(one.state, RecordState::Broken(_)) {
            assert_eq!(one.note, "a note");
            assert_eq!(one.pid, Some(std::process::id()));
            // The kernel's clock is a second apart at most, and no test of this file takes minutes.
            let started = one.started.unwrap();
            let ahead = started.duration_since(SystemTime::now());
            assert!(ahead.is_err_and(|error| error.duration() < Duration::from_secs(600)));
        }
    }
}

#[test]
fn a_record_goes_only_when_all_it_names_is_gone() {
    let scratch = scratch();
    let ledger = open(scratch.path().join("see").as_path());
    let record = begin(&ledger);
    let mut entries = record
        .intend_blocking([domain("one"), domain("two")])
        .unwrap();
    entries.pop().unwrap().gone_blocking().unwrap();
    assert_eq!(record.holdings(), [domain("one")]);
    assert_eq!(record.close_blocking().unwrap(), [domain("one")]);
    assert!(file_of(&ledger, record.identifier()).exists());
    // The lock went with it, and so did the right to write.
    let error = entries.pop().unwrap().gone_blocking().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::IllegalTransition);

    let empty = begin(&ledger);
    assert_eq!(empty.close_blocking().unwrap(), []);
    assert!(!file_of(&ledger, empty.identifier()).exists());
    assert_eq!(empty.close_blocking().unwrap(), []);
}

#[test]
fn an_entry_keeps_its_environment_alive() {
    let scratch = scratch();
    let ledger = open(scratch.path().join("see").as_path());
    let record = begin(&ledger);
    let entry = record.intend_one_blocking(domain("one")).unwrap();
    drop(record);
    let state = |ledger: &Ledger| ledger.list_blocking().unwrap().remove(0).state;
    assert!(matches!(state(&ledger), RecordState::Alive));
    drop(entry);
    assert!(matches!(state(&ledger), RecordState::Orphaned));
}

#[test]
fn a_path_must_be_new_and_name_the_environment() {
    let scratch = scratch();
    let ledger = open(scratch.path().join("see").as_path());
    let record = begin(&ledger);
    let intend = |resource: Resource| record.intend_one_blocking(resource).map(drop);
    let anonymous = Resource::folder(scratch.path(), "run").unwrap();
    assert_eq!(
        intend(anonymous).unwrap_err().kind(),
        ErrorKind::Configuration
    );
    let name = record.identifier().to_string();
    fs::create_dir(scratch.path().join(&name)).unwrap();
    let dirty = Resource::folder(scratch.path(), &name).unwrap();
    assert_eq!(intend(dirty).unwrap_err().kind(), ErrorKind::AlreadyExists);
    let nowhere = Resource::file(scratch.path().join("none"), &name).unwrap();
    assert_eq!(intend(nowhere).unwrap_err().kind(), ErrorKind::NotFound);
    for name in ["", "/etc", "../x", "a/../b", "a//b", "./a", "a/"] {
        let error = Resource::file(scratch.path(), name).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{name:?}");
    }
    assert!(Resource::file("relative", "x").is_err());
    assert_eq!(record.holdings(), []);
}

#[test]
fn a_record_that_is_full_takes_no_more_and_stays_whole() {
    let scratch = scratch();
    let ledger = open(scratch.path().join("see").as_path());
    let record = begin(&ledger);
    let first = record.intend_one_blocking(domain("first")).unwrap();
    let long = || domain(&"x".repeat(60_000));
    let error = record
        .intend_blocking((0..200).map(|_| long()))
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    let error = record
        .intend_blocking([domain(&"x".repeat(70_000))])
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    first.gone_blocking().unwrap();
    assert_eq!(record.close_blocking().unwrap(), []);
}

#[test]
fn garbage_is_reported_and_stays() {
    let scratch = scratch();
    let ledger = open(scratch.path().join("see").as_path());
    let written = {
        let record = begin(&ledger);
        drop(record.intend_blocking([domain("one")]).unwrap());
        fs::read_to_string(file_of(&ledger, record.identifier())).unwrap()
    };
    let (header, intent) = written.split_once('\n').unwrap();
    let real = header.split('"').nth(5).unwrap();
    let other = Identifier::random();
    let mine = header.replace(real, &other.to_string());
    let cases = [
        String::new(),
        "{}\n".to_owned(),
        "not json\n".to_owned(),
        // Another environment's.
        written.clone(),
        // Another version's.
        mine.replace(r#""see_ledger":1"#, r#""see_ledger":2"#) + "\n",
        // Another user's.
        mine.replace(r#""uid":"#, r#""uid":4"#) + "\n",
        // A line in the middle that nobody wrote.
        format!("{mine}\n{{\"run\":\"me\"}}\n{intent}"),
        // Entries out of order, progress on what was never intended.
        format!("{mine}\n{intent}{intent}"),
        format!("{mine}\n{{\"gone\":{{\"entry\":0}}}}\n"),
        // A path that leads out of its folder.
        format!("{mine}\n{intent}")
            .replace("\"domain\"", "\"folder\"")
            .replace("\"one\"", "\"../../etc\""),
        format!("{mine}\n{}\n", "x".repeat(9 << 20)),
    ];
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for case in cases {
        let file = file_of(&ledger, other);
        fs::write(&file, &case).unwrap();
        let listed = ledger.list_blocking().unwrap();
        let one = listed.iter().find(|one| one.identifier == other).unwrap();
        let shown: String = case.chars().take(300).collect();
        assert!(matches!(one.state, RecordState::Broken(_)), "{shown}");
        let options = CollectOptions {
            only: Some(other),
            ..CollectOptions::default()
        };
        let report = runtime
            .block_on(ledger.collect(&Collectors::core(), options))
            .unwrap();
        assert!(!report.is_clean(), "{shown}");
        assert_eq!(fs::read_to_string(&file).unwrap(), case);
    }
}

#[test]
fn a_record_that_is_a_link_or_a_pipe_is_not_followed() {
    let scratch = scratch();
    let ledger = open(scratch.path().join("see").as_path());
    let link = Identifier::random();
    let target = scratch.path().join("target");
    fs::write(&target, "").unwrap();
    symlink(&target, file_of(&ledger, link)).unwrap();
    let pipe = Identifier::random();
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mkfifoat(rustix::fs::CWD, file_of(&ledger, pipe), mode).unwrap();
    let listed = ledger.list_blocking().unwrap();
    assert_eq!(listed.len(), 2);
    for one in listed {
        assert!(matches!(one.state, RecordState::Broken(_)), "{one:?}");
    }
}

/// What a program may do to its record.
#[derive(Debug, Clone)]
enum Step {
    Intend(u8),
    Created(usize),
    Gone(usize),
    Keep(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        (0..4u8).prop_map(Step::Intend),
        (0..16usize).prop_map(Step::Created),
        (0..16usize).prop_map(Step::Gone),
        any::<u32>().prop_map(Step::Keep),
    ];
    prop::collection::vec(step, 0..24)
}

mod properties {
    use super::*;

    proptest! {
        /// Every prefix of a record, torn anywhere and with zeros or garbage after the tear, reads as
        /// what its whole lines say.
        #[test]
        fn a_torn_record_reads_as_its_whole_lines(
            steps in steps(),
            cut in any::<prop::sample::Index>(),
            zeros in 0..64usize,
        ) {
            let scratch = scratch();
            let ledger = open(scratch.path().join("see").as_path());
            let record = begin(&ledger);
            let file = file_of(&ledger, record.identifier());
            let mut entries = Vec::new();
            let mut names: Vec<String> = Vec::new();
            // The length after each write of whole lines, and what is held then.
            let mut history = vec![(fs::metadata(&file).unwrap().len(), Vec::new())];
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Intend(count) => {
                        for index in 0..count {
                            let name = format!("{number}-{index} ü \"\n");
                            entries.push(record.intend_one_blocking(domain(&name)).unwrap());
                            names.push(name);
                            history.push((fs::metadata(&file).unwrap().len(), names.clone()));
                        }
                    }
                    Step::Created(index) if !entries.is_empty() => {
                        let index = index % entries.len();
                        let identity = domain("").detail("n", number).details;
                        entries[index].created_blocking(identity).unwrap();
                    }
                    Step::Gone(index) if !entries.is_empty() => {
                        let index = index % entries.len();
                        entries.remove(index).gone_blocking().unwrap();
                        names.remove(index);
                    }
                    Step::Keep(seconds) => {
                        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.into());
                        record.keep_until_blocking(time).unwrap();
                    }
                    Step::Created(_) | Step::Gone(_) => {}
                }
                history.push((fs::metadata(&file).unwrap().len(), names.clone()));
            }
            let identifier = record.identifier();
            drop(entries);
            drop(record);

            let mut bytes = fs::read(&file).unwrap();
            let header = usize::try_from(history[0].0).unwrap();
            let cut = header + cut.index(bytes.len() - header + 1);
            bytes.truncate(cut);
            bytes.resize(cut + zeros, 0);
            fs::write(&file, &bytes).unwrap();

            let expected = history.iter().rfind(|(end, _)| *end <= cut as u64).unwrap();
            let listed = ledger.list_blocking().unwrap();
            prop_assert_eq!(listed.len(), 1);
            prop_assert_eq!(listed[0].identifier, identifier);
            prop_assert!(!matches!(listed[0].state, RecordState::Broken(_)), "{:?}", listed[0]);
            let held: Vec<String> = listed[0].holdings.iter().map(|held| held.name.clone()).collect();
            prop_assert_eq!(&held, &expected.1);
        }
    }
}

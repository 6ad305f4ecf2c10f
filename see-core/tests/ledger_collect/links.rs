//! What somebody planted or put in place of ours is never followed nor removed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use crate::place::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use see_core::ErrorKind;
use see_core::ledger::{Outcome, Resource};

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
    fs::remove_file(&path).unwrap();

    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap();
    let report = place.collect().await;
    assert!(refused(&report).contains("it is a pipe"), "{report:?}");
    fs::remove_file(&path).unwrap();
    assert!(place.collect().await.is_clean());
}

#[test]
fn a_path_that_does_not_name_its_environment_is_not_recorded() {
    let place = Place::new();
    let record = place.begin();
    let nameless = [
        Resource::folder(place.run(), "shared").unwrap(),
        Resource::file(place.run(), "shared").unwrap(),
    ];
    for resource in nameless {
        let error = record.intend_one_blocking(resource).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
        assert!(error.to_string().contains("must contain its identifier"));
    }
}

#[tokio::test]
async fn without_an_identity_nothing_is_removed_whose_path_could_be_anybodys() {
    for is_folder in [true, false] {
        let place = Place::new();
        let record = place.begin();
        let entry = match is_folder {
            true => place.folder(&record, " shared"),
            false => place.file(&record, " shared"),
        };
        let name = entry.resource().name.clone();
        let file = place
            .ledger
            .path()
            .join(format!("{}.jsonl", record.identifier()));
        drop((record, entry));
        // The ledger writes no such record; another program of this user might.
        let written = fs::read_to_string(&file).unwrap();
        fs::write(&file, written.replace(&name, "shared")).unwrap();
        let path = place.run().join("shared");
        match is_folder {
            true => fs::create_dir(&path).unwrap(),
            false => fs::write(&path, "x").unwrap(),
        }
        let report = place.collect().await;
        let reason = refused(&report);
        assert!(reason.contains("does not name the environment"), "{reason}");
        assert!(path.exists());
    }
}

#[tokio::test]
async fn without_an_identity_another_users_file_is_not_removed() {
    if !rustix::process::geteuid().is_root() {
        // Nobody else can give files away.
        return;
    }
    let place = Place::new();
    let record = place.begin();
    let path = place.file(&record, "").path().unwrap();
    fs::write(&path, "x").unwrap();
    std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
    drop(record);
    let report = place.collect().await;
    assert!(
        refused(&report).contains("belongs to user 65534"),
        "{report:?}"
    );
    assert!(path.exists());
}

//! Roots of the embedded driver.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use see_libvirt::{Cause, Connection, EmbeddedRoot, EmulatorAccount, embedded};
use uuid::Uuid;

use crate::process::{LIMIT, machine, owner_is_killed, perform, play, started, succeeds};

#[test]
fn a_process_has_one_root_and_opens_it_again_and_again() {
    let name = "root::a_process_has_one_root_and_opens_it_again_and_again";
    play(
        name,
        &["only"],
        |part| async move {
            assert_eq!(embedded::opened_root(), None);
            drop(part.open().await);
            assert_eq!(embedded::opened_root(), Some(part.root_path()));

            let other = part.place.join("o");
            let other = EmbeddedRoot::create(&other, None, EmulatorAccount::default()).unwrap();
            let error = Connection::open_embedded(&other, LIMIT).await.unwrap_err();
            assert!(
                matches!(error.cause(), Cause::OtherRoot { open } if *open == part.root_path()),
                "{error}"
            );

            let again = EmbeddedRoot::existing(&part.root_path()).unwrap();
            // libvirt itself has room for fewer opens in the life of a process.
            for _ in 0..40 {
                let connection = Connection::open_embedded(&again, LIMIT).await.unwrap();
                connection.domains().await.unwrap();
            }
        },
        succeeds,
    );
}

#[test]
fn a_root_in_use_names_the_process_that_has_it() {
    let name = "root::a_root_in_use_names_the_process_that_has_it";
    play(
        name,
        &["owner-alive"],
        |part| async move {
            if part.role == "second" {
                let root = EmbeddedRoot::existing(&part.root_path()).unwrap();
                let error = Connection::open_embedded(&root, LIMIT).await.unwrap_err();
                let owner = std::os::unix::process::parent_id();
                assert!(
                    matches!(error.cause(), Cause::RootLocked { pid: Some(pid), .. } if *pid == owner),
                    "{error}"
                );
                return;
            }
            let _connection = part.open().await;
            let place = part.place.clone();
            let status = tokio::task::spawn_blocking(move || perform(name, "second", &place))
                .await
                .unwrap();
            assert!(status.success());
        },
        succeeds,
    );
}

#[test]
fn what_libvirt_learned_serves_the_next_root() {
    let name = "root::what_libvirt_learned_serves_the_next_root";
    play(
        name,
        &["first", "second"],
        |part| async move {
            let saved = part.place.join("saved");
            let path = part.place.join(&part.role[..1]);
            let inside = path.join("cache/qemu/capabilities");
            let root = part.new_root(&path, &saved);
            let seeded: Vec<_> = if part.role == "first" {
                assert!(!saved.exists());
                Vec::new()
            } else {
                files(&inside)
            };
            drop(Connection::open_embedded(&root, LIMIT).await.unwrap());
            if part.role == "first" {
                assert!(!files(&saved).is_empty());
            } else {
                // libvirt writes its files anew when it has to probe.
                assert_eq!(files(&inside), seeded);
            }
        },
        succeeds,
    );
}

/// Names, inodes and modification times.
fn files(folder: &std::path::Path) -> Vec<(std::ffi::OsString, u64, i64)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let about = entry.metadata().unwrap();
            (entry.file_name(), about.ino(), about.mtime_nsec())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn a_machine_whose_owner_was_killed_is_found_and_ended_by_the_next() {
    let name = "root::a_machine_whose_owner_was_killed_is_found_and_ended_by_the_next";
    let uuid = Uuid::from_u128(0x5ee0_0000_0000_4000_8000_0000_0000_0001);
    play(
        name,
        &["owner", "heir"],
        |part| async move {
            if part.role == "owner" {
                let connection = part.open().await;
                started(&connection, &machine(uuid)).await;
                let killed = std::process::Command::new("kill")
                    .args(["-9", &std::process::id().to_string()])
                    .status();
                panic!("still alive after {killed:?}");
            }
            let root = EmbeddedRoot::existing(&part.root_path()).unwrap();
            let connection = Connection::open_embedded(&root, LIMIT).await.unwrap();
            let domain = connection.domain(uuid).await.unwrap();
            assert!(domain.metadata("urn:see:test").await.unwrap().is_some());
            // libvirt meets the machine again on a thread of its own, and ends it itself where
            // that fails. That nothing runs any more is checked after this process.
            if let Err(error) = domain.destroy().await {
                assert!(error.is_invalid_state(), "{error}");
            }
            domain.undefine().await.unwrap();
            assert!(connection.domain(uuid).await.unwrap_err().is_no_domain());
        },
        owner_is_killed,
    );
    remove_control_groups(uuid);
}

/// Those of an emulator whose libvirt was killed, or ended before it was done with them: where no systemd makes them.
fn remove_control_groups(uuid: Uuid) {
    let end = format!("-see-{uuid}.libvirt-qemu");
    for hierarchy in children("/sys/fs/cgroup".as_ref()) {
        for group in children(&hierarchy.join("machine")) {
            if group.to_string_lossy().ends_with(&end) {
                // The process that still ends may be quicker.
                for part in children(&group).iter().chain([&group]) {
                    let _ = std::fs::remove_dir(part);
                }
            }
        }
    }
}

/// What is in a folder; nothing where there is no such folder.
fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

#[test]
fn unfit_places_for_a_root_are_refused_and_left_alone() {
    let place = tempfile::tempdir_in("/tmp").unwrap();
    let create =
        |path: &Path| EmbeddedRoot::create(path, None, EmulatorAccount::default()).unwrap_err();
    let long = place.path().join("x".repeat(embedded::MAX_ROOT_LENGTH));
    assert!(create(&long).to_string().contains("sockets get too long"));
    assert!(create("relative".as_ref()).to_string().contains("absolute"));
    let taken = place.path().join("taken");
    std::fs::create_dir(&taken).unwrap();
    std::fs::write(taken.join("mine"), "kept").unwrap();
    assert!(matches!(create(&taken).cause(), Cause::File { .. }));
    assert_eq!(std::fs::read(taken.join("mine")).unwrap(), b"kept");

    let link = place.path().join("link");
    std::os::unix::fs::symlink(&taken, &link).unwrap();
    let error = EmbeddedRoot::existing(&link).unwrap_err();
    assert!(error.to_string().contains("link"), "{error}");
}

#[test]
fn a_root_is_closed_to_others() {
    let place = tempfile::tempdir_in("/tmp").unwrap();
    let path = place.path().join("r");
    EmbeddedRoot::create(&path, None, EmulatorAccount::default()).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}

//! Machines on the embedded driver.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use see_libvirt::{DomainEvent, DomainEvents, DomainState, MachineKind, ShutdownMode, StopCause};
use uuid::Uuid;

use crate::process::{LIMIT, machine, play, started, succeeds};

async fn next(events: &mut DomainEvents) -> DomainEvent {
    tokio::time::timeout(LIMIT, events.next())
        .await
        .expect("an event comes in time")
        .expect("the connection stands")
}

#[test]
fn a_machine_is_created_watched_suspended_pictured_and_destroyed() {
    let name = "domain::a_machine_is_created_watched_suspended_pictured_and_destroyed";
    play(
        name,
        &["only"],
        |part| async move {
            let connection = part.open().await;
            let kind = MachineKind {
                virtualisation: Some("qemu".to_owned()),
                ..MachineKind::default()
            };
            let able = connection.domain_capabilities(&kind).await.unwrap();
            assert!(able.contains("<domain>qemu</domain>"), "{able}");
            let uuid = Uuid::new_v4();
            let mut events = connection.domain_events(uuid).await.unwrap();

            let domain = started(&connection, &machine(uuid)).await;
            for expected in [
                DomainEvent::Defined,
                DomainEvent::Resumed,
                DomainEvent::Started,
            ] {
                assert_eq!(next(&mut events).await, expected);
            }
            assert!(domain.start().await.unwrap_err().is_invalid_state());
            assert!(domain.id().is_some());
            assert_eq!(domain.status().await.unwrap().state, DomainState::Running);

            let picture = domain.screenshot(0, 64 << 20).await.unwrap();
            assert_eq!(picture.mime_type, "image/png");
            assert!(picture.bytes.starts_with(b"\x89PNG\r\n\x1a\n"));

            let answer = domain.qmp("{\"execute\": \"query-status\"}").await.unwrap();
            assert!(answer.contains("\"running\":true"), "{answer}");
            let label = domain.metadata("urn:see:test").await.unwrap().unwrap();
            assert!(label.contains("mine"), "{label}");

            domain.suspend().await.unwrap();
            assert_eq!(next(&mut events).await, DomainEvent::Suspended);
            assert_eq!(domain.status().await.unwrap().state, DomainState::Paused);
            domain.resume().await.unwrap();
            assert_eq!(next(&mut events).await, DomainEvent::Resumed);

            domain.destroy().await.unwrap();
            let mut last = next(&mut events).await;
            if last == DomainEvent::Shutdown {
                last = next(&mut events).await;
            }
            assert_eq!(last, DomainEvent::Stopped(StopCause::Destroyed));
            assert_eq!(domain.status().await.unwrap().state, DomainState::Shutoff);
            assert!(domain.destroy().await.unwrap_err().is_invalid_state());
        },
        succeeds,
    );
}

#[test]
fn a_guest_that_ignores_its_power_button_keeps_running() {
    let name = "domain::a_guest_that_ignores_its_power_button_keeps_running";
    play(
        name,
        &["only"],
        |part| async move {
            let connection = part.open().await;
            let uuid = Uuid::new_v4();
            let domain = started(&connection, &machine(uuid)).await;
            domain.shutdown(ShutdownMode::Acpi).await.unwrap();
            assert_eq!(domain.status().await.unwrap().state, DomainState::Running);
            let error = domain.shutdown(ShutdownMode::Signal).await.unwrap_err();
            assert!(error.code().is_some(), "{error}");
            domain.destroy().await.unwrap();
        },
        succeeds,
    );
}

#[test]
fn the_death_of_the_emulator_is_told_as_a_crash_or_failure() {
    let name = "domain::the_death_of_the_emulator_is_told_as_a_crash_or_failure";
    play(
        name,
        &["only"],
        |part| async move {
            let connection = part.open().await;
            let uuid = Uuid::new_v4();
            let mut events = connection.domain_events(uuid).await.unwrap();
            let domain = started(&connection, &machine(uuid)).await;
            let pid_file = part.root_path().join(format!("run/qemu/see-{uuid}.pid"));
            let pid = std::fs::read_to_string(&pid_file).unwrap();
            let killed = std::process::Command::new("kill")
                .args(["-9", pid.trim()])
                .status()
                .unwrap();
            assert!(killed.success());
            loop {
                if let DomainEvent::Stopped(cause) = next(&mut events).await {
                    assert!(
                        matches!(cause, StopCause::Failed | StopCause::Crashed),
                        "{cause:?}"
                    );
                    break;
                }
            }
            assert_eq!(domain.status().await.unwrap().state, DomainState::Shutoff);
        },
        succeeds,
    );
}

#[test]
fn the_emulator_has_no_capabilities_and_a_filter_of_system_calls() {
    let name = "domain::the_emulator_has_no_capabilities_and_a_filter_of_system_calls";
    play(
        name,
        &["only"],
        |part| async move {
            let connection = part.open().await;
            let uuid = Uuid::new_v4();
            let defined = connection.define_domain(&machine(uuid)).await.unwrap();
            defined.start().await.unwrap();
            let other = Uuid::new_v4();
            let second = started(&connection, &machine(other)).await;
            for uuid in [uuid, other] {
                let pid = part.root_path().join(format!("run/qemu/see-{uuid}.pid"));
                let pid = std::fs::read_to_string(pid).unwrap();
                let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim()));
                let status = status.unwrap();
                for line in ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"] {
                    assert!(status.contains(line), "{status}");
                }
                assert!(status.contains("Seccomp:\t2"), "{status}");
            }
            defined.destroy().await.unwrap();
            defined.undefine().await.unwrap();
            second.destroy().await.unwrap();
        },
        succeeds,
    );
}

/// An emulator of the test's own: libvirt asks it again whenever its file changed.
fn emulator(place: &Path) -> PathBuf {
    let program = place.join("qemu-system-own");
    std::fs::write(&program, "#!/bin/sh\nexec qemu-system-x86_64 \"$@\"\n").unwrap();
    touch(&program);
    program
}

/// Changes a file, for libvirt, which compares seconds.
fn touch(file: &Path) {
    let changed = || std::fs::metadata(file).unwrap().ctime();
    let (before, end) = (changed(), Instant::now() + LIMIT);
    let mode = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(file, mode.clone()).unwrap();
    while changed() == before {
        assert!(Instant::now() < end, "the clock stands still");
        std::thread::sleep(Duration::from_millis(20));
        std::fs::set_permissions(file, mode.clone()).unwrap();
    }
}

#[test]
fn a_machine_starts_where_libvirt_has_to_ask_the_emulator_again_and_it_has_no_capabilities() {
    let name = "domain::a_machine_starts_where_libvirt_has_to_ask_the_emulator_again_and_it_has_no_capabilities";
    play(
        name,
        &["only"],
        |part| async move {
            let connection = part.open().await;
            let uuid = Uuid::new_v4();
            let program = emulator(&part.place);
            let own = format!("<devices><emulator>{}</emulator>", program.display());
            let xml = machine(uuid).replace("<devices>", &own);
            assert!(xml.contains(&own), "{xml}");
            let domain = connection.define_domain(&xml).await.unwrap();
            touch(&program);
            domain.start().await.unwrap();
            let pid = part.root_path().join(format!("run/qemu/see-{uuid}.pid"));
            let pid = std::fs::read_to_string(pid).unwrap();
            let status = std::fs::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
            for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                let line = format!("{set}:\t0000000000000000");
                assert!(status.contains(&line), "{status}");
            }
            domain.destroy().await.unwrap();
            domain.undefine().await.unwrap();
        },
        succeeds,
    );
}

#[test]
fn several_machines_share_the_root_and_tell_their_events_apart() {
    let name = "domain::several_machines_share_the_root_and_tell_their_events_apart";
    play(
        name,
        &["only"],
        |part| async move {
            let connection = part.open().await;
            let mut machines = Vec::new();
            for _ in 0..3 {
                let uuid = Uuid::new_v4();
                let events = connection.domain_events(uuid).await.unwrap();
                let domain = started(&connection, &machine(uuid)).await;
                machines.push((domain, events));
            }
            assert_eq!(connection.domains().await.unwrap().len(), 3);
            for (domain, _) in &machines {
                domain.destroy().await.unwrap();
                domain.undefine().await.unwrap();
            }
            for (_, events) in &mut machines {
                let mut stops = 0;
                while stops == 0 {
                    stops += usize::from(matches!(next(events).await, DomainEvent::Stopped(_)));
                }
            }
            assert_eq!(connection.domains().await.unwrap().len(), 0);
        },
        succeeds,
    );
}

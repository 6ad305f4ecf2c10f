//! Who takes emulators that ended from the table of processes.

use std::process::Command;
use std::time::{Duration, Instant};

use see_libvirt::{Connection, Domain, DomainEvent};
use uuid::Uuid;

use crate::process::{FIRST, LIMIT, Part, machine, play, started, succeeds};

/// The state and the parent of a process; `None` when there is none.
fn look(pid: u32) -> Option<(String, u32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.to_owned(), fields.next()?.parse().ok()?))
}

/// The children of this process that ended and were not waited for.
fn zombies() -> Vec<u32> {
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| look(*pid) == Some(("Z".to_owned(), std::process::id())))
        .collect()
}

/// Waits until only this child is left unreaped.
async fn only_zombie(own: u32) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let found = zombies();
        if found == [own] {
            return;
        }
        assert!(Instant::now() < deadline, "found {found:?}, wanted {own}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn start(part: &Part, connection: &Connection) -> (Domain, u32) {
    let uuid = Uuid::new_v4();
    let domain = started(connection, &machine(uuid)).await;
    let file = part.root_path().join(format!("run/qemu/see-{uuid}.pid"));
    let pid = std::fs::read_to_string(file).unwrap();
    (domain, pid.trim().parse().unwrap())
}

#[test]
fn emulators_are_reaped_however_they_end_and_other_children_are_not() {
    let name = "reaper::emulators_are_reaped_however_they_end_and_other_children_are_not";
    play(
        name,
        &["any", FIRST],
        |part| async move {
            assert_eq!(std::process::id() == 1, part.role == FIRST);
            let connection = part.open().await;
            let mut own = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
            only_zombie(own.id()).await;

            let (destroyed, first) = start(&part, &connection).await;
            let (killed, second) = start(&part, &connection).await;
            let (survivor, third) = start(&part, &connection).await;
            for pid in [first, second, third] {
                assert_eq!(look(pid).unwrap().1, std::process::id());
            }

            destroyed.destroy().await.unwrap();
            assert_eq!(look(first), None);

            let mut events = connection.domain_events(killed.uuid()).await.unwrap();
            let status = Command::new("kill")
                .args(["-9", &second.to_string()])
                .status();
            assert!(status.unwrap().success());
            loop {
                let event = tokio::time::timeout(LIMIT, events.next()).await;
                if let DomainEvent::Stopped(_) = event.unwrap().unwrap() {
                    break;
                }
            }
            only_zombie(own.id()).await;

            // One that does not even start: libvirt waits for its end as well.
            let broken = machine(Uuid::new_v4())
                .replacen(
                    "<domain ",
                    "<domain xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0' ",
                    1,
                )
                .replace(
                    "</domain>",
                    "<qemu:commandline><qemu:arg value='-nonsense'/></qemu:commandline></domain>",
                );
            let broken = connection.define_domain(&broken).await.unwrap();
            let error = broken.start().await.unwrap_err();
            assert!(error.to_string().contains("nonsense"), "{error}");
            only_zombie(own.id()).await;

            assert_eq!(look(third).unwrap().1, std::process::id());
            survivor.destroy().await.unwrap();
            assert_eq!(own.wait().unwrap().code(), Some(7));
            assert_eq!(zombies(), [0; 0]);
            // For the next role.
            std::fs::remove_dir_all(part.root_path()).unwrap();
        },
        succeeds,
    );
}

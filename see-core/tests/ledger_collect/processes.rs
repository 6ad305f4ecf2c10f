//! Processes are ended by their mark; what needs rights is told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::place::*;
use see_core::ErrorKind;
use see_core::ledger::{Ledger, Outcome, Resource};

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
    assert_eq!(outcomes[..2], ["Removed", "Removed"]);
    assert!(outcomes[2].starts_with("Refused"), "{outcomes:?}");
    assert_eq!(outcomes[3], "AlreadyGone");
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
        .args(["--exact", "processes::missing_rights_are_reported"])
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

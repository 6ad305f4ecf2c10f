//! Odd hosts and odd users: names with spaces and Unicode, a strict umask, no rights, folders that are read-only.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use see_tests::{Home, Outcome, assert_nothing_remains, finish, guest, seectl, spawn};
use serde_json::json;

/// The longest that a run of a small guest may take on a busy host, with emulators that are probed first.
const RUN: Duration = Duration::from_secs(240);
/// An account without rights, the same everywhere.
const NOBODY: u32 = 65534;
/// The documented exit codes.
const SAMPLE_FAILED: i32 = 1;
const CONFIGURATION: i32 = 2;

const SAMPLE: &str = "#!/bin/sh\necho from the guest\nexit 3\n";

fn folder(path: PathBuf) -> PathBuf {
    std::fs::create_dir_all(&path).expect("the home is writable");
    path
}

fn result(outcome: &Outcome) -> serde_json::Value {
    outcome.result()["result"].clone()
}

/// Fails unless the script above ran, and only its results are left.
fn assert_ran(outcome: &Outcome) {
    assert_eq!(outcome.code, Some(SAMPLE_FAILED), "{outcome:#?}");
    let result = result(outcome);
    assert_eq!(result["sample_result"]["exit_code"], json!(3), "{result:#}");
    let printed = result["sample_result"]["stdout"]
        .as_str()
        .unwrap_or_else(|| panic!("no output in {result:#}"));
    let printed = std::fs::read_to_string(printed).expect("the file that the result names");
    assert_eq!(printed, "from the guest\n");
    assert_eq!(result["teardown_errors"], json!([]), "{result:#}");
    assert_eq!(result["left_behind"], json!([]), "{result:#}");
    let identifier = result["identifier"].as_str().expect("a text");
    assert_nothing_remains(identifier);
}

#[test]
fn names_with_spaces_quotes_and_unicode_serve_everywhere() {
    let home = Home::named("mit Leer 'zeichen' & ünd 漢字");
    let images = folder(home.path("bilder <ü>"));
    std::fs::copy(guest("guest.qcow2"), images.join("gast ñ.qcow2")).expect("the home is writable");
    let runs = folder(home.path("läufe \"neu\""));
    let sample = home.write("probe ö $HOME.sh", SAMPLE);
    let run = json!({
        "version": 1,
        "context": { "disk": {
            "image": { "provider": "dummy", "uri": "../bilder <ü>/gast ñ.qcow2" },
            "clone": { "storage_pool_path": "../bilder <ü>" },
        } },
        "hooks": {
            "configuration": { "results_folder": "ergebnisse é" },
            "hooks": [{ "name": "commands" }, { "name": "screen", "configuration": {
                "screenshot_on_event": "ready" } }],
        },
    });
    std::fs::write(runs.join("lauf 1.json"), run.to_string()).expect("the home is writable");
    // Too long and too odd for a socket: another place is found.
    let temporary = folder(home.path("vorläufig"));
    let mut command = home.seectl();
    command
        .env("TMPDIR", &temporary)
        .args(["run", "--output", "json"])
        .arg("läufe \"neu\"/lauf 1.json")
        .arg("--sample")
        .arg(&sample);
    let outcome = finish(spawn(&mut command), RUN);
    assert_ran(&outcome);
    let results = result(&outcome)["results"].clone();
    let results = Path::new(results.as_str().expect("a text"));
    assert!(
        results.starts_with(runs.join("ergebnisse é")),
        "{results:?}"
    );
    let left: Vec<_> = std::fs::read_dir(&images)
        .expect("it is still there")
        .map(|entry| entry.expect("a folder can be read on").file_name())
        .collect();
    assert_eq!(left, ["gast ñ.qcow2"]);
}

#[test]
fn a_strict_umask_does_not_matter() {
    let home = Home::new();
    let run_file = home.run_file(Home::embedded());
    let sample = home.write("sample.sh", SAMPLE);
    let mut command = Command::new("sh");
    command
        .args(["-c", "umask 077 && exec \"$0\" \"$@\""])
        .arg(seectl())
        .args(["run", "--output", "json"])
        .arg(&run_file)
        .arg("--sample")
        .arg(&sample);
    home.furnish(&mut command);
    let outcome = finish(spawn(&mut command), RUN);
    assert_ran(&outcome);
    assert_eq!(home.listed(), Vec::<serde_json::Value>::new());
}

/// A home that an ordinary user can read, with a folder of that user's own; and `seectl` as that user.
///
/// For root it is an account without rights. Anybody else is an ordinary user already.
struct Ordinary {
    home: Home,
    own: PathBuf,
    is_root: bool,
}

impl Ordinary {
    fn new() -> Self {
        let home = Home::passable();
        let is_root = rustix::process::geteuid().is_root();
        let own = folder(home.path("own"));
        if is_root {
            // The checkout may lie where others may not look.
            std::fs::copy(seectl(), home.path("seectl")).expect("the home is writable");
            chown(&own, Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let image = home.guest("guest.qcow2");
        std::fs::set_permissions(image, PermissionsExt::from_mode(0o444))
            .expect("the owner may change its mode");
        Self { home, own, is_root }
    }

    fn seectl(&self) -> Command {
        let mut command = if self.is_root {
            let mut command = Command::new("setpriv");
            command
                .arg(format!("--reuid={NOBODY}"))
                .arg(format!("--regid={NOBODY}"))
                .args(["--clear-groups", "--no-new-privs"])
                .arg(self.home.path("seectl"));
            command
        } else {
            Command::new(seectl())
        };
        self.home.furnish(&mut command);
        command
            .env("HOME", &self.own)
            .env("SEE_STATE_DIR", self.own.join("state"))
            .env("XDG_CACHE_HOME", self.own.join("cache"));
        command
    }

    fn sample(&self) -> PathBuf {
        let sample = self.home.write("sample.sh", SAMPLE);
        std::fs::set_permissions(&sample, PermissionsExt::from_mode(0o444))
            .expect("the owner may change its mode");
        sample
    }
}

#[test]
fn an_ordinary_user_runs_a_sample_without_any_rights() {
    let user = Ordinary::new();
    let run_file = user
        .home
        .run_file(json!({ "disk": { "image": "guest.qcow2" } }));
    let mut command = user.seectl();
    command
        .args(["run", "--output", "json"])
        .arg(run_file)
        .arg("--sample")
        .arg(user.sample())
        .arg("--results")
        .arg(user.own.join("results"));
    assert_ran(&finish(spawn(&mut command), RUN));
    let mut command = user.seectl();
    command.args(["ls", "--output", "json"]);
    let listed = finish(spawn(&mut command), RUN);
    assert_eq!(
        (listed.code, listed.stdout.as_str()),
        (Some(0), ""),
        "{listed:#?}"
    );
}

/// A run of the user's whose home and working folder are closed.
fn with_a_closed_home(user: &Ordinary, closed: &Path, runtime: Option<&Path>) -> Outcome {
    let run_file = user
        .home
        .run_file(json!({ "disk": { "image": "guest.qcow2" } }));
    std::fs::set_permissions(closed, PermissionsExt::from_mode(0o555))
        .expect("the owner may change its mode");
    let mut command = user.seectl();
    command
        .env("HOME", closed)
        .env_remove("XDG_CACHE_HOME")
        .env_remove("XDG_RUNTIME_DIR")
        .current_dir(closed)
        .args(["run", "--output", "json"])
        .arg(run_file)
        .arg("--sample")
        .arg(user.sample())
        .arg("--results")
        .arg(user.own.join("results"));
    if let Some(runtime) = runtime {
        command.env("XDG_RUNTIME_DIR", runtime);
    }
    finish(spawn(&mut command), RUN)
}

#[test]
fn a_home_that_cannot_be_written_does_not_matter_in_a_session() {
    let user = Ordinary::new();
    let closed = folder(user.home.path("closed"));
    // As a login makes it; without one libvirt insists on the home.
    let runtime = folder(user.home.path("run"));
    if user.is_root {
        chown(&runtime, Some(NOBODY), Some(NOBODY)).expect("root may");
    }
    assert_ran(&with_a_closed_home(&user, &closed, Some(&runtime)));
    let left = std::fs::read_dir(&closed)
        .expect("it is still there")
        .count();
    assert_eq!(left, 0);
}

#[test]
fn a_home_that_cannot_be_written_without_a_session_is_told_what_to_set() {
    let user = Ordinary::new();
    let closed = folder(user.home.path("closed"));
    let outcome = with_a_closed_home(&user, &closed, None);
    let failure = result(&outcome)["failure"].to_string();
    assert!(failure.contains("XDG_RUNTIME_DIR"), "{outcome:#?}");
    let identifier = result(&outcome)["identifier"].clone();
    assert_nothing_remains(identifier.as_str().expect("a text"));
}

#[test]
fn without_a_place_for_records_a_run_says_what_to_set() {
    let home = Home::new();
    let run_file = home.run_file(Home::embedded());
    let mut command = home.seectl();
    command
        .env_remove("HOME")
        .env_remove("SEE_STATE_DIR")
        .arg("run")
        .arg(run_file)
        .args(["--command", "true"]);
    let outcome = finish(spawn(&mut command), RUN);
    assert_eq!(outcome.code, Some(CONFIGURATION), "{outcome:#?}");
    assert!(outcome.stderr.contains("SEE_STATE_DIR"), "{outcome:#?}");
}

/// The names of the processes that ended and were never waited for.
fn zombies() -> Vec<String> {
    std::fs::read_dir("/proc")
        .expect("it is mounted")
        .filter_map(|process| {
            let stat = std::fs::read_to_string(process.ok()?.path().join("stat")).ok()?;
            let (name, fields) = stat.rsplit_once(") ")?;
            fields.starts_with('Z').then(|| name.to_owned())
        })
        .collect()
}

#[test]
fn where_pid_1_reaps_nobody_a_run_ends_as_elsewhere_and_leaves_no_zombie() {
    const NAME: &str = "where_pid_1_reaps_nobody_a_run_ends_as_elsewhere_and_leaves_no_zombie";
    const INSIDE: &str = "SEE_TEST_IS_PID_1";
    if std::env::var_os(INSIDE).is_some() {
        // This process waits for `seectl` and for nobody else, as a container's program would.
        assert_eq!(std::process::id(), 1);
        let home = Home::new();
        let run_file = home.run_file(Home::embedded());
        let sample = home.write("sample.sh", SAMPLE);
        let mut command = home.seectl();
        command
            .env_remove(INSIDE)
            .args(["run", "--output", "json"])
            .arg(run_file)
            .arg("--sample")
            .arg(sample);
        assert_ran(&finish(spawn(&mut command), RUN));
        assert_eq!(zombies(), Vec::<String>::new());
        return;
    }
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(std::env::current_exe().expect("a running test has a path"))
        .args(["--exact", "--nocapture", NAME])
        .env(INSIDE, "yes");
    let outcome = finish(spawn(&mut command), RUN);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    assert!(outcome.stdout.contains("1 passed"), "{outcome:#?}");
}

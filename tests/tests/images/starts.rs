//! A fetched image starts on the system's daemon, whose emulators run on an account that may not pass the store.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use see_tests::services::{self, Glance, Nginx, Swift};
use see_tests::{Footprint, Home, Live, Outcome, assert_nothing_remains, finish, guest, spawn};
use serde_json::{Value, json};

/// The longest that a run of a small guest may take on a busy host.
const RUN: Duration = Duration::from_secs(300);
/// A line that only a guest that booted from the image prints.
const COMMAND: &str = "echo booted from $(awk '$4 == \"vda\" { print $4 }' /proc/partitions)";
const PRINTED: &str = "booted from vda";
/// An account that is neither the user's nor the emulators'.
const STRANGER: u32 = 65534;

/// A home that nobody else passes, as root's is, with a run file for a machine on the system's daemon.
fn home(image: &Value) -> Home {
    let home = Home::new();
    let closed = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(home.folder(), closed).expect("it is ours");
    let run = json!({
        "version": 1,
        "context": {
            "hypervisor": "qemu:///system",
            "memory": "128MiB",
            "disk": { "image": image },
        },
        "hooks": {
            "configuration": { "results_folder": "results" },
            // A guest boots slowly on a busy host.
            "hooks": [{ "name": "commands", "configuration": { "ready_timeout": "160s" } }],
        },
        "protocol": [
            { "step": "poweron" },
            { "step": "wait", "for": "ready", "timeout": "170s" },
            { "step": "trigger", "event": "run_sample",
              "attributes": { "sample": "${sample}", "command": "${command}" } },
            { "step": "wait", "for": "sample_finished", "timeout": "150s" },
        ],
    });
    home.write("run.json", run.to_string());
    home
}

/// `seectl run run.json`, with the store where it is by default, and a strict umask.
fn run(home: &Home, command: &str) -> Command {
    let mut run = Command::new("sh");
    run.args(["-c", "umask 077 && exec \"$0\" \"$@\""])
        .arg(see_tests::seectl())
        .args(["run", "--output", "json", "run.json", "--command", command]);
    home.furnish(&mut run);
    run.env_remove("XDG_CACHE_HOME")
        .env_remove("SEE_IMAGE_STORE");
    run
}

/// The images in the store of a home.
fn images(home: &Home) -> PathBuf {
    home.path(".cache/see/images/images")
}

/// The only image there.
fn stored(images: &Path) -> PathBuf {
    let entries = std::fs::read_dir(images).expect("the store was made");
    let paths = entries.map(|entry| entry.expect("the store is readable").path());
    let mut found = paths.filter(|path| path.extension().is_none());
    let image = found.next().expect("the image was fetched");
    assert!(found.next().is_none(), "there is one image");
    image
}

/// Fails unless the guest ran the command, and nothing of it is left.
fn assert_ran(home: &Home, outcome: &Outcome) {
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let result = outcome.result();
    let result = &result["result"];
    let path = result["sample_result"]["stdout"].as_str();
    let path = path.unwrap_or_else(|| panic!("no output in {outcome:#?}"));
    let printed = std::fs::read_to_string(path).expect("it was kept");
    assert_eq!(printed.trim(), PRINTED, "{outcome:#?}");
    assert_nothing_remains(result["identifier"].as_str().expect("the run has one"));
    assert_eq!(home.listed(), Vec::<Value>::new());
}

/// Runs twice: what the first one fetched serves the second one, and is untouched by it.
fn assert_starts(image: &Value) {
    let home = home(image);
    assert_ran(&home, &finish(spawn(&mut run(&home, COMMAND)), RUN));
    let image = stored(&images(&home));
    let before = Footprint::of(&image);
    let outcome = finish(spawn(&mut run(&home, COMMAND)), RUN);
    assert_ran(&home, &outcome);
    assert!(!outcome.stderr.contains("copied"), "{outcome:#?}");
    before.assert_unchanged(&image);
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").mode() & 0o7777;
    assert_eq!(mode(&home.path(".cache/see/images")), 0o700);
    assert_eq!(mode(&images(&home)), 0o700);
}

fn served(nginx: &Nginx) -> Value {
    let content = std::fs::read(guest("guest.qcow2")).expect("it is built");
    nginx.put("guest.qcow2", &content);
    json!({ "provider": "http", "uri": nginx.url("guest.qcow2") })
}

#[test]
fn an_image_of_a_web_server_starts_on_the_system_daemon_with_default_settings() {
    let nginx = Nginx::start();
    assert_starts(&served(&nginx));
}

#[test]
fn an_image_of_glance_starts_on_the_system_daemon_with_default_settings() {
    let glance = services::glance().shared();
    let id = glance.upload_file("a guest that starts", &guest("guest.qcow2"));
    let user = Glance::USER;
    assert_starts(
        &json!({ "provider": "glance", "name": id, "provider_configuration": { "os_auth": {
            "auth_url": glance.identity_url(), "username": user.name, "password": user.password,
            "project_name": user.project, "user_domain_name": "Default",
            "project_domain_name": "Default" } } }),
    );
    glance.delete(&id);
}

#[test]
fn an_image_of_s3_starts_on_the_system_daemon_with_default_settings() {
    let swift = services::swift().shared();
    swift.bucket("starts");
    swift.put_file("starts", "guest.qcow2", &guest("guest.qcow2"));
    assert_starts(
        &json!({ "provider": "s3", "name": "guest.qcow2", "provider_configuration": {
            "bucket_name": "starts", "auth": { "endpoint_url": swift.endpoint(),
                "region_name": Swift::REGION, "aws_access_key_id": Swift::KEY,
                "aws_secret_access_key": Swift::SECRET } } }),
    );
}

/// Starts a run that goes on until it is ended, and gives it with its identifier once the guest is up.
fn running(home: &Home) -> (Live, String) {
    let mut live = Live::start(&mut run(home, "sleep 1000"));
    let ready = live.wait_for("guest", RUN, |line| line["event"] == "ready");
    assert!(ready.is_some(), "{live:#?}");
    let identifier = home.recorded().pop().expect("it has a record");
    (live, identifier)
}

/// Whether an account without further rights may do what a test of the shell asks: `-r`, `-w`.
fn may(account: (u32, u32), what: &str, path: &Path) -> bool {
    let (user, group) = account;
    let mut test = Command::new("setpriv");
    test.args([format!("--reuid={user}"), format!("--regid={group}")])
        .args(["--clear-groups", "--", "test", what])
        .arg(path);
    test.status().expect("setpriv is installed").success()
}

#[test]
fn while_it_runs_the_emulators_account_alone_reads_the_stored_image_and_nobody_writes_it() {
    let nginx = Nginx::start();
    let home = home(&served(&nginx));
    let (mut live, identifier) = running(&home);
    let image = stored(&images(&home));
    let folder = Path::new("/var/tmp").join(format!("see-{identifier}"));
    let (base, disk) = (folder.join("base/base.img"), folder.join("disk.qcow2"));
    let of =
        |path: &Path| std::fs::metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    assert_eq!(of(&base).ino(), of(&image).ino(), "one file, no copy");
    // libvirt gave it the overlay.
    let emulator = (of(&disk).uid(), of(&disk).gid());
    assert_ne!(emulator.0, 0);
    assert!(may(emulator, "-r", &base));
    for account in [emulator, (STRANGER, STRANGER)] {
        assert!(!may(account, "-w", &base), "{account:?}");
        assert!(!may(account, "-r", &image), "{account:?}");
    }
    assert!(!may((STRANGER, STRANGER), "-r", &base));
    // Killed, it leaves the link to its ledger.
    live.signal(see_tests::services::Signal::KILL);
    live.finish(RUN);
    let gc = home.run(["gc"], RUN);
    assert_eq!(gc.code, Some(0), "{gc:#?}");
    assert_nothing_remains(&identifier);
    assert_eq!(of(&image).nlink(), 1);
}

#[test]
fn a_store_on_another_file_system_serves_the_system_daemon_by_copies() {
    let elsewhere = tempfile::Builder::new()
        .prefix("see-test-store-")
        .tempdir_in("/dev/shm")
        .expect("it is writable");
    let nginx = Nginx::start();
    let mut section = served(&nginx);
    section["provider_configuration"] =
        json!({ "cache": { "folder": elsewhere.path().join("store") } });
    let home = home(&section);
    let outcome = finish(spawn(&mut run(&home, COMMAND)), RUN);
    assert_ran(&home, &outcome);
    assert!(outcome.stderr.contains("cache.folder"), "{outcome:#?}");
    let image = stored(&elsewhere.path().join("store/images"));
    assert_eq!(std::fs::metadata(image).expect("it stays").uid(), 0);
}

#[test]
fn an_image_of_the_users_own_in_a_closed_home_starts_on_the_system_daemon_and_stays_as_it_is() {
    let home = home(&json!("users/guest.qcow2"));
    std::fs::create_dir(home.path("users")).expect("the home is writable");
    std::fs::copy(guest("guest.qcow2"), home.path("users/guest.qcow2")).expect("so is this");
    let closed = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(home.path("users/guest.qcow2"), closed).expect("it is ours");
    let before = Footprint::of(&home.path("users"));
    let outcome = finish(spawn(&mut run(&home, COMMAND)), RUN);
    assert_ran(&home, &outcome);
    let told = outcome.stderr.contains(&*home.folder().to_string_lossy());
    assert!(told, "what keeps the account out? {outcome:#?}");
    before.assert_unchanged(&home.path("users"));
}

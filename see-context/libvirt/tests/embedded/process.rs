//! Running the body of a test in processes of their own.

use std::future::Future;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant};

use see_libvirt::{Connection, Domain, EmbeddedRoot, EmulatorAccount};
use uuid::Uuid;

/// For anything that should take moments, on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// The role of a process that is the first of a namespace of its own: orphans come to it.
pub(crate) const FIRST: &str = "first";

const ROLE: &str = "SEE_TEST_ROLE";
const PLACE: &str = "SEE_TEST_PLACE";

/// What a process of a test has to play.
pub(crate) struct Part {
    pub(crate) role: String,
    /// A folder of the test, short enough for roots; removed at its end.
    pub(crate) place: PathBuf,
}

impl Part {
    /// The root that the test's processes share.
    pub(crate) fn root_path(&self) -> PathBuf {
        self.place.join("r")
    }

    /// Prepares the root and opens it. What libvirt learns of the emulators is kept between
    /// tests.
    pub(crate) async fn open(&self) -> Connection {
        let root = self.new_root(&self.root_path(), &shared_cache());
        Connection::open_embedded(&root, LIMIT).await.unwrap()
    }

    pub(crate) fn new_root(&self, path: &Path, saved: &Path) -> EmbeddedRoot {
        EmbeddedRoot::create(path, Some(saved), EmulatorAccount::default()).unwrap()
    }
}

/// A domain that is defined and runs.
pub(crate) async fn started(connection: &Connection, xml: &str) -> Domain {
    let domain = connection.define_domain(xml).await.unwrap();
    domain.start().await.unwrap();
    domain
}

fn shared_cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("embedded-capabilities")
}

/// Plays `roles` one after the other, each in a process that runs only the test `name`, and
/// hands the exit status of each to `check`. In those processes, plays `body` instead.
pub(crate) fn play<F>(
    name: &str,
    roles: &[&str],
    body: impl FnOnce(Part) -> F,
    check: impl Fn(&str, ExitStatus),
) where
    F: Future<Output = ()>,
{
    if let (Ok(role), Some(place)) = (std::env::var(ROLE), std::env::var_os(PLACE)) {
        let part = Part {
            role,
            place: place.into(),
        };
        tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(async { tokio::time::timeout(3 * LIMIT, body(part)).await })
            .expect("the part ends in time");
        return;
    }
    let place = tempfile::Builder::new()
        .prefix("see-")
        .rand_bytes(6)
        .tempdir_in("/tmp")
        .unwrap();
    let _emulators = Ended(place.path());
    for role in roles {
        let status = perform(name, role, place.path());
        check(role, status);
    }
    let left = emulators_under(place.path());
    assert!(left.is_empty(), "still running: {left:?}");
}

/// Ends the emulators that a failed test left.
struct Ended<'a>(&'a Path);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        for (pid, _) in emulators(self.0) {
            // The test has failed already; there is no more to tell.
            let _ = Command::new("kill").args(["-9", &pid]).status();
        }
    }
}

/// Runs the test `name` in a new process as `role`.
pub(crate) fn perform(name: &str, role: &str, place: &Path) -> ExitStatus {
    let program = std::env::current_exe().unwrap();
    let mut command = if role == FIRST {
        let mut command = Command::new("unshare");
        if !rustix::process::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.arg(program);
        command
    } else {
        Command::new(program)
    };
    command
        .args(["--exact", "--nocapture", "--test-threads=1", name])
        .env(ROLE, role)
        .env(PLACE, place)
        .status()
        .unwrap()
}

/// A role has to end well.
pub(crate) fn succeeds(role: &str, status: ExitStatus) {
    assert!(status.success(), "{role}: {status}");
}

/// The role "owner" dies of SIGKILL, the others end well.
pub(crate) fn owner_is_killed(role: &str, status: ExitStatus) {
    if role == "owner" {
        assert_eq!(status.signal(), Some(9), "{role}: {status}");
    } else {
        succeeds(role, status);
    }
}

/// The emulators that name `place`, after those about to end had time.
fn emulators_under(place: &Path) -> Vec<(String, String)> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let found = emulators(place);
        if found.is_empty() || Instant::now() > deadline {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The pid and command line of each emulator that names `place`.
fn emulators(place: &Path) -> Vec<(String, String)> {
    let wanted = place.to_str().unwrap();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let line = std::fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            let ours = line.contains("qemu") && line.contains(wanted);
            ours.then(|| (entry.file_name().to_string_lossy().into_owned(), line))
        })
        .collect()
}

/// A machine of 32 MiB with a screen and nothing to boot from.
pub(crate) fn machine(uuid: Uuid) -> String {
    format!(
        "<domain type='qemu'><name>see-{uuid}</name><uuid>{uuid}</uuid>\
         <metadata><l:run xmlns:l='urn:see:test'>mine</l:run></metadata>\
         <memory unit='MiB'>32</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os>\
         <devices><controller type='usb' model='none'/><memballoon model='none'/>\
         <video><model type='vga'/></video></devices></domain>"
    )
}

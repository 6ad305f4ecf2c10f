//! A home of its own for each test: state, cache and runtime folders that nobody else uses.

use std::fs::Permissions;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::parts;

/// How long a failed test's home may take to be collected: a daemon that crashed is started again meanwhile.
const COLLECTION: Duration = Duration::from_secs(10);

/// A home in which `seectl` runs. What a test that fails leaves in its ledger is collected.
///
/// The capability cache of the emulators is shared between homes, since filling it takes seconds.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
}

/// How a run of `seectl` ended.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code; `None` after a signal.
    pub code: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

impl Outcome {
    /// The events of a run with `--output json`, by name.
    pub fn events(&self, name: &str) -> Vec<Value> {
        self.lines()
            .filter(|line| line.get("event").and_then(Value::as_str) == Some(name))
            .collect()
    }

    /// The result of a run with `--output json`: its last line.
    pub fn result(&self) -> Value {
        self.lines()
            .last()
            .unwrap_or_else(|| panic!("no result in: {self:#?}"))
    }

    fn lines(&self) -> impl Iterator<Item = Value> {
        self.stdout.lines().map(|line| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("not JSON ({error}): {line}"))
        })
    }
}

impl Home {
    /// A fresh one.
    pub fn new() -> Self {
        let folder = tempfile::Builder::new()
            .prefix("see-test-")
            .tempdir()
            .expect("a temporary folder");
        Self { folder }
    }

    /// A fresh one whose folder has this in its name.
    pub fn named(part: &str) -> Self {
        let folder = tempfile::Builder::new()
            .prefix(&format!("see-test-{part}-"))
            .tempdir()
            .expect("a temporary folder");
        Self { folder }
    }

    /// A fresh one that other accounts may pass through, such as that of the system daemon's emulators.
    pub fn passable() -> Self {
        let home = Self::new();
        std::fs::set_permissions(home.folder.path(), Permissions::from_mode(0o755))
            .expect("the owner may change its mode");
        home
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A folder in it for sockets and what else lives as long as a run, made where it is missing. A command
    /// that gets it as its `TMPDIR` shares it with nobody.
    pub fn runtime(&self) -> PathBuf {
        let path = self.path("t");
        std::fs::create_dir_all(&path).expect("the test's folder is writable");
        path
    }

    /// A copy of one of the small guest's files in it, so that the file has nobody else's traces.
    pub fn guest(&self, file: &str) -> PathBuf {
        let path = self.path(file);
        std::fs::copy(parts::guest(file), &path).expect("the test's folder is writable");
        path
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file into it.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("the test's folder is writable");
        path
    }

    /// A run file: this context section, the hooks `commands` and `screen`.
    pub fn run_file(&self, context: Value) -> PathBuf {
        let run = json!({
            "version": 1,
            "context": context,
            "hooks": {
                "configuration": { "results_folder": "results" },
                "hooks": [
                    // A guest boots slowly on a busy host.
                    { "name": "commands", "configuration": { "ready_timeout": "160s" } },
                    { "name": "screen", "configuration": {
                        "screenshot_on_event": ["ready", "snapshots_capture"] } },
                ],
            },
        });
        self.write(
            "run.json",
            serde_json::to_vec_pretty(&run).expect("it is JSON"),
        )
    }

    /// A run file: this context section, a guest that boots, runs `${command}` as its sample, and is switched off.
    pub fn sampling(&self, context: &Value) -> PathBuf {
        let run = json!({
            "version": 1,
            "context": context,
            // Guests of several tests at once boot slowly on a busy host.
            "hooks": { "configuration": { "results_folder": "results" },
                       "hooks": [{ "name": "commands", "configuration": { "ready_timeout": "160s" } }] },
            "protocol": [
                { "step": "poweron" },
                { "step": "wait", "for": "ready", "timeout": "160s" },
                { "step": "trigger", "event": "run_sample", "attributes": { "command": "${command}" } },
                { "step": "wait", "for": "sample_finished", "timeout": "160s" },
                { "step": "poweroff" },
            ],
        });
        self.write("run.json", run.to_string())
    }

    /// The context section of an embedded machine with the small guest.
    pub fn embedded() -> Value {
        json!({ "disk": { "image": parts::guest("guest.qcow2") } })
    }

    /// `seectl` with this home, ready to be given arguments.
    pub fn seectl(&self) -> Command {
        let mut command = Command::new(parts::seectl());
        self.furnish(&mut command);
        command
    }

    /// Points a command at this home.
    pub fn furnish(&self, command: &mut Command) {
        command
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env("SEE_STATE_DIR", self.path("state"))
            .env("XDG_CACHE_HOME", shared_cache())
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .stdin(Stdio::null());
    }

    /// Runs `seectl` to its end, for at most `deadline`.
    pub fn run<S: AsRef<std::ffi::OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        deadline: Duration,
    ) -> Outcome {
        let mut command = self.seectl();
        command.args(arguments);
        finish(spawn(&mut command), deadline)
    }

    /// What the ledger of this home still holds: `seectl ls --output json`.
    pub fn listed(&self) -> Vec<Value> {
        let outcome = self.run(["ls", "--output", "json"], Duration::from_secs(30));
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        outcome.lines().collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        if !std::thread::panicking() || !self.path("state").exists() {
            return;
        }
        let end = Instant::now() + COLLECTION;
        loop {
            let mut gc = self.seectl();
            gc.arg("gc").stdout(Stdio::null()).stderr(Stdio::null());
            // The test has failed already; there is no more to tell.
            if gc.status().is_ok_and(|status| status.success()) || Instant::now() >= end {
                return;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Default for Home {
    fn default() -> Self {
        Self::new()
    }
}

/// Starts a command with its output piped.
pub fn spawn(command: &mut Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be started")
}

/// Waits for a process that [`spawn`] started; one that is not done in time is killed, and the test fails.
pub fn finish(mut child: Child, deadline: Duration) -> Outcome {
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let end = Instant::now() + deadline;
    let mut late = false;
    let status = loop {
        match child.try_wait().expect("a child can be waited for") {
            Some(status) => break status,
            None if Instant::now() >= end && !late => {
                late = true;
                child.kill().expect("a child can be killed");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let outcome = Outcome {
        code: status.code(),
        stdout: stdout.join().expect("a reader does not panic"),
        stderr: stderr.join().expect("a reader does not panic"),
    };
    assert!(!late, "not done within {deadline:?}: {outcome:#?}");
    outcome
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            pipe.read_to_end(&mut bytes).expect("a pipe can be read");
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn shared_cache() -> PathBuf {
    let cache: &Path = &parts::target_folder().join("test-cache");
    std::fs::create_dir_all(cache).expect("the target folder is writable");
    cache.to_owned()
}

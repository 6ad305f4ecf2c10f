//! `seectl` with the fake backend: a process like the real one, that needs no hypervisor.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use async_trait::async_trait;
use see_core::testing::{FakeBackend, FakeControl};
use see_core::{Context, Event, Hook, Picture, Registries, Result};
use tempfile::TempDir;

/// The words that run the place's sample.
pub(crate) const RUN: [&str; 4] = ["run", "run.json", "--sample", "sample.sh"];
/// The same, told as JSON.
pub(crate) const RUN_JSON: [&str; 6] = [RUN[0], RUN[1], RUN[2], RUN[3], "--output", "json"];

/// Set in the environment of a process that is to be `seectl`.
pub(crate) const PLAY: &str = "SEE_TEST_PLAYS_SEECTL";

/// What the test binary does when it plays `seectl`.
pub(crate) fn play() -> ExitCode {
    see_cli::main(|| {
        let mut registries = Registries::new();
        registries.backends.add::<FakeBackend>()?;
        registries.hooks.add::<Guest>()?;
        see_image_providers::register(&mut registries)?;
        Ok(registries)
    })
}

/// A hook that stands for a guest whose agent answers at once: it says `ready`, "runs" the sample, and
/// reports what its configuration tells it to.
struct Guest {
    untidy: bool,
}

#[derive(serde::Deserialize)]
struct GuestConfiguration {
    /// Where results belong.
    results_folder: Option<PathBuf>,
    /// What the sample prints.
    prints: Option<String>,
    /// What a sample prints that never ends.
    prints_and_hangs: Option<String>,
    /// Whether the sample's run leaves a file where the result belongs.
    #[serde(default)]
    forges: bool,
    /// A file of the host that the first sample's run removes.
    removes: Option<PathBuf>,
    /// The attributes of `sample_finished`; without them the sample never ends.
    finishes: Option<serde_json::Map<String, serde_json::Value>>,
    /// The event at which it fails.
    fails_at: Option<String>,
    /// Whether the cleanup fails.
    #[serde(default)]
    untidy: bool,
    /// Whether the guest never answers.
    #[serde(default)]
    silent: bool,
}

fn mess() -> see_core::Error {
    see_core::Error::new(see_core::ErrorKind::Hook, "it is a mess")
}

#[async_trait]
impl Hook for Guest {
    const NAME: &'static str = "commands";
    type Configuration = GuestConfiguration;

    async fn attach(configuration: GuestConfiguration, context: &Context) -> Result<Self> {
        let (untidy, is_silent) = (configuration.untidy, configuration.silent);
        if let Some(event) = &configuration.fails_at {
            let failing = context.clone();
            context.subscribe(event, move |event| {
                failing.report_failure(event.name(), &mess());
            });
        }
        let posting = context.clone();
        context.subscribe("post_poweron", move |_| {
            if is_silent {
                let native = posting.machine().native();
                let control = native.and_then(|native| native.downcast_ref::<FakeControl>());
                control.expect("it is the fake's").show(Picture {
                    mime_type: String::from("image/png"),
                    bytes: b"No bootable device".to_vec(),
                });
                return;
            }
            let _ = posting.post("ready");
            let _ = posting.post(Event::new("weather").with("sky", "\u{1b}[31mred"));
        });
        let posting = context.clone();
        context.subscribe("run_sample", move |_| {
            if let (true, Some(folder)) = (configuration.forges, &configuration.results_folder) {
                std::fs::write(folder.join("result.json"), "{}")
                    .expect("the results folder exists");
            }
            if let Some(path) = &configuration.removes {
                let _ = std::fs::remove_file(path);
            }
            if let (Some(folder), Some(text)) = (
                &configuration.results_folder,
                &configuration.prints_and_hangs,
            ) {
                std::fs::write(folder.join("sample.stdout"), text)
                    .expect("the results folder exists");
            }
            let Some(attributes) = &configuration.finishes else {
                return;
            };
            let mut event = Event::new("sample_finished");
            for (name, value) in attributes {
                event = event.with(name.clone(), value.clone());
            }
            if let (Some(folder), Some(text)) =
                (&configuration.results_folder, &configuration.prints)
            {
                std::fs::write(folder.join("stdout"), text).expect("the results folder exists");
                event = event.with("stdout", folder.join("stdout"));
            }
            let _ = posting.post(event);
        });
        Ok(Self { untidy })
    }

    async fn cleanup(&self) -> Result<()> {
        match self.untidy {
            true => Err(mess()),
            false => Ok(()),
        }
    }
}

/// A place of its own for one test: a home, a ledger, a folder that the fake backend fills.
pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let folder = TempDir::with_prefix("seectl ü ").unwrap();
        std::fs::create_dir(folder.path().join("made")).unwrap();
        std::fs::create_dir(folder.path().join("home")).unwrap();
        std::fs::write(folder.path().join("sample.sh"), "exit 3").unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes the run file: `context` is added to the fake backend's, `hook` is the guest's configuration.
    pub(crate) fn run_file(&self, context: serde_json::Value, hook: serde_json::Value) -> PathBuf {
        let mut run = serde_json::json!({
            "version": 1,
            "context": { "backend": "fake", "folder": self.path().join("made") },
            "hooks": { "hooks": [{ "name": "commands", "configuration": hook }] },
        });
        for (key, value) in context.as_object().unwrap() {
            run["context"][key] = value.clone();
        }
        let path = self.path().join("run.json");
        std::fs::write(&path, serde_json::to_vec_pretty(&run).unwrap()).unwrap();
        path
    }

    /// `seectl` with these arguments, in the place's folder.
    pub(crate) fn seectl<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(arguments)
            .env(PLAY, "1")
            .env("HOME", self.path().join("home"))
            .env_remove("XDG_STATE_HOME")
            .env_remove("SEE_STATE_DIR")
            .env_remove("SEE_LOG")
            .env_remove("SEE_IMAGE_STORE")
            .env_remove("XDG_CACHE_HOME")
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// A run of the sample that goes on, and tells its events as JSON.
    pub(crate) fn running(&self) -> Running {
        Running::start(self.seectl(RUN_JSON))
    }

    /// Runs `seectl` to its end.
    pub(crate) fn output<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ended {
        Ended::of(&self.seectl(arguments).output().unwrap())
    }

    /// What the fake backend made and nobody removed.
    pub(crate) fn made(&self) -> usize {
        std::fs::read_dir(self.path().join("made")).unwrap().count()
    }

    /// Removes the empty folders that stand in its place.
    pub(crate) fn remove_made(&self) {
        for folder in std::fs::read_dir(self.path().join("made")).unwrap() {
            std::fs::remove_dir(folder.unwrap().path()).unwrap();
        }
    }

    /// Everything that exists, beneath the place.
    pub(crate) fn everything(&self) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, found);
                }
                found.push(path);
            }
        }
        let mut found = Vec::new();
        walk(self.path(), &mut found);
        found.sort();
        found
    }

    /// The results folders of the runs so far.
    pub(crate) fn results(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path().join("results")).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }
}

/// How a `seectl` ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout.clone()).unwrap(),
            stderr: String::from_utf8(output.stderr.clone()).unwrap(),
        }
    }

    /// The lines of stdout as JSON.
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

/// A `seectl` that runs, whose lines are read as they come.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Receiver<String>,
    stderr: Receiver<String>,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let lines = reader(child.stdout.take().unwrap());
        let stderr = reader(child.stderr.take().unwrap());
        Self {
            child,
            lines,
            stderr,
        }
    }

    /// Waits for a line with this text on stdout.
    pub(crate) fn wait_for(&self, text: &str) {
        loop {
            match self.lines.recv_timeout(Duration::from_secs(30)) {
                Ok(line) if line.contains(text) => return,
                Ok(_) => {}
                Err(error) => panic!("no line with {text:?}: {error}"),
            }
        }
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; the rest of both streams is read meanwhile.
    pub(crate) fn end(mut self) -> Ended {
        let rest = |lines: &Receiver<String>| {
            let mut text = String::new();
            loop {
                match lines.recv_timeout(Duration::from_secs(60)) {
                    Ok(line) => text.push_str(&(line + "\n")),
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => return text,
                    Err(error) => panic!("seectl does not end: {error}"),
                }
            }
        };
        let stdout = rest(&self.lines);
        let stderr = rest(&self.stderr);
        Ended {
            code: self.child.wait().unwrap().code(),
            stdout,
            stderr,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A test that failed must not leave its process; one that ended already is no error to care for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn reader(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

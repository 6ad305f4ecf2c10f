//! The workspace's test programs: built together, run side by side.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::command::{self, Finished};
use crate::failure::{Failure, While};
use crate::hosts::{Entered, Facts};

/// The crate whose tests run real machines.
const MACHINES: &str = "see-tests";
/// How many programs run side by side, each with as many tests at once as there are cores.
const AT_ONCE: usize = 2;
/// The program that takes longest.
const LONGEST: &str = "see-tests torture";

/// One test program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// Its crate, and its name in it.
    name: String,
    executable: PathBuf,
    /// The crate's folder, which is the one it is run in.
    folder: PathBuf,
    /// Whether it runs real machines.
    machines: bool,
    /// The tests that are run; all where it is empty.
    only: &'static [&'static str],
}

/// A line that cargo tells of a build.
#[derive(Deserialize)]
struct Message {
    package_id: Option<String>,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

/// Builds the test programs of `cargo test` with these words, and lists them.
pub(crate) fn build(cargo: &mut Command, deadline: Duration) -> Result<Vec<Program>, Failure> {
    let words = [
        "--no-run",
        "--quiet",
        "--message-format=json-render-diagnostics",
    ];
    let told = command::output(cargo.args(words), deadline)?;
    let programs: Vec<Program> = told.lines().filter_map(Program::of).collect();
    if programs.is_empty() {
        return Err(Failure::new("cargo told of no test program"));
    }
    Ok(programs)
}

impl Program {
    /// The program that a line of cargo's tells of.
    fn of(line: &str) -> Option<Self> {
        let message: Message = serde_json::from_str(line).ok()?;
        if !message.profile?.test {
            return None;
        }
        let folder = message.manifest_path?.parent()?.to_owned();
        let executable = message.executable?;
        let package_id = message.package_id?;
        let package = package(&package_id)?;
        Some(Self {
            name: format!("{package} {}", message.target?.name),
            machines: package == MACHINES,
            executable,
            folder,
            only: &[],
        })
    }

    /// Its name as a part of a file's.
    pub(crate) fn file_name(&self) -> String {
        self.name.replace(' ', "-")
    }

    /// The program of these facts, to show them alone.
    fn showing(&self, facts: &Facts) -> Option<Self> {
        (self.name == facts.program).then(|| Self {
            only: facts.tests,
            ..self.clone()
        })
    }

    /// The program as a command: on another host where one is given.
    pub(crate) fn command(&self, host: Option<&Entered>) -> Command {
        let mut command = Command::new(&self.executable);
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder)
            // What fails once fails again: new inputs are a campaign's.
            .env("PROPTEST_RNG_SEED", "1");
        match host {
            Some(host) => host.inside(&command),
            None => command,
        }
    }

    fn run(self, place: &Place<'_>) -> Result<Ran, Failure> {
        let Place {
            host,
            threads,
            deadline,
            logs,
        } = *place;
        let started = Instant::now();
        let mut command = self.command(host);
        command.arg(format!("--test-threads={threads}"));
        if !self.only.is_empty() {
            command.arg("--exact").args(self.only);
        }
        let finished = command::finish(&mut command, deadline)?;
        let name = match host {
            Some(host) => format!("{} on {}", self.name, host.host.name),
            None => self.name.clone(),
        };
        let log = logs.join(format!("{}.log", name.replace(' ', "-")));
        fs::write(&log, format!("{}{}", finished.stdout, finished.stderr))
            .doing(format_args!("cannot write {}", log.display()))?;
        Ok(Ran {
            program: self,
            name,
            finished,
            seconds: started.elapsed().as_secs_f64(),
            log,
        })
    }
}

/// The name in a package's identifier: `path+file:///folder#name@version`, or `path+file:///name#version`.
fn package(identifier: &str) -> Option<&str> {
    let (path, rest) = identifier.rsplit_once('#')?;
    match rest.split_once('@') {
        Some((name, _)) => Some(name),
        None => path.rsplit('/').next(),
    }
}

/// A test program that was run.
#[derive(Debug)]
pub(super) struct Ran {
    program: Program,
    name: String,
    finished: Finished,
    pub(super) seconds: f64,
    pub(super) log: PathBuf,
}

/// Where and how programs are run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The other host, if it is not this one.
    pub(super) host: Option<&'a Entered>,
    /// How many tests of a program run at once.
    pub(super) threads: usize,
    /// The longest that a program may run.
    pub(super) deadline: Duration,
    /// The folder of what they print.
    pub(super) logs: &'a Path,
}

/// The programs of these facts, each to show its own.
pub(super) fn showing(programs: &[Program], facts: &[Facts]) -> Result<Vec<Program>, Failure> {
    let of = |facts: &Facts| {
        let found = programs.iter().find_map(|program| program.showing(facts));
        found.ok_or_else(|| Failure::new(format!("no test program is called {}", facts.program)))
    };
    facts.iter().map(of).collect()
}

/// Runs programs, so many at once, since one of real machines waits most of the time. Those go first, of them
/// the longest: the short ones then fill what is left.
pub(super) fn run(mut programs: Vec<Program>, place: &Place<'_>) -> Result<Vec<Ran>, Failure> {
    programs.sort_by_key(|program| (!program.machines, program.name != LONGEST));
    let queue = Mutex::new(programs.into_iter());
    let next = || queue.lock().ok()?.next();
    let worker = || -> Result<Vec<Ran>, Failure> {
        std::iter::from_fn(next)
            .map(|program| program.run(place))
            .collect()
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(worker)).collect();
        let mut all = Vec::new();
        for worker in workers {
            let ran = worker.join();
            all.extend(ran.map_err(|_| Failure::new("a thread of the tests panicked"))??);
        }
        Ok(all)
    })
}

impl Ran {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// How many passed and failed.
    pub(super) fn count(&self) -> Count {
        let mut count = Count::of(&self.finished.stdout);
        // One that dies leaves no summary; it must not go uncounted.
        if !self.finished.status.success() && count.failed == 0 {
            count.failed = 1;
        }
        // Nor must a test that was asked for by a name that none has.
        let asked = self.program.only.len() as u64;
        count.failed += asked.saturating_sub(count.passed + count.failed);
        count
    }

    /// The parts of the output that belong to failures.
    pub(super) fn failing(&self) -> String {
        let asked = self.program.only.iter();
        let missing = asked.filter(|name| !self.finished.stdout.contains(&format!("test {name} ")));
        let missing: String = missing
            .map(|name| format!("\nno test is called {name}"))
            .collect();
        format!(
            "{}{missing}\n{}",
            self.name(),
            failing(&self.finished.stdout)
        )
    }
}

/// How many tests passed and failed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) passed: u64,
    pub(super) failed: u64,
}

impl Count {
    /// Reads the summary that a test program ends with: the last one, since a test that runs its own program
    /// again prints that one's, too.
    pub(super) fn of(output: &str) -> Self {
        let mut summaries = output
            .lines()
            .filter_map(|line| line.strip_prefix("test result: "));
        let Some(summary) = summaries.next_back() else {
            return Self::default();
        };
        let number = |what: &str| -> u64 {
            summary
                .split([';', '.'])
                .filter_map(|part| part.trim().strip_suffix(what))
                .find_map(|number| number.trim().parse().ok())
                .unwrap_or(0)
        };
        Self {
            passed: number("passed"),
            failed: number("failed"),
        }
    }
}

impl std::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

/// The parts of an output that belong to failures.
pub(super) fn failing(stdout: &str) -> String {
    let mut shown = Vec::new();
    let mut inside = false;
    for line in stdout.lines() {
        if line == "failures:" {
            inside = true;
        } else if line.starts_with("test result:") {
            inside = false;
        }
        if inside {
            shown.push(line);
        }
    }
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str) -> Program {
        Program {
            name: format!("{MACHINES} {name}"),
            executable: PathBuf::from("true"),
            folder: PathBuf::from("/"),
            machines: true,
            only: &[],
        }
    }

    #[test]
    fn the_facts_of_another_host_are_shown_by_their_programs_alone() {
        let facts = [Facts {
            program: "see-tests b",
            tests: &["one"],
        }];
        let shown = showing(&[program("a"), program("b")], &facts).expect("there is one");
        let [shown] = &shown[..] else {
            panic!("{shown:?}");
        };
        assert_eq!(
            (shown.name.as_str(), shown.only),
            ("see-tests b", &["one"][..])
        );
        let failure = showing(&[program("a")], &facts).expect_err("there is none");
        assert!(
            failure.message.ends_with("is called see-tests b"),
            "{failure}"
        );
    }

    #[test]
    fn a_test_that_was_asked_for_by_a_name_that_none_has_is_a_failure_and_told() {
        let stdout = "test one ... ok\n\ntest result: ok. 1 passed; 0 failed; 0 ignored\n";
        let ran = Ran {
            program: Program {
                only: &["one", "two"],
                ..program("a")
            },
            name: "see-tests a".to_owned(),
            finished: Finished {
                status: std::process::ExitStatus::default(),
                stdout: stdout.to_owned(),
                stderr: String::new(),
            },
            seconds: 0.0,
            log: PathBuf::new(),
        };
        let expected = Count {
            passed: 1,
            failed: 1,
        };
        assert_eq!(ran.count(), expected);
        assert!(ran.failing().contains("no test is called two"));
    }

    #[test]
    fn the_last_summary_is_the_programs_own() {
        let output = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 11 filtered out; finished in \
                      0.10s\nother\ntest result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered \
                      out; finished in 1.00s\n";
        let count = Count {
            passed: 3,
            failed: 2,
        };
        assert_eq!(Count::of(output), count);
    }

    #[test]
    fn only_what_failed_is_shown() {
        let output =
            "test a ... ok\nfailures:\n---- b ----\nboom\ntest result: FAILED. x\ntest c\n";
        assert_eq!(failing(output), "failures:\n---- b ----\nboom");
    }

    #[test]
    fn only_what_cargo_built_to_be_tested_is_run() {
        let line = |test: bool| {
            serde_json::json!({
                "reason": "compiler-artifact", "manifest_path": "/a/xtask/Cargo.toml",
                "package_id": "path+file:///a/xtask#0.1.0",
                "target": {"name": "x", "kind": ["bin"]}, "profile": {"test": test},
                "executable": "/target/x-1",
            })
            .to_string()
        };
        let program = Program::of(&line(true)).expect("a test program");
        assert_eq!(program.name, "xtask x");
        assert_eq!(
            package("path+file:///a/tests#see-tests@0.1.0"),
            Some(MACHINES)
        );
        assert!(!program.machines);
        assert_eq!(Program::of(&line(false)), None);
        assert_eq!(Program::of("{\"reason\": \"build-finished\"}"), None);
    }
}

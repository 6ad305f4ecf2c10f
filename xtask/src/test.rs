//! `test`: every fact once, and nothing left behind.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::command;
use crate::demos;
use crate::failure::{Failure, While, exit_code};
use crate::fuzz;
use crate::guest;
use crate::leftovers::Look;
use crate::setup::{self, Purpose, Started};
use crate::stage::stage;
use crate::tidy;
use crate::workspace;

/// What the whole workspace may take to compile and to test.
const DEADLINE: Duration = Duration::from_secs(1800);

/// How many tests passed and failed, summed over all test programs.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

impl Count {
    /// Reads the summaries that each test program ends with.
    fn of(output: &str) -> Self {
        let mut count = Self::default();
        for line in output.lines() {
            let Some(summary) = line.trim_start().strip_prefix("test result: ") else {
                continue;
            };
            // A test that runs its own program again prints that one's summary among its own.
            if !summary.contains(" 0 filtered out") {
                continue;
            }
            let number = |what: &str| -> u64 {
                summary
                    .split([';', '.'])
                    .filter_map(|part| part.trim().strip_suffix(what))
                    .find_map(|number| number.trim().parse().ok())
                    .unwrap_or(0)
            };
            count.passed += number("passed");
            count.failed += number("failed");
        }
        count
    }
}

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    if !words.is_empty() {
        return Err(Failure::usage("usage: cargo xtask test"));
    }
    let started = Instant::now();
    stage("setup", || setup::install(Purpose::Everything))?;
    let daemon = stage("libvirtd", setup::start_daemon)?;
    let before = Look::now();
    let mut count = Count::default();
    let mut failures = checks(&mut count);
    // Looked at while the daemon still answers, or its objects would be hidden.
    let left = stage("nothing left behind", || {
        let left = before.left_since();
        if left.is_empty() {
            return Ok(());
        }
        Err(Failure::with(
            exit_code::LEFT_BEHIND,
            format!("left behind:\n  {}", left.join("\n  ")),
        ))
    });
    if let Err(failure) = left {
        failures.push(failure);
    }
    if daemon == Started::Yes
        && let Err(failure) = stage("stop libvirtd", || setup::stop_daemon().map(drop))
    {
        failures.push(failure);
    }
    for failure in &failures {
        println!("\n{failure}");
    }
    println!("\ntook {:.0} s", started.elapsed().as_secs_f64());
    println!("{} passed, {} failed", count.passed, count.failed);
    let Some(first) = failures.first() else {
        return Ok(());
    };
    Err(Failure::with(
        first.exit,
        format!("{} of the stages failed", failures.len()),
    ))
}

/// Runs every stage, also after one has failed: a person wants to see all.
fn checks(count: &mut Count) -> Vec<Failure> {
    let mut failures = Vec::new();
    if let Err(failure) = stage("guest", || guest::build().map(drop)) {
        // Without the guest every test of a real machine would fail, too.
        return vec![failure];
    }
    let threads = std::thread::available_parallelism().map_or(2, |cores| cores.get());
    let threads = format!("--test-threads={}", threads.clamp(2, 4));
    let everything = ["--workspace", "--locked", "--no-fail-fast"];
    let targets = ["--lib", "--bins", "--tests", "--examples"];
    let mut outcomes = vec![
        stage("format", || {
            quiet(cargo(&["fmt", "--all"]).args(["--", "--check"]))
        }),
        stage("lints", || {
            let mut clippy = cargo(&["clippy", "--quiet", "--workspace", "--all-targets"]);
            quiet(clippy.args(["--locked", "--", "-D", "warnings"]))
        }),
        stage("tidy", || tidy::check().map(drop)),
        stage("build", || {
            quiet(&mut cargo(&["build", "--quiet", "--workspace", "--locked"]))
        }),
    ];
    outcomes.push(stage("fuzzer", || {
        fuzz::build(fuzz::Speed::QuickToBuild).map(drop)
    }));
    outcomes.push(stage("demo, twice", demos::twice));
    outcomes.push(stage("demo of an ordinary user", demos::elsewhere));
    outcomes.push(stage("tests", || {
        let mut tests = cargo(&["test"]);
        tests.args(everything).args(targets).arg("--").arg(&threads);
        counted("tests", &mut tests, count)
    }));
    outcomes.push(stage("documentation tests", || {
        let mut tests = cargo(&["test", "--doc"]);
        counted("doc-tests", tests.args(everything), count)
    }));
    failures.extend(outcomes.into_iter().filter_map(Result::err));
    failures
}

fn cargo(words: &[&str]) -> Command {
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .current_dir(workspace::root())
        .env("CARGO_TARGET_DIR", workspace::target())
        .args(words);
    cargo
}

fn quiet(command: &mut Command) -> Result<(), Failure> {
    command::output(command, DEADLINE).map(drop)
}

/// Runs tests, keeps their whole output in a file, and shows what failed.
fn counted(name: &str, tests: &mut Command, count: &mut Count) -> Result<(), Failure> {
    let finished = command::finish(tests, DEADLINE)?;
    let folder = workspace::target().join("test");
    fs::create_dir_all(&folder).doing(format_args!("cannot make {}", folder.display()))?;
    let log = folder.join(format!("{name}.log"));
    fs::write(&log, format!("{}{}", finished.stdout, finished.stderr))
        .doing(format_args!("cannot write {}", log.display()))?;
    for (program, seconds) in slowest(&finished.stdout, &finished.stderr) {
        println!("       {seconds:>6.1} s  {program}");
    }
    let own = Count::of(&finished.stdout);
    count.passed += own.passed;
    count.failed += own.failed;
    if finished.status.success() {
        return Ok(());
    }
    let again = Again::of(&finished.stdout, &finished.stderr);
    if again.covers(own) && again.passes()? {
        count.failed -= own.failed;
        count.passed += own.failed;
        println!(
            "       passed only at the second try: {}",
            again.tests.join(", ")
        );
        return Ok(());
    }
    // A test program that dies leaves no summary; it must not go uncounted.
    if own.failed == 0 {
        count.failed += 1;
    }
    Err(Failure::new(format!(
        "{}\nthe whole output is in {}",
        failing(&finished.stdout, &finished.stderr),
        log.display()
    )))
}

/// The test programs that took longest, with their seconds: where to look when the whole takes too long.
fn slowest(stdout: &str, stderr: &str) -> Vec<(String, f64)> {
    let programs = stderr.lines().filter_map(|line| {
        let name = line.trim_start().strip_prefix("Running ")?;
        Some(
            name.rsplit_once(" (")?
                .1
                .rsplit('/')
                .next()?
                .trim_end_matches(')'),
        )
    });
    let times = stdout.lines().filter_map(|line| {
        let summary = line.trim_start().strip_prefix("test result: ")?;
        let (_, time) = summary.split_once(" 0 filtered out; finished in ")?;
        time.trim_end_matches('s').parse::<f64>().ok()
    });
    let mut all: Vec<(String, f64)> = programs.map(str::to_owned).zip(times).collect();
    all.sort_by(|one, other| other.1.total_cmp(&one.1));
    all.truncate(8);
    all
}

/// Tests of real machines that failed once, on a host that others use as well. They get a second try, one at
/// a time, and what passes only then is told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Again {
    /// The words by which cargo finds each test program.
    targets: Vec<Vec<String>>,
    tests: Vec<String>,
}

impl Again {
    /// The failures that cargo and the test programs tell of.
    fn of(stdout: &str, stderr: &str) -> Self {
        let mut again = Self::default();
        let mut listing = false;
        for line in stdout.lines() {
            match line {
                "failures:" => listing = true,
                // The names stand indented; what failed tests printed stands before them, under headings.
                _ if !line.starts_with("    ") => listing &= line.is_empty(),
                name if listing => again.tests.push(name.trim().to_owned()),
                _ => {}
            }
        }
        for line in stderr.lines() {
            let Some(rest) = line.strip_prefix("error: test failed, to rerun pass `") else {
                continue;
            };
            let words = rest.trim_end_matches('`').split_whitespace();
            again.targets.push(words.map(str::to_owned).collect());
        }
        again
    }

    /// Whether every failure that was counted has a name, and all are of real machines: what fails without
    /// one has a cause of ours, which a second try would only hide.
    fn covers(&self, count: Count) -> bool {
        let real = |words: &Vec<String>| words.iter().any(|word| word == "see-tests");
        count.failed > 0
            && self.tests.len() as u64 == count.failed
            && !self.targets.is_empty()
            && self.targets.iter().all(real)
    }

    fn passes(&self) -> Result<bool, Failure> {
        let mut passed = Count::default();
        for target in &self.targets {
            let mut tests = cargo(&["test", "--locked"]);
            tests
                .args(target)
                .args(["--", "--test-threads=1", "--exact"]);
            let finished = command::finish(tests.args(&self.tests), DEADLINE)?;
            if !finished.status.success() {
                return Ok(false);
            }
            passed.passed += finished
                .stdout
                .lines()
                .filter(|line| line.starts_with("test ") && line.ends_with("... ok"))
                .count() as u64;
        }
        Ok(passed.passed >= self.tests.len() as u64)
    }
}

/// The parts of the output that belong to failures.
fn failing(stdout: &str, stderr: &str) -> String {
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
    shown.extend(stderr.lines().filter(|line| line.starts_with("error")));
    shown.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summaries_of_all_test_programs_are_added() {
        let output = "test result: ok. 12 passed; 0 failed; 0 ignored; 0 measured; 0 filtered \
                      out; finished in 0.10s\ntest result: ok. 1 passed; 0 failed; 0 ignored; 0 \
                      measured; 11 filtered out; finished in 0.10s\nother\ntest result: FAILED. 3 passed; 2 failed; 0 \
                      ignored; 0 measured; 0 filtered out; finished in 1.00s\n";
        assert_eq!(
            Count::of(output),
            Count {
                passed: 15,
                failed: 2
            }
        );
    }

    #[test]
    fn the_names_and_programs_of_failures_are_found_for_a_second_try() {
        let stdout = "failures:\n\n---- a::b stdout ----\n    at ./x.rs\nboom\n\nfailures:\n    a::b\n    \
                      c\n\ntest result: FAILED. 3 passed; 2 failed\n";
        let stderr = "error: test failed, to rerun pass `-p see-tests --test kills`\nerror: 1 target failed:\n";
        let again = Again::of(stdout, stderr);
        assert_eq!(again.tests, ["a::b", "c"]);
        assert_eq!(again.targets, [["-p", "see-tests", "--test", "kills"]]);
        let mut mixed = Again::of(stdout, stderr);
        mixed.targets.push(vec!["-p".into(), "see-core".into()]);
        assert!(!mixed.covers(Count {
            passed: 3,
            failed: 2
        }));
        assert!(again.covers(Count {
            passed: 3,
            failed: 2
        }));
        assert!(!again.covers(Count {
            passed: 3,
            failed: 1
        }));
    }

    #[test]
    fn the_slowest_programs_come_first() {
        let stderr = "   Compiling x\n     Running unittests src/lib.rs (target/debug/deps/a-1)\n     \
                      Running tests/kills.rs (target/debug/deps/kills-2)\n";
        let stdout = "test result: ok. 12 passed; 0 filtered out; finished in 0.10s\ntest result: ok. 1 \
                      passed; 11 filtered out; finished in 9s\ntest result: ok. 5 passed; 0 filtered \
                      out; finished in 64.00s\n";
        let expected = [("kills-2".to_owned(), 64.0), ("a-1".to_owned(), 0.1)];
        assert_eq!(slowest(stdout, stderr), expected);
    }

    #[test]
    fn only_what_failed_is_shown() {
        let output =
            "test a ... ok\nfailures:\n---- b ----\nboom\ntest result: FAILED. x\ntest c\n";
        let shown = failing(output, "warning: w\nerror: test failed\n");
        assert_eq!(shown, "failures:\n---- b ----\nboom\nerror: test failed");
    }
}

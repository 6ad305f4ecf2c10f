//! `test`: every fact once, and nothing left behind.

pub(crate) mod programs;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::command;
use crate::demos;
use crate::failure::{Failure, While, exit_code};
use crate::fuzz;
use crate::guest;
use crate::hosts::{DEBIAN_13, Entered, FACTS, FACTS_TAKE, Host};
use crate::leftovers::Look;
use crate::setup::{self, Purpose, Started};
use crate::stage::{self, stage};
use crate::tidy;
use crate::workspace;

use programs::{Count, Place, Program};

/// How many of the slowest programs are shown: where to look when the whole takes too long.
const SLOWEST: usize = 10;
/// What the whole workspace may take to compile and to test.
const DEADLINE: Duration = Duration::from_secs(1800);

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    let started = Instant::now();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {}
        ["--host", name] => {
            let host = Host::named(name)?;
            stage("setup", || setup::install(Purpose::Everything))?;
            let mut count = Count::default();
            let failures = checks_elsewhere(host, &mut count);
            return finish(started, count, &failures, &[]);
        }
        _ => return Err(Failure::usage("usage: cargo xtask test [--host debian-13]")),
    }
    stage("setup", || setup::install(Purpose::Everything))?;
    let daemon = stage("libvirtd", setup::start_daemon)?;
    let before = Look::now();
    let mut count = Count::default();
    let mut skipped = Vec::new();
    let mut failures = checks(&mut count, &mut skipped);
    // Looked at while the daemon still answers, or its objects would be hidden.
    let left = stage("nothing left behind", || {
        with_left(Ok(()), "left behind", &before.left_on(None))
    });
    if let Err(failure) = left {
        failures.push(failure);
    }
    if daemon == Started::Yes
        && let Err(failure) = stage("stop libvirtd", || setup::stop_daemon().map(drop))
    {
        failures.push(failure);
    }
    finish(started, count, &failures, &skipped)
}

/// Shows what failed, the totals, and what was skipped.
fn finish(
    started: Instant,
    count: Count,
    failures: &[Failure],
    skipped: &[String],
) -> Result<(), Failure> {
    for failure in failures {
        println!("\n{failure}");
    }
    println!("\ntook {:.0} s", started.elapsed().as_secs_f64());
    println!("{} passed, {} failed", count.passed, count.failed);
    for skipped in skipped {
        println!("skipped: {skipped}");
    }
    let Some(first) = failures.first() else {
        return Ok(());
    };
    Err(Failure::with(
        first.exit,
        format!("{} of the stages failed", failures.len()),
    ))
}

/// Runs every stage, also after one has failed: a person wants to see all.
fn checks(count: &mut Count, skipped: &mut Vec<String>) -> Vec<Failure> {
    let mut failures = Vec::new();
    if let Err(failure) = stage("guest", || guest::build().map(drop)) {
        // Without the guest every test of a real machine would fail, too.
        return vec![failure];
    }
    let threads = threads();
    let everything = ["--workspace", "--locked"];
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
        stage("build", build),
    ];
    outcomes.push(stage("fuzzer", || {
        fuzz::build(fuzz::Speed::QuickToBuild).map(drop)
    }));
    outcomes.push(stage("demo, twice", demos::twice));
    outcomes.push(stage("demo of an ordinary user", demos::elsewhere));
    let built = stage("build of tests", || {
        let mut tests = cargo(&["test"]);
        programs::build(tests.args(everything).args(targets), DEADLINE)
    });
    match built {
        Ok(programs) => {
            let again = programs::showing(&programs, FACTS);
            outcomes.push(stage("tests", || tests(programs, None, threads, count)));
            let again = again.and_then(|again| if_possible(DEBIAN_13, again, count, skipped));
            outcomes.push(again);
        }
        Err(failure) => outcomes.push(Err(failure)),
    }
    outcomes.push(stage("documentation tests", || {
        let mut tests = cargo(&["test", "--doc"]);
        documentation(tests.args(everything), count)
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

/// Builds the programs and the examples that tests run.
fn build() -> Result<(), Failure> {
    let mut build = cargo(&["build", "--quiet", "--workspace", "--locked"]);
    quiet(build.args(["--bins", "--examples"]))
}

fn quiet(command: &mut Command) -> Result<(), Failure> {
    command::output(command, DEADLINE).map(drop)
}

/// How many tests of a program run at once.
fn threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get());
    cores.clamp(2, 4)
}

/// Builds what the tests on another host need, and runs them.
fn checks_elsewhere(host: Host, count: &mut Count) -> Vec<Failure> {
    let shown = stage("guest", || guest::build().map(drop))
        .and_then(|()| stage("build", build))
        .and_then(|()| {
            stage("build of tests", || {
                let mut tests = cargo(&["test", "--locked", "--tests"]);
                let crates = FACTS.iter().filter_map(|it| it.program.split(' ').next());
                for name in crates.collect::<BTreeSet<_>>() {
                    tests.args(["--package", name]);
                }
                programs::showing(&programs::build(&mut tests, DEADLINE)?, FACTS)
            })
        })
        .and_then(|programs| {
            stage(&format!("root of {}", host.name), || host.make())?;
            elsewhere(host, programs, count)
        });
    shown.err().into_iter().collect()
}

/// Runs test programs on another host, or says why that cannot be done on this one.
fn if_possible(
    host: Host,
    programs: Vec<Program>,
    count: &mut Count,
    skipped: &mut Vec<String>,
) -> Result<(), Failure> {
    let seen = match host.is_made() {
        true => host.closed(),
        false => host.obstacle()?,
    };
    let obstacle = match seen {
        None => stage(&format!("root of {}", host.name), || {
            host.make_if_possible()
        })?,
        seen => seen,
    };
    let Some(obstacle) = obstacle else {
        return elsewhere(host, programs, count);
    };
    let name = format!("tests on {}", host.name);
    stage::skipped(&name, &obstacle.message);
    skipped.push(format!("{name}: {obstacle}"));
    Ok(())
}

/// Runs test programs on another host, and looks at what is left there, also where tests failed.
fn elsewhere(host: Host, programs: Vec<Program>, count: &mut Count) -> Result<(), Failure> {
    stage(&format!("tests on {}", host.name), || {
        let host = Entered::new(host)?;
        let before = Look::on(Some(&host))?;
        let started = Instant::now();
        let outcome = tests(programs, Some(&host), threads(), count);
        println!(
            "       {:>6.1} s  all of them, of {} s that they may take on a quiet machine of two cores",
            started.elapsed().as_secs_f64(),
            FACTS_TAKE.as_secs()
        );
        let place = format!("left behind on {}", host.host.name);
        with_left(outcome, &place, &before.left_on(Some(&host)))
    })
}

/// An outcome together with what was left behind, which is told after what else failed.
fn with_left(outcome: Result<(), Failure>, heading: &str, left: &[String]) -> Result<(), Failure> {
    if left.is_empty() {
        return outcome;
    }
    let left = format!("{heading}:\n  {}", left.join("\n  "));
    Err(match outcome {
        Ok(()) => Failure::with(exit_code::LEFT_BEHIND, left),
        Err(failure) => Failure::with(failure.exit, format!("{failure}\n\n{left}")),
    })
}

/// Runs the test programs, keeps what they print in files, and shows what failed.
fn tests(
    programs: Vec<Program>,
    host: Option<&Entered>,
    threads: usize,
    count: &mut Count,
) -> Result<(), Failure> {
    let logs = logs()?;
    let place = Place {
        host,
        threads,
        deadline: DEADLINE,
        logs: &logs,
    };
    let mut all = programs::run(programs, &place)?;
    all.sort_by(|one, other| other.seconds.total_cmp(&one.seconds));
    for ran in all.iter().take(SLOWEST) {
        println!("       {:>6.1} s  {}", ran.seconds, ran.name());
    }
    let mut shown = Vec::new();
    for ran in &all {
        let own = ran.count();
        if own.failed > 0 {
            let log = ran.log.display();
            shown.push(format!("{}\nthe whole output is in {log}", ran.failing()));
        }
        *count += own;
    }
    if shown.is_empty() {
        return Ok(());
    }
    Err(Failure::new(shown.join("\n\n")))
}

/// Runs the examples of the documentation, each crate's in a program that rustdoc makes and runs.
fn documentation(tests: &mut Command, count: &mut Count) -> Result<(), Failure> {
    let finished = command::finish(tests.arg("--no-fail-fast"), DEADLINE)?;
    let log = logs()?.join("documentation.log");
    fs::write(&log, format!("{}{}", finished.stdout, finished.stderr))
        .doing(format_args!("cannot write {}", log.display()))?;
    for summary in finished.stdout.lines() {
        *count += Count::of(summary);
    }
    if finished.status.success() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{}\nthe whole output is in {}",
        programs::failing(&finished.stdout),
        log.display()
    )))
}

/// The folder of what tests print, which is there.
fn logs() -> Result<PathBuf, Failure> {
    let folder = workspace::target().join("test");
    fs::create_dir_all(&folder).doing(format_args!("cannot make {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_also_where_tests_failed() {
        let left = [String::from("domain x")];
        let failure = with_left(Ok(()), "left", &left).expect_err("it is left");
        assert_eq!(failure.exit, exit_code::LEFT_BEHIND);
        let failed = Err(Failure::new("a test failed"));
        let failure = with_left(failed, "left", &left).expect_err("it failed");
        assert_eq!(failure.exit, exit_code::FAILED);
        assert!(failure.message.starts_with("a test failed"), "{failure}");
        assert!(failure.message.ends_with("left:\n  domain x"), "{failure}");
        with_left(Ok(()), "left", &[]).expect("nothing is left");
    }
}

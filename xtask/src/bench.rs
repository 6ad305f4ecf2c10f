//! `bench`: measurements beside what our users have today.
//!
//! `bench events` runs our event bus and python-see's in turn, several rounds
//! each, so that a busy moment of the host hits both; the medians are compared.
//! `bench demo` measures how long after the command the demonstration's machine
//! is started. The other benches are in files of their own.

mod images;
mod sandboxes;
mod subnets;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use crate::campaign;
use crate::command;
use crate::demos;
use crate::failure::{Failure, While, exit_code};
use crate::setup::{self, Purpose};
use crate::stage::stage;
use crate::workspace;

/// The last release of python-see.
const PYTHON_SEE: &str = "python-see==1.3.7";
const ROUNDS: usize = 5;
/// How long after the command the demonstration's machine runs at the latest, in seconds.
const DEMO_START: f64 = 5.0;
const DEADLINE: Duration = Duration::from_secs(900);

/// What is measured, what a person calls it, and the least ratio promised.
const CASES: [(&str, &str, f64); 4] = [
    ("plain", "one plain handler", 25.0),
    ("attribute", "one attribute on the event", 10.0),
    ("hundred", "100 handlers", 20.0),
    ("beside", "a handler beside", 50.0),
];

/// One line of a measuring program.
#[derive(Debug, Deserialize)]
struct Measured {
    case: String,
    events_per_second: f64,
}

/// Everything one side measured, by case.
type Rounds = BTreeMap<String, Vec<f64>>;

pub(crate) fn run(words: &[String]) -> Result<(), Failure> {
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => events()
            .and(demonstration())
            .and(images::run())
            .and(sandboxes::run())
            .and(subnets::run()),
        ["events"] => events(),
        ["demo"] => demonstration(),
        ["images"] => images::run(),
        ["sandboxes"] => sandboxes::run(),
        ["subnets"] => subnets::run(),
        _ => Err(Failure::usage(
            "usage: cargo xtask bench [events | demo | images | sandboxes | subnets]",
        )),
    }
}

fn events() -> Result<(), Failure> {
    stage("setup", || setup::install(Purpose::Bench))?;
    let folder = workspace::target().join("bench");
    let python = stage("python-see", || environment(&folder))?;
    let script = folder.join("bench_events.py");
    fs::write(&script, include_str!("bench_events.py"))
        .doing(format_args!("cannot write {}", script.display()))?;
    let program = stage("our bus", build)?;
    let (mut ours, mut theirs) = (Rounds::new(), Rounds::new());
    for round in 1..=ROUNDS {
        stage(&format!("round {round} of {ROUNDS}"), || {
            measure(Command::new(&program).arg("--json"), &mut ours)?;
            measure(Command::new(&python).arg("-I").arg(&script), &mut theirs)
        })?;
    }
    let lines = compare(&ours, &theirs)?;
    let text = chapter(&lines, &python)?;
    println!("\n{}", table(&lines));
    publish(&folder, "events", &text)?;
    let slow: Vec<String> = lines
        .iter()
        .filter(|line| line.ratio() < line.promised)
        .map(|line| {
            format!(
                "{}: {:.1} times python-see, promised are {:.0}",
                line.title,
                line.ratio(),
                line.promised
            )
        })
        .collect();
    if slow.is_empty() {
        return Ok(());
    }
    Err(Failure::with(exit_code::TOO_SLOW, slow.join("; ")))
}

/// A Python of its own with python-see in it. The event bus needs nothing of
/// what the package depends on, so libvirt's binding is not built.
fn environment(folder: &Path) -> Result<PathBuf, Failure> {
    let python = folder.join("venv/bin/python");
    let done = folder.join("venv/installed");
    if fs::read_to_string(&done).is_ok_and(|text| text == PYTHON_SEE) {
        return Ok(python);
    }
    fs::create_dir_all(folder).doing(format_args!("cannot make {}", folder.display()))?;
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"])
        .arg(folder.join("venv"));
    command::output(&mut venv, DEADLINE)?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps"]);
    pip.args(["--disable-pip-version-check", PYTHON_SEE]);
    command::output(&mut pip, DEADLINE)?;
    fs::write(&done, PYTHON_SEE).doing(format_args!("cannot write {}", done.display()))?;
    Ok(python)
}

fn build() -> Result<PathBuf, Failure> {
    let target = workspace::target();
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .current_dir(workspace::root())
        .env("CARGO_TARGET_DIR", &target)
        .args(["build", "--quiet", "--locked", "--release"])
        .args(["--package", "see-core", "--example", "bench_events"]);
    command::output(&mut cargo, DEADLINE)?;
    Ok(target.join("release/examples/bench_events"))
}

fn measure(command: &mut Command, into: &mut Rounds) -> Result<(), Failure> {
    let output = command::output(command, DEADLINE)?;
    for line in output.lines().filter(|line| !line.trim().is_empty()) {
        let measured: Measured = serde_json::from_str(line).doing(format_args!(
            "`{}` printed {line:?}",
            command::shown(command)
        ))?;
        into.entry(measured.case)
            .or_default()
            .push(measured.events_per_second);
    }
    Ok(())
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq)]
struct Line {
    title: &'static str,
    ours: f64,
    theirs: f64,
    promised: f64,
}

impl Line {
    fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }
}

fn compare(ours: &Rounds, theirs: &Rounds) -> Result<Vec<Line>, Failure> {
    CASES
        .iter()
        .map(|(case, title, promised)| {
            let of = |side: &Rounds, name: &str| {
                side.get(*case)
                    .and_then(|rounds| median(rounds))
                    .ok_or_else(|| Failure::new(format!("{name} did not measure `{case}`")))
            };
            Ok(Line {
                title,
                ours: of(ours, "our program")?,
                theirs: of(theirs, "python-see's program")?,
                promised: *promised,
            })
        })
        .collect()
}

fn median(rounds: &[f64]) -> Option<f64> {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn table(lines: &[Line]) -> String {
    let mut text = String::from(
        "| events a second | SEE | python-see | ratio | promised |\n|---|---:|---:|---:|---:|\n",
    );
    for line in lines {
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.1} | {:.0} |",
            line.title,
            line.ours,
            line.theirs,
            line.ratio(),
            line.promised
        );
    }
    text
}

fn chapter(lines: &[Line], python: &Path) -> Result<String, Failure> {
    Ok(format!(
        "## The event bus beside python-see's\n\n\
         `cargo xtask bench events`: medians of {ROUNDS} rounds, both programs in turn. \"A handler \
         beside\" is one that runs concurrently; its events are counted until every handler has \
         run.\n\n{}\n{}- {}, release build\n- {}, {PYTHON_SEE}\n",
        table(lines),
        circumstances()?,
        say(Command::new("rustc").arg("--version"))?,
        say(Command::new(python).arg("--version"))?,
    ))
}

/// Measures how long after the command the demonstration's machine runs, once everything is built.
fn demonstration() -> Result<(), Failure> {
    stage("build", demos::once)?;
    let mut seconds = Vec::new();
    for round in 1..=ROUNDS {
        let output = stage(&format!("round {round} of {ROUNDS}"), demos::once)?;
        seconds.push(started_after(&output).ok_or_else(|| {
            Failure::new(format!(
                "the demonstration does not say when it started:\n{output}"
            ))
        })?);
    }
    let typical = median(&seconds).unwrap_or(f64::INFINITY);
    println!("\nthe machine runs {typical:.2} s after the command");
    let text = format!(
        "## The demonstration's start\n\n`cargo xtask bench demo`: from the command to the running \
         machine, when everything was built before, medians of {ROUNDS} rounds.\n\n\
         | seconds | SEE | promised |\n|---|---:|---:|\n| `cargo xtask demo` to the domain's start \
         | {typical:.2} | {DEMO_START:.0} |\n\n{}",
        circumstances()?
    );
    publish(&workspace::target().join("bench"), "demo", &text)?;
    if typical <= DEMO_START {
        return Ok(());
    }
    Err(Failure::with(
        exit_code::TOO_SLOW,
        format!("the machine runs {typical:.1} s after the command, promised are {DEMO_START:.0}"),
    ))
}

/// When the machine ran, in seconds after the command, from what the demonstration printed.
fn started_after(output: &str) -> Option<f64> {
    let seconds = |what: &str| {
        let line = output.lines().find(|line| line.contains(what))?;
        line.split_whitespace()
            .find_map(|word| word.parse::<f64>().ok())
    };
    Some(seconds("seectl starts")? + seconds("after seectl's start it ran")?)
}

fn say(command: &mut Command) -> Result<String, Failure> {
    command::output(command, Duration::from_secs(30)).map(|text| text.trim().to_owned())
}

/// Where and when something was measured.
fn circumstances() -> Result<String, Failure> {
    Ok(format!(
        "- host: {}\n- date: {}\n- commit: {}\n",
        campaign::host(),
        say(Command::new("date").args(["-u", "+%Y-%m-%d"]))?,
        campaign::commit(),
    ))
}

/// The chapter takes the place of the one with its heading in the book, or the book gets it at its end. Where the
/// checkout cannot be written it is kept beside what was built.
fn publish(folder: &Path, name: &str, chapter: &str) -> Result<(), Failure> {
    let book = workspace::root().join("docs/benchmarks.md");
    let before = fs::read_to_string(&book).unwrap_or_default();
    if let Err(error) = fs::write(&book, with_chapter(&before, chapter)) {
        let own = folder.join(format!("{name}.md"));
        fs::create_dir_all(folder)
            .and_then(|()| fs::write(&own, chapter))
            .doing(format_args!("cannot write {}", own.display()))?;
        println!(
            "docs/benchmarks.md cannot be written ({error}); it is in {}",
            own.display()
        );
        return Ok(());
    }
    println!("written to docs/benchmarks.md");
    Ok(())
}

/// The book with this chapter in it, once.
fn with_chapter(book: &str, chapter: &str) -> String {
    let mut parts = book.trim_end().split("\n## ");
    let opening = match parts.next() {
        None | Some("") => {
            "# Benchmarks\n\nWritten by `cargo xtask bench`; run it to get your own."
        }
        Some(opening) => opening,
    };
    let mut chapters: Vec<&str> = parts.map(str::trim_end).collect();
    let new = chapter.trim_start_matches("## ").trim_end();
    let heading = |chapter: &str| chapter.lines().next().map(str::to_owned);
    match chapters.iter().position(|old| heading(old) == heading(new)) {
        Some(old) => chapters[old] = new,
        None => chapters.push(new),
    }
    let mut page = format!("{}\n", opening.trim_end());
    for chapter in chapters {
        let _ = write!(page, "\n## {chapter}\n");
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(value: f64) -> Rounds {
        CASES
            .iter()
            .map(|(case, _, _)| ((*case).to_owned(), vec![1.0, value, 1e12]))
            .collect()
    }

    #[test]
    fn medians_are_compared_not_single_rounds() {
        let lines = compare(&rounds(300.0), &rounds(10.0)).expect("all measured");
        assert_eq!(lines.len(), 4);
        assert!(lines.iter().all(|line| (line.ratio() - 30.0).abs() < 1e-9));
    }

    #[test]
    fn the_start_is_read_from_what_the_demonstration_prints() {
        let output = "   1.50 s after the command: seectl starts\n\n\
                      machine:    0.50 s after seectl's start it ran\n";
        assert_eq!(started_after(output), Some(2.0));
        assert_eq!(started_after("FAIL"), None);
    }

    #[test]
    fn a_chapter_takes_the_place_of_its_former_self_and_leaves_the_others() {
        let book = with_chapter("", "## One\n\n1\n");
        let book = with_chapter(&book, "## Two\n\n2\n");
        let again = with_chapter(&book, "## One\n\nanother\n");
        assert!(again.starts_with("# Benchmarks\n\n"), "{again}");
        assert!(
            again.ends_with("\n\n## One\n\nanother\n\n## Two\n\n2\n"),
            "{again}"
        );
        assert_eq!(with_chapter(&again, "## Two\n\n2\n"), again);
    }

    #[test]
    fn a_case_that_one_side_did_not_measure_is_a_failure() {
        let mut theirs = rounds(1.0);
        theirs.remove("beside");
        let failure = compare(&rounds(1.0), &theirs).expect_err("one is missing");
        assert!(failure.message.contains("beside"), "{failure}");
    }
}

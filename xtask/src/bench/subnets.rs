//! `bench subnets`: how long it takes to pick a free subnet of a large network.
//!
//! python-see lists every subnet that there could be; ours reckons with those that are taken. The same /28 of the same
//! /8, beside the same networks, in turn; libvirt is not asked by either.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use super::{DEADLINE, PYTHON_SEE, ROUNDS, circumstances, environment, median, publish, say};
use crate::command;
use crate::failure::{Failure, While, exit_code};
use crate::setup::{self, Purpose};
use crate::stage::stage;
use crate::workspace;

/// How many times as fast as python-see it is at the least.
const RATIO: f64 = 1000.0;
/// The longest that ours may take, in microseconds.
const MICROSECONDS: f64 = 10.0;

/// What a measuring program prints.
#[derive(Debug, Deserialize)]
struct Picked {
    seconds: f64,
    /// Of how many it picked one.
    free: u64,
}

/// The medians, in seconds.
#[derive(Debug)]
struct Measured {
    ours: f64,
    theirs: f64,
    free: u64,
}

pub(super) fn run() -> Result<(), Failure> {
    stage("setup", || setup::install(Purpose::Bench))?;
    let folder = workspace::target().join("bench");
    let python = stage("python-see", || environment(&folder))?;
    let script = folder.join("bench_subnets.py");
    fs::write(&script, include_str!("../bench_subnets.py"))
        .doing(format_args!("cannot write {}", script.display()))?;
    let program = stage("our subnets", build)?;
    let (mut ours, mut theirs, mut free) = (Vec::new(), Vec::new(), None);
    for round in 1..=ROUNDS {
        stage(&format!("round {round} of {ROUNDS}"), || {
            let own = picked(&mut Command::new(&program))?;
            let other = picked(Command::new(&python).arg("-I").arg(&script))?;
            for found in [&own, &other] {
                if *free.get_or_insert(found.free) != found.free {
                    return Err(Failure::new("they did not pick of as many"));
                }
            }
            ours.push(own.seconds);
            theirs.push(other.seconds);
            Ok(())
        })?;
    }
    let typical = |rounds: &[f64]| median(rounds).unwrap_or(f64::INFINITY);
    let measured = Measured {
        ours: typical(&ours),
        theirs: typical(&theirs),
        free: free.unwrap_or_default(),
    };
    println!("\n{}", measured.table());
    publish(&folder, "subnets", &measured.chapter(&python)?)?;
    let broken = measured.broken();
    if broken.is_empty() {
        return Ok(());
    }
    Err(Failure::with(exit_code::TOO_SLOW, broken.join("; ")))
}

fn build() -> Result<PathBuf, Failure> {
    let target = workspace::target();
    let mut cargo = Command::new(workspace::cargo());
    cargo
        .current_dir(workspace::root())
        .env("CARGO_TARGET_DIR", &target)
        .args(["build", "--quiet", "--locked", "--release"])
        .args(["--package", "see-context", "--example", "bench_subnets"]);
    command::output(&mut cargo, DEADLINE)?;
    Ok(target.join("release/examples/bench_subnets"))
}

fn picked(command: &mut Command) -> Result<Picked, Failure> {
    let output = command::output(command, DEADLINE)?;
    serde_json::from_str(&output).doing(format_args!(
        "`{}` printed {output:?}",
        command::shown(command)
    ))
}

impl Measured {
    fn ratio(&self) -> f64 {
        self.theirs / self.ours
    }

    fn table(&self) -> String {
        format!(
            "| microseconds | SEE | promised | python-see | ratio | promised |\n\
             |---|---:|---:|---:|---:|---:|\n\
             | one of {} free /28 in a /8 | {:.2} | {MICROSECONDS:.0} | {:.0} | {:.0} | {RATIO:.0} |\n",
            self.free,
            self.ours * 1e6,
            self.theirs * 1e6,
            self.ratio(),
        )
    }

    /// What is worse than promised.
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        let microseconds = self.ours * 1e6;
        if microseconds > MICROSECONDS {
            broken.push(format!(
                "a free subnet takes {microseconds:.1} microseconds, promised are {MICROSECONDS:.0}"
            ));
        }
        if self.ratio() < RATIO {
            broken.push(format!(
                "{:.0} times as fast as python-see, promised are {RATIO:.0}",
                self.ratio()
            ));
        }
        broken
    }

    fn chapter(&self, python: &Path) -> Result<String, Failure> {
        Ok(format!(
            "## A free subnet beside python-see's\n\n\
             `cargo xtask bench subnets`: medians of {ROUNDS} rounds, both programs in turn. Each picks a subnet at random \
             beside the same networks; asking libvirt for these is no part of it.\n\n\
             {}\n{}- {}, release build\n- {}, {PYTHON_SEE}\n",
            self.table(),
            circumstances()?,
            say(Command::new("rustc").arg("--version"))?,
            say(Command::new(python).arg("--version"))?,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_slower_than_promised_is_told() {
        let mut measured = Measured {
            ours: 0.3e-6,
            theirs: 5.0,
            free: 1_048_560,
        };
        assert_eq!(measured.broken(), Vec::<String>::new());
        assert!(
            measured.table().contains("| 0.30 | 10 |"),
            "{}",
            measured.table()
        );
        measured.theirs = 0.2e-3;
        assert!(measured.broken()[0].contains("667 times"), "{measured:?}");
        measured.ours = 20e-6;
        assert_eq!(measured.broken().len(), 2, "{measured:?}");
    }
}

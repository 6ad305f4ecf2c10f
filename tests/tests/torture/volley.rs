//! Several runs at once, each cut off at an instant of its own.

use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use see_tests::{Home, Live, Outcome};

use crate::arena::{Arena, PATIENCE};
use crate::instants::At;

/// How a run is cut off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// The run file.
    pub(crate) file: &'static str,
    pub(crate) at: At,
    pub(crate) with: Signal,
}

/// A run that was cut off.
#[derive(Debug)]
pub(crate) struct Victim {
    pub(crate) cut: Cut,
    pub(crate) identifier: String,
    /// Whether it was still running at the instant.
    pub(crate) hit: bool,
    /// Whether the phase that it was to be cut off in was not over by then.
    pub(crate) in_phase: bool,
    /// The files and folders that its record names.
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) outcome: Outcome,
}

/// Starts a run for each cut, and cuts each off.
pub(crate) fn fire(arena: &Arena, cuts: &[Cut]) -> Vec<Victim> {
    let home = arena.home();
    let commands = cuts.iter().map(|cut| (*cut, arena.run(cut.file)));
    let commands: Vec<(Cut, Command)> = commands.collect();
    std::thread::scope(|scope| {
        let runs: Vec<_> = commands
            .into_iter()
            .map(|(cut, mut command)| scope.spawn(move || one(home, cut, &mut command)))
            .collect();
        runs.into_iter()
            .map(|run| run.join().expect("a run is watched"))
            .collect()
    })
}

fn one(home: &Home, cut: Cut, command: &mut Command) -> Victim {
    let mut live = Live::start(command);
    let identifier = identifier_of(&mut live);
    let hit = cut.at.come(home, &mut live, &identifier);
    let in_phase = hit && !cut.at.is_late(live.said());
    if hit {
        live.signal(cut.with);
    }
    let outcome = match hit && cut.with == Signal::KILL {
        true => live.kill(),
        false => live.finish(PATIENCE),
    };
    Victim {
        cut,
        hit,
        in_phase,
        paths: home.recorded_paths(&identifier),
        identifier,
        outcome,
    }
}

/// What a run says of itself when it begins.
pub(crate) fn identifier_of(live: &mut Live) -> String {
    let begin = live.wait_for("beginning", PATIENCE, |line| line.get("run").is_some());
    let begin = begin.unwrap_or_else(|| panic!("it did not begin: {live:#?}"));
    let identifier = begin["run"]["identifier"].as_str();
    identifier.expect("a run has an identifier").to_owned()
}

//! Several runs at once, each cut off at an instant of its own.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use see_tests::{Dice, Home, Live, Outcome};

use crate::arena::{Arena, PATIENCE, Usual};
use crate::instants::{At, Phase};

/// How often as many instants are drawn as are missing.
const DRAWS: usize = 10;
/// How much shorter the phase is taken to be at each further draw.
const SHORTER: f64 = 0.8;

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

/// Cuts runs off within a phase until so many of them were cut off before its end: an instant that came too late
/// is made up for by another one.
pub(crate) fn within(
    dice: &mut Dice,
    (usual, phase): (&Usual, Phase),
    wanted: usize,
    mut cut_off: impl FnMut(Vec<At>) -> Vec<Victim>,
) -> Vec<Victim> {
    let mut all = Vec::new();
    let mut length = usual.length(phase);
    for _ in 0..DRAWS {
        let missing = wanted.saturating_sub(inside(&all));
        if missing == 0 {
            break;
        }
        let fractions = dice.spread(missing).into_iter();
        let instants = fractions.map(|part| At::Within(phase, length.mul_f64(part)));
        all.extend(cut_off(instants.collect()));
        // What was usual while the host was busier is too long now.
        length = length.mul_f64(SHORTER);
    }
    all
}

/// How many were cut off before their phase was over.
pub(crate) fn inside(victims: &[Victim]) -> usize {
    victims.iter().filter(|victim| victim.in_phase).count()
}

fn one(home: &Home, cut: Cut, command: &mut Command) -> Victim {
    // As a shell starts it: a Ctrl-C goes to whatever it has started, too.
    let mut live = Live::start(command.process_group(0));
    let identifier = identifier_of(&mut live);
    let hit = cut.at.come(home, &mut live, &identifier);
    let in_phase = hit && !cut.at.is_late(live.said());
    if hit {
        match cut.with {
            Signal::INT => live.signal_group(Signal::INT),
            signal => live.signal(signal),
        }
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

//! Several runs at once, each cut off at an instant of its own.

use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use rustix::process::Signal;
use see_tests::{Dice, Home, Live, Outcome};

use crate::arena::{Arena, PATIENCE, Usual};
use crate::files::Net;
use crate::instants::{At, Phase};

/// How often as many instants are drawn as are missing.
const DRAWS: usize = 10;
/// How much shorter the phase is taken to be at each further draw.
const SHORTER: f64 = 0.8;
/// How often a step is tried that its run was beyond.
const TRIES: usize = 8;
/// How many of a record's last lines are written in no time before its end.
const LAST: usize = 2;

/// How a run is cut off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cut {
    /// The run file.
    pub(crate) file: &'static str,
    /// What its machine is connected to.
    pub(crate) net: Net,
    pub(crate) at: At,
    pub(crate) with: Signal,
}

impl Cut {
    /// A run that comes to its end.
    pub(crate) fn never(file: &'static str, net: Net) -> Self {
        Self {
            file,
            net,
            at: At::Never,
            with: Signal::KILL,
        }
    }
}

/// A run that was cut off.
#[derive(Debug)]
pub(crate) struct Victim {
    pub(crate) cut: Cut,
    pub(crate) identifier: String,
    /// Whether it was cut off: it was still running, and ended by the signal, in order where that can be.
    pub(crate) hit: bool,
    /// Whether it was, and the phase that it was to be cut off in was not over by then.
    pub(crate) in_phase: bool,
    /// When it was sent the signal, in seconds since the epoch; never where it had ended.
    pub(crate) sent: Option<f64>,
    /// The files and folders that its record names.
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) outcome: Outcome,
}

/// Starts a run for each cut, and cuts each off.
pub(crate) fn fire(arena: &Arena, cuts: &[Cut]) -> Vec<Victim> {
    let home = arena.home();
    let commands = cuts
        .iter()
        .map(|cut| (*cut, arena.run(&cut.net.file(cut.file))));
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

/// Cuts runs off within a phase, each network's in its turn, until so many of them were cut off before its end: an
/// instant that came too late is made up for by another one. The dice's name gives the same instants again.
pub(crate) fn within(
    name: &str,
    (usual, phase, nets): (&Usual, Phase, &[Net]),
    (with, wanted): (Signal, usize),
    mut cut_off: impl FnMut(&[Cut]) -> Vec<Victim>,
) -> Vec<Victim> {
    let mut dice = Dice::of(&format!("{name} in {phase:?}"));
    let mut all = Vec::new();
    let mut shorter = 1.0;
    for _ in 0..DRAWS {
        let missing = wanted.saturating_sub(inside(&all));
        if missing == 0 {
            break;
        }
        let nets = nets.iter().cycle();
        let cuts = dice.spread(missing).into_iter().zip(nets);
        let cuts = cuts.map(|(part, net)| Cut {
            file: phase.file(),
            net: *net,
            at: At::Within(phase, usual.length(*net, phase).mul_f64(part * shorter)),
            with,
        });
        all.extend(cut_off(&cuts.collect::<Vec<Cut>>()));
        // What was usual while the host was busier is too long now.
        shorter *= SHORTER;
    }
    all
}

/// Cuts runs off after these lines of their records, and again where they were gone before.
pub(crate) fn at_steps(
    file: &'static str,
    steps: &[(Net, Vec<usize>)],
    with: Signal,
    mut cut_off: impl FnMut(&[Cut]) -> Vec<Victim>,
) -> Vec<Victim> {
    let lines = steps
        .iter()
        .flat_map(|(net, lines)| lines.iter().map(move |lines| (*net, At::Line(*lines))));
    let mut cuts: Vec<Cut> = lines
        .map(|(net, at)| Cut {
            file,
            net,
            at,
            with,
        })
        .collect();
    let mut all = Vec::new();
    for _ in 0..TRIES {
        let victims = cut_off(&cuts);
        let missed = victims.iter().filter(|victim| !victim.hit);
        cuts = missed.map(|victim| victim.cut).collect();
        all.extend(victims);
        if cuts.is_empty() {
            break;
        }
    }
    all
}

/// The steps that no victim was cut off at, of those that were tried, but for the last ones of each network's: their
/// runs are gone in no time.
pub(crate) fn missed(steps: &[(Net, Vec<usize>)], victims: &[Victim]) -> Vec<String> {
    let mut missed = Vec::new();
    for (net, all) in steps {
        let met = |lines: &&usize| {
            let mut hit = victims.iter().filter(|victim| victim.hit);
            hit.any(|it| it.cut.net == *net && matches!(it.cut.at, At::Line(at) if at == **lines))
        };
        let steps = &all[..all.len().saturating_sub(LAST)];
        let unmet = steps.iter().filter(|lines| !met(lines));
        missed.extend(unmet.map(|lines| format!("{net:?}: line {lines} of {all:?} was missed")));
    }
    missed
}

/// How many were cut off before their phase was over.
pub(crate) fn inside(victims: &[Victim]) -> usize {
    victims.iter().filter(|victim| victim.in_phase).count()
}

fn one(home: &Home, cut: Cut, command: &mut Command) -> Victim {
    // As a shell starts it: a Ctrl-C goes to whatever it has started, too.
    let mut live = Live::start(command.process_group(0));
    let identifier = identifier_of(&mut live);
    let come = cut.at.come(home, &mut live, &identifier);
    let late = cut.at.is_late(live.said());
    let sent = come.then(now);
    if come {
        match cut.with {
            Signal::INT => live.signal_group(Signal::INT),
            signal => live.signal(signal),
        }
    }
    let outcome = match come && cut.with == Signal::KILL {
        true => live.kill(),
        false => live.finish(PATIENCE),
    };
    // In its teardown nothing is left to be interrupted: the run says what it would have said.
    let unchanged = cut.with != Signal::KILL && outcome.code == Some(0);
    let signalled = outcome.code == code_of(cut.with);
    let hit = come && (signalled || unchanged);
    Victim {
        cut,
        hit,
        in_phase: hit && !late && (signalled || cut.at.is_in_teardown()),
        sent,
        paths: home.recorded_paths(&identifier),
        identifier,
        outcome,
    }
}

/// The exit code after a signal, as `seectl --help` documents it; none where nothing can be done about it.
pub(crate) fn code_of(signal: Signal) -> Option<i32> {
    match signal {
        Signal::INT => Some(130),
        Signal::TERM => Some(143),
        Signal::HUP => Some(129),
        _ => None,
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64()
}

/// What a run says of itself when it begins.
pub(crate) fn identifier_of(live: &mut Live) -> String {
    let begin = live.wait_for("beginning", PATIENCE, |line| line.get("run").is_some());
    let begin = begin.unwrap_or_else(|| panic!("it did not begin: {live:#?}"));
    let identifier = begin["run"]["identifier"].as_str();
    identifier.expect("a run has an identifier").to_owned()
}

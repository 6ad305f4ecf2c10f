//! A libvirtd that is killed and started again in mid-run: every run ends in time, and what it could not remove
//! `seectl gc` does.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use see_tests::{Dice, Live, rounds, until};

use crate::arena::{Arena, Kind, PATIENCE};
use crate::instants::{At, Phase};
use crate::volley::identifier_of;

/// The longest that a run may take which lost its daemon in the middle.
const END: Duration = Duration::from_secs(100);
/// How long after the beginning of its phase a run may lose its daemon.
const LATEST: Duration = Duration::from_millis(600);
/// How often a daemon's death is drawn anew, where it came after a phase, and how much earlier each time.
const DRAWS: usize = 10;
const EARLIER: f64 = 0.6;
/// How long the daemon is away at most.
const AWAY: Duration = Duration::from_millis(1200);

#[test]
fn a_daemon_of_machines_that_is_killed_and_started_again_hangs_no_run_and_costs_nothing() {
    torture(Kind::System, "restarts of a daemon");
}

#[test]
fn a_daemon_of_containers_that_is_killed_and_started_again_hangs_no_run_and_costs_nothing() {
    torture(Kind::Lxc, "restarts of a daemon of containers");
}

fn torture(kind: Kind, dice: &str) {
    let mut dice = Dice::of(dice);
    let mut arena = Arena::new(kind);
    let wanted = rounds(1);
    // How often the daemon died inside each phase.
    let mut inside: Vec<(Phase, usize)> = Phase::ALL.iter().map(|it| (*it, 0)).collect();
    let (mut tried, mut clean) = (0, 0);
    let mut problems = Vec::new();
    let mut latest = LATEST;
    for _ in 0..DRAWS {
        let fewest = inside.iter().map(|(_, count)| *count).min();
        let missing = wanted.saturating_sub(fewest.unwrap_or(wanted));
        for fraction in dice.spread(missing) {
            // One run at the beginning of each phase: they all meet the same death.
            let mut runs: Vec<(Phase, Live, String)> = Phase::ALL
                .iter()
                .map(|phase| halted(&arena, *phase))
                .collect();
            for (_, live, _) in &mut runs {
                live.signal(Signal::CONT);
            }
            pass(latest.mul_f64(fraction));
            for ((phase, live, _), (_, count)) in runs.iter_mut().zip(&mut inside) {
                let at = At::Within(*phase, Duration::ZERO);
                *count += usize::from(live.runs() && !at.is_late(live.said()));
            }
            arena.daemon_mut().kill();
            pass(AWAY.mul_f64(dice.roll()));
            arena.daemon_mut().restart();
            tried += runs.len();
            problems.extend(end(&arena, fraction, runs, &mut clean));
        }
        // What was over by then is met earlier.
        latest = latest.mul_f64(EARLIER);
    }
    println!(
        "\ninstants tried: {tried} ({kind:?}, daemon killed), inside: {inside:?}, runs that ended clean: {clean}, leaks: {}",
        problems.len()
    );
    assert!(problems.is_empty(), "{problems:#?}");
    assert!(
        inside.iter().all(|(_, count)| *count >= wanted),
        "a phase was met less than {wanted} times: {inside:?}"
    );
}

/// A run that was stopped at the beginning of a phase.
fn halted(arena: &Arena, phase: Phase) -> (Phase, Live, String) {
    let mut live = Live::start(&mut arena.run(phase.file()));
    let identifier = identifier_of(&mut live);
    let come = At::Within(phase, Duration::ZERO);
    assert!(come.come(arena.home(), &mut live, &identifier));
    live.signal(Signal::STOP);
    (phase, live, identifier)
}

/// Lets time pass: what is tried is an instant, whatever happens at it.
fn pass(time: Duration) {
    let begin = Instant::now();
    until("an instant", time + PATIENCE, || begin.elapsed() >= time);
}

/// Waits for the ends, collects, and says what is wrong.
fn end(
    arena: &Arena,
    fraction: f64,
    runs: Vec<(Phase, Live, String)>,
    clean: &mut usize,
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut identifiers = Vec::new();
    let end = Instant::now() + END;
    for (phase, live, identifier) in runs {
        let outcome = live.finish(end.saturating_duration_since(Instant::now()));
        match outcome.code {
            Some(0) => *clean += 1,
            // The machine was lost, and that is what the code says.
            Some(4) => {}
            _ => problems.push(format!("{phase:?} at {fraction}: {outcome:#?}")),
        }
        identifiers.push(identifier);
    }
    let gone = arena.collect();
    if gone.code != Some(0) {
        problems.push(format!("at {fraction}: collection: {gone:#?}"));
    }
    let identifiers: Vec<&str> = identifiers.iter().map(String::as_str).collect();
    problems.extend(arena.left_of(&identifiers));
    problems
}

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
/// How long the daemon is away at most.
const AWAY: Duration = Duration::from_millis(1200);

#[test]
fn a_daemon_that_is_killed_and_started_again_hangs_no_run_and_costs_nothing() {
    let mut dice = Dice::of("restarts of a daemon");
    let mut arena = Arena::new(Kind::System);
    let phases = Kind::System.phases();
    let instants = dice.spread(rounds(1));
    let (tried, mut clean) = (instants.len() * phases.len(), 0);
    let mut problems = Vec::new();
    for fraction in instants {
        // One run at the beginning of each phase: they all meet the same death.
        let mut runs: Vec<(Phase, Live, String)> = phases
            .iter()
            .map(|phase| {
                let mut live = Live::start(&mut arena.run(phase.file()));
                let identifier = identifier_of(&mut live);
                let come = At::Within(*phase, Duration::ZERO);
                assert!(come.come(arena.home(), &mut live, &identifier));
                live.signal(Signal::STOP);
                (*phase, live, identifier)
            })
            .collect();
        for (_, live, _) in &mut runs {
            live.signal(Signal::CONT);
        }
        pass(LATEST.mul_f64(fraction));
        arena.daemon_mut().kill();
        pass(AWAY.mul_f64(dice.roll()));
        arena.daemon_mut().restart();
        problems.extend(end(&arena, fraction, runs, &mut clean));
    }
    println!(
        "\ninstants tried: {tried} (System, daemon killed in {phases:?}), runs that ended clean: {clean}, leaks: {}",
        problems.len()
    );
    assert!(problems.is_empty(), "{problems:#?}");
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

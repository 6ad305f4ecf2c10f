//! A libvirtd that is killed and started again in mid-run: every run ends in time, and what it could not remove
//! `seectl gc` does.

use std::time::{Duration, Instant};

use see_tests::{Dice, Live, rounds, until};

use crate::arena::{Arena, Kind, PATIENCE};
use crate::instants::{At, Phase};
use crate::volley::identifier_of;

/// How many runs at once meet the same death of the daemon.
const AT_ONCE: usize = 3;
/// The longest that a run may take which lost its daemon in the middle.
const END: Duration = Duration::from_secs(100);
/// How long the daemon is away at most.
const AWAY: f64 = 1.5;

#[test]
fn a_daemon_that_is_killed_and_started_again_hangs_no_run_and_costs_nothing() {
    torture(Kind::System, "restarts of a daemon");
}

fn torture(kind: Kind, name: &str) {
    let mut dice = Dice::of(name);
    let mut arena = Arena::new(kind);
    let usual = arena.usual(AT_ONCE);
    let mut problems = Vec::new();
    for phase in kind.phases() {
        let (mut tried, mut clean) = (0, 0);
        let already = problems.len();
        for fraction in dice.spread(rounds(1)) {
            let delay = usual.length(*phase).mul_f64(fraction);
            let away = Duration::from_secs_f64(AWAY * dice.roll());
            let mut runs: Vec<(Live, String)> = (0..AT_ONCE)
                .map(|_| {
                    let mut live = Live::start(&mut arena.run(phase.file()));
                    let identifier = identifier_of(&mut live);
                    (live, identifier)
                })
                .collect();
            let (first, identifier) = &mut runs[0];
            At::Within(*phase, delay).come(arena.home(), first, identifier);
            arena.daemon_mut().kill();
            let begin = Instant::now();
            until("the daemon's absence", AWAY_AT_MOST, || {
                begin.elapsed() >= away
            });
            arena.daemon_mut().restart();
            tried += 1;
            problems.extend(end(&arena, *phase, delay, runs, &mut clean));
        }
        println!(
            "\ninstants tried: {tried} ({kind:?}, daemon killed in {phase:?}), runs that ended clean: {clean} of \
             {}, leaks: {}",
            tried * AT_ONCE,
            problems.len() - already
        );
    }
    assert!(problems.is_empty(), "{problems:#?}");
}

/// The daemon's own notes, which it may forget when it is killed while it writes them: they lie in its folders, of
/// which a collection from elsewhere knows nothing.
const FORGOTTEN: [&str; 2] = ["/run/libvirt/", "/var/lib/libvirt/"];
/// More than the daemon is ever away.
const AWAY_AT_MOST: Duration = PATIENCE;

/// Waits for the ends, collects, and says what is wrong.
fn end(
    arena: &Arena,
    phase: Phase,
    delay: Duration,
    runs: Vec<(Live, String)>,
    clean: &mut usize,
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut identifiers = Vec::new();
    let end = Instant::now() + END;
    for (live, identifier) in runs {
        let outcome = live.finish(end.saturating_duration_since(Instant::now()));
        match outcome.code {
            Some(0) => *clean += 1,
            // The machine was lost, and that is what the code says.
            Some(4) => {}
            _ => problems.push(format!("{phase:?} after {delay:?}: {outcome:#?}")),
        }
        identifiers.push(identifier);
    }
    let gone = arena.collect();
    if gone.code != Some(0) {
        problems.push(format!("{phase:?} after {delay:?}: collection: {gone:#?}"));
    }
    let identifiers: Vec<&str> = identifiers.iter().map(String::as_str).collect();
    let own = |line: &String| FORGOTTEN.iter().any(|folder| line.starts_with(folder));
    let mut left = arena.left_of(&identifiers);
    left.retain(|line| !own(line));
    problems.extend(left);
    problems
}

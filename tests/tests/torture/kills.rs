//! SIGKILL at every step of the ledger and at seeded instants of each phase: `seectl gc` leaves nothing, and touches
//! nothing else.

use rustix::process::Signal;
use see_tests::{Dice, Live, emulator, rounds};

use crate::arena::{Arena, Kind, PATIENCE, Usual};
use crate::decoys::Decoys;
use crate::instants::{At, Phase};
use crate::volley::{Cut, Victim, fire, identifier_of, inside, within};

/// How many runs at once.
pub(crate) const AT_ONCE: usize = 6;

#[test]
fn embedded_runs_that_are_killed_are_collected_and_nothing_else_is_touched() {
    torture(Kind::Embedded, "kills of embedded runs");
}

#[test]
fn runs_of_a_daemon_that_are_killed_are_collected_and_nothing_else_is_touched() {
    torture(Kind::System, "kills of a daemon's runs");
}

#[test]
fn containers_that_are_killed_are_collected_and_nothing_else_is_touched() {
    torture(Kind::Lxc, "kills of containers");
}

fn torture(kind: Kind, name: &str) {
    let mut dice = Dice::of(name);
    let arena = Arena::new(kind);
    let usual = arena.usual(AT_ONCE);
    // A neighbour of the same home, which nobody may disturb.
    let mut neighbour = Live::start(&mut arena.run("long.json"));
    let own = identifier_of(&mut neighbour);
    let runs = neighbour.wait_for("machine that runs", PATIENCE, |line| {
        line["event"] == "step_finished" && line["attributes"]["step"] == "poweron"
    });
    assert!(runs.is_some(), "{neighbour:#?}");
    let machine = emulator(&own);

    let mut leaks = steps_of_the_ledger(&arena, &usual);
    for phase in kind.phases() {
        let mut left = Vec::new();
        let victims = within(&mut dice, (&usual, *phase), rounds(5), |instants| {
            let cuts = instants.into_iter().map(|at| Cut {
                file: phase.file(),
                at,
                with: Signal::KILL,
            });
            let (victims, leaks) = volleys(&arena, &cuts.collect::<Vec<Cut>>());
            left.extend(leaks);
            victims
        });
        tell(kind, &format!("{phase:?}"), &victims, left.len());
        leaks.extend(left);
        leaks.extend(too_few(*phase, &victims));
    }

    assert!(
        neighbour.runs() && emulator(&own) == machine,
        "{neighbour:#?}"
    );
    neighbour.signal(Signal::TERM);
    let outcome = neighbour.finish(PATIENCE);
    assert_eq!(outcome.code, Some(143), "{outcome:#?}");
    assert_eq!(arena.left_of(&[&own]), Vec::<String>::new());
    assert!(leaks.is_empty(), "{leaks:#?}");
}

fn steps_of_the_ledger(arena: &Arena, usual: &Usual) -> Vec<String> {
    let cuts = usual.steps.iter().map(|lines| Cut {
        file: "run.json",
        at: At::Line(*lines),
        with: Signal::KILL,
    });
    let (victims, leaks) = volleys(arena, &cuts.collect::<Vec<Cut>>());
    // The last lines may come too late to be cut off after them.
    let missed = victims.iter().filter(|victim| !victim.hit).count();
    assert!(missed <= 2, "{missed} of {:?} were missed", usual.steps);
    tell(arena.kind(), "ledger steps", &victims, leaks.len());
    leaks
}

/// Says what a campaign reports.
pub(crate) fn tell(kind: Kind, what: &str, victims: &[Victim], leaks: usize) {
    println!(
        "\ninstants tried: {} ({kind:?}, {what}), inside: {}, leaks: {leaks}",
        victims.len(),
        inside(victims)
    );
}

/// That a phase was not met as often as it should have been.
pub(crate) fn too_few(phase: Phase, victims: &[Victim]) -> Option<String> {
    let (met, wanted) = (inside(victims), rounds(5));
    (met < wanted).then(|| format!("{phase:?} was met {met} times only, not {wanted}"))
}

/// Kills all of them, some at a time, and collects. What is left that should not be, and what is gone or
/// damaged that should be left.
fn volleys(arena: &Arena, cuts: &[Cut]) -> (Vec<Victim>, Vec<String>) {
    let mut all = Vec::new();
    let mut leaks = Vec::new();
    for cuts in cuts.chunks(AT_ONCE) {
        let victims = fire(arena, cuts);
        let resembled = &victims[0].identifier;
        let mut decoys = Decoys::lay(arena, resembled);
        let gone = arena.collect();
        if gone.code != Some(0) {
            leaks.push(format!("collection: {gone:#?}"));
        }
        let identifiers: Vec<&str> = victims.iter().map(|it| it.identifier.as_str()).collect();
        for left in arena.left_of(&identifiers) {
            let whose = victims
                .iter()
                .find(|victim| left.contains(&victim.identifier));
            let when = whose.map(|victim| victim.cut.at);
            leaks.push(format!("{when:?}: {left}"));
        }
        let paths = victims.iter().flat_map(|victim| &victim.paths);
        let left = paths.filter(|path| path.symlink_metadata().is_ok());
        leaks.extend(left.map(|path| format!("left: {}", path.display())));
        leaks.extend(decoys.damage());
        all.extend(victims);
    }
    (all, leaks)
}

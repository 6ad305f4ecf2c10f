//! SIGKILL at every step of the ledger and at seeded instants of each phase: `seectl gc` leaves nothing, and touches
//! nothing else. What a daemon keeps of a dead run's machine, its snapshots and its saved state, goes with it.

use rustix::process::Signal;
use see_tests::{Live, emulator, rounds};

use crate::arena::{Arena, Kind, PATIENCE};
use crate::decoys::{Decoys, virsh};
use crate::instants::Phase;
use crate::volley::{Cut, Victim, at_steps, fire, identifier_of, inside, missed, within};

/// How many runs at once.
pub(crate) const AT_ONCE: usize = 6;

#[test]
fn embedded_runs_that_are_killed_are_collected_and_nothing_else_is_touched() {
    torture(Kind::Embedded);
}

#[test]
fn runs_of_a_daemon_that_are_killed_are_collected_and_nothing_else_is_touched() {
    torture(Kind::System);
}

#[test]
fn containers_that_are_killed_are_collected_and_nothing_else_is_touched() {
    torture(Kind::Lxc);
}

fn torture(kind: Kind) {
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

    let mut kept = Kept::default();
    let mut leaks = Vec::new();
    for (what, file, steps) in usual.ledger() {
        let mut left = Vec::new();
        let victims = at_steps(file, &steps, Signal::KILL, |cuts| {
            volleys(&arena, cuts, &mut kept, &mut left)
        });
        tell(kind, what, &victims, left.len());
        leaks.extend(left);
        leaks.extend(missed(&steps, &victims));
    }
    for phase in Phase::ALL {
        let mut left = Vec::new();
        let what = (&usual, phase, kind.nets());
        let victims = within(kind.dice(), what, (Signal::KILL, rounds(5)), |cuts| {
            volleys(&arena, cuts, &mut kept, &mut left)
        });
        tell(kind, &format!("{phase:?}"), &victims, left.len());
        leaks.extend(left);
        leaks.extend(too_few(phase, rounds(5), &victims));
    }
    if kind == Kind::System {
        println!("\n{kept:?}");
        assert!(kept.snapshots > 0 && kept.saved_states > 0, "{kept:?}");
    }

    assert!(
        neighbour.runs() && emulator(&own) == machine,
        "{neighbour:#?}"
    );
    neighbour.signal(Signal::TERM);
    let outcome = neighbour.finish(PATIENCE);
    assert_eq!(outcome.code, Some(143), "{outcome:#?}");
    assert_eq!(arena.left_of(&[&own]), Vec::<String>::new());
    assert_eq!(arena.left_at_all(), Vec::<String>::new());
    assert!(leaks.is_empty(), "{leaks:#?}");
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
pub(crate) fn too_few(phase: Phase, wanted: usize, victims: &[Victim]) -> Option<String> {
    let met = inside(victims);
    (met < wanted).then(|| format!("{phase:?} was met {met} times only, not {wanted}"))
}

/// How often a daemon kept something of a machine whose run was dead.
#[derive(Debug, Default)]
struct Kept {
    snapshots: usize,
    saved_states: usize,
}

impl Kept {
    /// Takes a snapshot of each machine that dead runs have left, and saves the state of each that runs.
    fn keep(&mut self, arena: &Arena, victims: &[Victim]) {
        // Of a container libvirt takes neither.
        let daemon = arena.daemon().filter(|_| arena.kind() == Kind::System);
        let Some(daemon) = daemon else { return };
        // A machine that is only half made may refuse.
        let does = |words: &[&str]| {
            let output = virsh(daemon, words).output().expect("virsh is installed");
            usize::from(output.status.success())
        };
        let domains = daemon.told(
            "virsh",
            &["-q", "-c", &daemon.uri(), "list", "--all", "--name"],
        );
        for name in victims.iter().map(|victim| &victim.identifier) {
            if domains.lines().any(|domain| domain == name) {
                self.snapshots += does(&["snapshot-create-as", name, "before"]);
                self.saved_states += does(&["managedsave", name]);
            }
        }
    }
}

/// Kills all of them, some at a time, and collects. Adds what is left that should not be, and what is gone or
/// damaged that should be left.
fn volleys(arena: &Arena, cuts: &[Cut], kept: &mut Kept, leaks: &mut Vec<String>) -> Vec<Victim> {
    let mut all = Vec::new();
    for cuts in cuts.chunks(AT_ONCE) {
        let victims = fire(arena, cuts);
        // One that was gone before it could be killed went well.
        let ill = victims
            .iter()
            .filter(|it| !it.hit && it.outcome.code != Some(0));
        leaks.extend(ill.map(|it| format!("{:?}: {:#?}", it.cut, it.outcome)));
        kept.keep(arena, &victims);
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
            let when = whose.map(|victim| victim.cut);
            leaks.push(format!("{when:?}: {left}"));
        }
        let paths = victims.iter().flat_map(|victim| &victim.paths);
        let left = paths.filter(|path| path.symlink_metadata().is_ok());
        leaks.extend(left.map(|path| format!("left: {}", path.display())));
        leaks.extend(decoys.damage());
        all.extend(victims);
    }
    all
}

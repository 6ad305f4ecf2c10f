//! SIGTERM, Ctrl-C and SIGHUP at the same instants: the run tidies up itself, and nothing is left to collect.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use see_tests::{Live, emulator, is_campaign, rounds, until};

use crate::arena::{Arena, Kind, PATIENCE, Steps, Usual};
use crate::instants::{At, Phase, end_of};
use crate::kills::{AT_ONCE, tell, too_few};
use crate::volley::{Cut, Victim, at_steps, code_of, fire, identifier_of, missed, within};

/// What a person waits for after a second Ctrl-C.
const AT_ONCE_FOR_A_PERSON: Duration = Duration::from_secs(3);

/// How long, in seconds, a run on a busy host may go on before it hears a signal: one that comes this shortly before
/// the end of what it interrupts may be too late.
const HEARING: f64 = 0.3;

#[test]
fn embedded_runs_that_are_interrupted_leave_nothing_to_collect() {
    torture(Kind::Embedded);
}

#[test]
fn runs_of_a_daemon_that_are_interrupted_leave_nothing_to_collect() {
    torture(Kind::System);
}

#[test]
fn containers_that_are_interrupted_leave_nothing_to_collect() {
    torture(Kind::Lxc);
}

fn torture(kind: Kind) {
    let arena = Arena::new(kind);
    let usual = arena.usual(AT_ONCE);
    let mut problems = Vec::new();
    // Those of a full clone are the kills', but in a campaign.
    let count = if is_campaign() { 2 } else { 1 };
    for (what, file, steps) in usual.ledger().into_iter().take(count) {
        for (turn, with) in [Signal::TERM, Signal::INT].into_iter().enumerate() {
            let steps = of_turn(&steps, turn);
            let mut left = Vec::new();
            let all = at_steps(file, &steps, with, |cuts| {
                volleys(&arena, &usual, cuts, &mut left)
            });
            tell(kind, &format!("{what}, {with:?}"), &all, left.len());
            problems.extend(left);
            problems.extend(missed(&steps, &all));
        }
    }
    for phase in Phase::ALL {
        // The same instants as those of the kills, and in a campaign some for a lost terminal, too.
        let some = if is_campaign() {
            rounds(5).div_ceil(5)
        } else {
            0
        };
        for (with, wanted) in [
            (Signal::TERM, rounds(5)),
            (Signal::INT, rounds(5)),
            (Signal::HUP, some),
        ] {
            if wanted == 0 {
                continue;
            }
            let mut left = Vec::new();
            let what = (&usual, phase, kind.nets());
            let all = within(kind.dice(), what, (with, wanted), |cuts| {
                volleys(&arena, &usual, cuts, &mut left)
            });
            tell(kind, &format!("{phase:?}, {with:?}"), &all, left.len());
            problems.extend(left);
            problems.extend(too_few(phase, wanted, &all));
        }
    }
    assert!(problems.is_empty(), "{problems:#?}");
    let gone = arena.collect();
    assert_eq!(
        (gone.code, gone.stdout.as_str()),
        (Some(0), ""),
        "{gone:#?}"
    );
    assert_eq!(arena.left_at_all(), Vec::<String>::new());
}

/// The steps for one of both signals: outside a campaign they take turns.
fn of_turn(steps: &Steps, turn: usize) -> Steps {
    let of_turn = |lines: &[usize]| {
        let steps = lines.iter().enumerate();
        let steps = steps.filter(|(step, _)| is_campaign() || step % 2 == turn);
        steps.map(|(_, lines)| *lines).collect()
    };
    let each = steps.iter().map(|(net, lines)| (*net, of_turn(lines)));
    each.collect()
}

/// Interrupts all of them, some at a time, and adds what is wrong with them.
fn volleys(arena: &Arena, usual: &Usual, cuts: &[Cut], left: &mut Vec<String>) -> Vec<Victim> {
    let mut all = Vec::new();
    for cuts in cuts.chunks(AT_ONCE) {
        let victims = fire(arena, cuts);
        left.extend(victims.iter().filter_map(|victim| ill(usual, victim)));
        let identifiers: Vec<&str> = victims.iter().map(|it| it.identifier.as_str()).collect();
        for thing in arena.left_of(&identifiers) {
            let whose = victims
                .iter()
                .find(|victim| thing.contains(&victim.identifier));
            let told = whose.map(|victim| (victim.cut, &victim.outcome.stderr));
            left.push(format!("{told:?}: {thing}"));
        }
        all.extend(victims);
    }
    all
}

/// A run that was interrupted says so, unless all that could be interrupted was over.
fn ill(usual: &Usual, victim: &Victim) -> Option<String> {
    let cut = victim.cut;
    let last = match cut.at {
        At::Within(phase, _) => (phase != Phase::Teardown).then(|| phase.step()),
        At::Line(lines) => usual
            .is_making(cut.net, lines)
            .then(|| Phase::PowerOn.step()),
        At::Never => None,
    };
    let over = last.and_then(|step| {
        let mut lines = victim.outcome.stdout.lines();
        lines.find_map(|line| end_of(step, line))
    });
    let came_late = match (victim.sent, over) {
        (Some(sent), Some(over)) => sent + HEARING >= over,
        _ => last.is_none() || victim.sent.is_none(),
    };
    let code = victim.outcome.code;
    let good = code == code_of(cut.with) || came_late && code == Some(0);
    (!good).then(|| format!("{cut:?}: {:#?}", victim.outcome))
}

#[test]
fn a_second_interrupt_ends_a_run_at_once_and_the_rest_is_collected() {
    let arena = Arena::new(Kind::Embedded);
    let mut live = Live::start(&mut arena.run("long.json"));
    let identifier = identifier_of(&mut live);
    let mut machine = None;
    until("the machine", PATIENCE, || {
        machine = emulator(&identifier);
        machine.is_some() || !live.runs()
    });
    // An emulator that does not react makes the orderly end take its time.
    let machine = machine.and_then(|process| Pid::from_raw(i32::try_from(process).ok()?));
    kill_process(machine.expect("the machine runs"), Signal::STOP).expect("it is ours");
    live.signal(Signal::INT);
    live.wait_for("note of the first signal", PATIENCE, |line| {
        line.get("note").is_some()
    })
    .expect("the first signal is told");
    let begin = Instant::now();
    live.signal(Signal::INT);
    let outcome = live.finish(PATIENCE);
    assert!(begin.elapsed() < AT_ONCE_FOR_A_PERSON, "{outcome:#?}");
    assert_eq!(outcome.code, Some(130), "{outcome:#?}");
    assert!(outcome.stderr.contains("seectl gc"), "{outcome:#?}");
    assert_eq!(arena.home().recorded(), [identifier.as_str()]);

    let gone = arena.collect();
    assert_eq!(gone.code, Some(0), "{gone:#?}");
    assert_eq!(arena.left_of(&[&identifier]), Vec::<String>::new());
}

/// Says that it lives on and whether it was interrupted, until it may go on.
const SLOW: &str = "#!/bin/sh
trap 'echo interrupted >> beats' INT
until [ -e go ]; do echo beat >> beats; sleep 0.01; done
exec QEMU_IMG \"$@\"
";

#[test]
fn a_ctrl_c_ends_no_program_that_a_run_has_started_and_waits_for() {
    let arena = Arena::new(Kind::Embedded);
    let home = arena.home();
    let program = programs("qemu-img").next().expect("it is installed");
    let script = SLOW.replace("QEMU_IMG", &program.display().to_string());
    std::fs::create_dir(home.path("bin")).expect("the home is writable");
    let slow = home.write("bin/qemu-img", script);
    std::fs::set_permissions(slow, Permissions::from_mode(0o755)).expect("it is ours");
    let path = std::env::var("PATH").expect("there is a path");
    let mut command = arena.run("run.json");
    command.env("PATH", format!("{}:{path}", home.path("bin").display()));
    let mut live = Live::start(command.current_dir(home.path("")).process_group(0));
    let identifier = identifier_of(&mut live);

    let beats = || std::fs::read_to_string(home.path("beats")).unwrap_or_default();
    until("qemu-img", PATIENCE, || beats().lines().count() > 0);
    // The run itself hears of it later, so what is seen until then is the terminal's doing.
    live.signal(Signal::STOP);
    live.signal_group(Signal::INT);
    let before = beats().lines().count();
    until("further beats", PATIENCE, || {
        beats().lines().count() > before + 5
    });
    assert!(!beats().contains("interrupted"), "{}", beats());
    live.signal(Signal::CONT);
    let outcome = live.finish(PATIENCE);
    assert_eq!(outcome.code, Some(130), "{outcome:#?}");
    assert_eq!(arena.left_of(&[&identifier]), Vec::<String>::new());
}

/// Where the path has this program.
fn programs(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let files = folders.into_iter().map(move |folder| folder.join(name));
    files.filter(|file| file.is_file())
}

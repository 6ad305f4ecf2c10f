//! SIGTERM, Ctrl-C and SIGHUP at the same instants: the run tidies up itself, and nothing is left to collect.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use see_tests::{Dice, Live, emulator, rounds, until};

use crate::arena::{Arena, Kind, PATIENCE};
use crate::instants::At;
use crate::kills::{AT_ONCE, tell, too_few};
use crate::volley::{Cut, Victim, fire, identifier_of, within};

/// What a person waits for after a second Ctrl-C.
const AT_ONCE_FOR_A_PERSON: Duration = Duration::from_secs(3);

/// The signals with the codes that `seectl --help` documents.
const SIGNALS: [(Signal, i32); 3] = [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)];

#[test]
fn embedded_runs_that_are_interrupted_leave_nothing_to_collect() {
    torture(Kind::Embedded, "signals to embedded runs");
}

#[test]
fn runs_of_a_daemon_that_are_interrupted_leave_nothing_to_collect() {
    torture(Kind::System, "signals to a daemon's runs");
}

#[test]
fn containers_that_are_interrupted_leave_nothing_to_collect() {
    torture(Kind::Lxc, "signals to containers");
}

fn torture(kind: Kind, name: &str) {
    let mut dice = Dice::of(name);
    let arena = Arena::new(kind);
    let usual = arena.usual(AT_ONCE);
    let mut signals = SIGNALS.iter().cycle();
    // Interrupts a run at each instant, some at a time, and tells what is wrong with them.
    let mut volleys = |file: &'static str, instants: Vec<At>, left: &mut Vec<String>| {
        let cuts = instants.into_iter().zip(&mut signals);
        let cuts = cuts.map(|(at, (with, _))| Cut {
            file,
            at,
            with: *with,
        });
        let mut all = Vec::new();
        for cuts in cuts.collect::<Vec<Cut>>().chunks(AT_ONCE) {
            let victims = fire(&arena, cuts);
            left.extend(victims.iter().filter_map(ill));
            let identifiers: Vec<&str> = victims.iter().map(|it| it.identifier.as_str()).collect();
            left.extend(arena.left_of(&identifiers));
            all.extend(victims);
        }
        all
    };
    let mut leaks = Vec::new();
    let steps = usual.steps.iter().map(|lines| At::Line(*lines)).collect();
    let all = volleys("run.json", steps, &mut leaks);
    tell(kind, "signals at ledger steps", &all, leaks.len());
    for phase in kind.phases() {
        let mut left = Vec::new();
        let all = within(&mut dice, (&usual, *phase), rounds(5), |instants| {
            volleys(phase.file(), instants, &mut left)
        });
        tell(kind, &format!("signals in {phase:?}"), &all, left.len());
        leaks.extend(left);
        leaks.extend(too_few(*phase, &all));
    }
    assert!(leaks.is_empty(), "{leaks:#?}");
    let gone = arena.collect();
    assert_eq!(
        (gone.code, gone.stdout.as_str()),
        (Some(0), ""),
        "{gone:#?}"
    );
}

/// A run that was interrupted says so, unless all was over.
fn ill(victim: &Victim) -> Option<String> {
    let expected = SIGNALS
        .iter()
        .find(|(signal, _)| *signal == victim.cut.with)
        .map(|(_, code)| *code);
    let code = victim.outcome.code;
    // Late in the teardown there is nothing left to interrupt.
    let good = code == expected || code == Some(0);
    (!good).then(|| format!("{:?}: {:#?}", victim.cut, victim.outcome))
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

//! A person whose terminal is closed, or whose connection to it is lost, while a machine runs.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use see_tests::{PrivateDaemon, emulator, until};

use crate::arena::{Arena, Kind, PATIENCE};

/// The exit code of a run that lost its terminal, as `seectl --help` documents it.
const LOST: Option<i32> = Some(129);

#[test]
fn an_embedded_run_that_loses_its_terminal_tears_its_machine_down() {
    lose_the_terminal(Kind::Embedded);
}

#[test]
fn a_run_of_a_daemon_that_loses_its_terminal_tears_its_machine_down() {
    lose_the_terminal(Kind::System);
}

#[test]
fn a_run_of_a_container_that_loses_its_terminal_tears_it_down() {
    lose_the_terminal(Kind::Lxc);
}

fn lose_the_terminal(kind: Kind) {
    let arena = Arena::new(kind);
    let user = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC);
    let user: OwnedFd = user.expect("the kernel has terminals");
    grantpt(&user).expect("it is ours");
    unlockpt(&user).expect("it is ours");
    let path = ptsname(&user, Vec::new()).expect("it has a name");
    let open = || -> Stdio {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let end = rustix::fs::open(path.as_c_str(), flags, Mode::empty());
        end.expect("the terminal's other end").into()
    };
    let seectl = arena.seectl(&["run", "long.json", "--no-gc"]);
    let mut command = Command::new("setsid");
    command
        .args(["--ctty", "--wait"])
        .arg(seectl.get_program())
        .args(seectl.get_args())
        .stdin(open())
        .stdout(open())
        .stderr(open());
    command.current_dir(seectl.get_current_dir().expect("a home"));
    for (name, value) in seectl.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut run = command.spawn().expect("setsid is installed");
    let identifier = || arena.home().recorded().into_iter().next();
    until("the machine", PATIENCE, || {
        let ended = run.try_wait().expect("a child can be waited for");
        assert!(ended.is_none(), "it ended before: {ended:?}");
        identifier().is_some_and(|identifier| runs(&arena, &identifier))
    });
    let identifier = identifier().expect("it was seen");
    // Nobody looks any more, and what the run says goes nowhere.
    drop(user);
    let mut status = None;
    until("the end of the run", PATIENCE, || {
        status = run.try_wait().expect("a child can be waited for");
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), LOST, "{status:?}");
    // Without any collection.
    assert_eq!(arena.left_of(&[&identifier]), Vec::<String>::new());
    assert_eq!(arena.home().recorded(), Vec::<String>::new());
}

/// Whether an environment's emulator or container runs.
fn runs(arena: &Arena, identifier: &str) -> bool {
    let container = |daemon: &PrivateDaemon| {
        let words = ["-q", "-c", &daemon.lxc_uri(), "list", "--name"];
        let names = daemon.told("virsh", &words);
        names.lines().any(|name| name == identifier)
    };
    emulator(identifier).is_some() || arena.daemon().is_some_and(container)
}

//! Programs in control groups, where this host lets a process make some. The one test has its process to itself.

#![cfg(target_os = "linux")]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use see_agent::protocol::{Placement, Reply, Request};
use see_agent::server::{Agent, Settings, Trust, serve_connection};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio, id};
use std::thread;
use std::time::{Duration, Instant};
use support::{Host, PATIENCE, shell};

/// The control group of this process, where it may make others in it.
fn home() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find(|line| line.contains(" cgroup2 "))?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let home = Path::new(mount.split(' ').nth(1)?).join(own);
    let tried = home.join(format!("see-tests-try-{}", id()));
    let can_make = fs::create_dir(&tried).is_ok();
    let can_kill = tried.join("cgroup.kill").exists();
    (can_make && fs::remove_dir(tried).is_ok() && can_kill).then_some(home)
}

/// The groups that the agent of this number has made.
fn groups(home: &Path, agent: u32) -> Vec<String> {
    let entries = fs::read_dir(home).expect("the group").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let own = format!("see-{agent}-");
    names.filter(|name| name.starts_with(&own)).collect()
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn greeted(stream: UnixStream) -> Host<UnixStream> {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut host = Host::silent(stream, 0x5EE);
    host.hello(b"").expect("a welcome");
    host
}

/// The program `see-agent`; killed with the test.
struct Program(Child);

impl Program {
    fn start(folder: &Path) -> (Self, Host<UnixStream>) {
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let other: OwnedFd = theirs.try_clone().expect("a clone").into();
        let mut command = Command::new(env!("CARGO_BIN_EXE_see-agent"));
        command.arg("--stdio").arg("--folder").arg(folder);
        command.stdin(OwnedFd::from(theirs)).stdout(other);
        let child = command.stderr(Stdio::null()).spawn().expect("the agent");
        (Self(child), greeted(ours))
    }

    /// As the kernel does when memory runs out: nothing is cleaned up.
    fn dies(&mut self) {
        self.0.kill().expect("killing the agent");
        self.0.wait().expect("its end");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.dies();
    }
}

#[test]
fn a_program_has_a_control_group_only_where_that_is_wanted_and_none_outlives_its_programs() {
    let Some(home) = home() else {
        // This host lets this process make no control groups.
        return;
    };
    let folder = std::env::temp_dir().join(format!("see-agent-groups-{}", id()));
    let of_program = "grep ^0:: /proc/self/cgroup";
    let session = "setsid sh -c 'echo $$; exec sleep 600'; wait";

    // An agent in another program's process leaves the groups alone, unless it is told otherwise.
    for control_groups in [false, true] {
        let mut settings = Settings::new(&folder);
        settings.control_groups = control_groups;
        let agent = Agent::new(settings).expect("an agent");
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let writer = theirs.try_clone().expect("a clone");
        thread::spawn(move || serve_connection(&agent, theirs, writer, Trust::Reached));
        let mut host = greeted(ours);
        let ran = host.run(shell(of_program));
        let told = String::from_utf8(ran.stdout).expect("text");
        let own = format!("/see-{}-", id());
        assert_eq!(told.contains(&own), control_groups, "{told}");
        let mut killed = shell(session);
        killed.deadline = Duration::from_secs(2);
        let ran = host.run(killed);
        let pid = String::from_utf8(ran.stdout).expect("text");
        assert!(!pid.trim().is_empty(), "the session was not begun in time");
        if control_groups {
            let gone = || !Path::new("/proc").join(pid.trim()).exists();
            eventually("the end of the session", gone);
            // A program's start removes what could not be removed before.
            host.run(shell("true"));
        } else {
            host.run(shell(&format!("kill {pid}")));
        }
        eventually("no group", || groups(&home, id()).is_empty());
    }

    // An agent that is restarted ends what the one before it left.
    let (mut first, mut host) = Program::start(&folder);
    let mut run = shell("setsid sleep 600 & exec sleep 600");
    run.placement = Placement::Background;
    let started = host.call(Request::Run(run));
    let Reply::Started { pid, .. } = started else {
        panic!("not started: {started:?}");
    };
    let number = first.0.id();
    let left = groups(&home, number);
    assert_eq!(left.len(), 1, "{left:?}");
    let (beside, _beside_host) = Program::start(&folder);
    assert_eq!(groups(&home, number), left, "the agent still runs");
    first.dies();
    assert!(Path::new("/proc").join(pid.to_string()).exists());
    let (second, _host) = Program::start(&folder);
    assert!(groups(&home, number).is_empty());
    let runs = || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    eventually("the end of what was left", || !runs());
    drop((first, beside, second));
    fs::remove_dir_all(folder).expect("removing the test's folder");
}

//! Running programs, over a connection to an agent in this process.

#![cfg(unix)]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use see_agent::protocol::{
    Exit, FailureCode, JobState, MAX_REQUESTS, Outcome, Placement, Reply, Request, Stream, Upload,
};
use see_agent::server::{Agent, Settings, Trust, serve_connection};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};
use support::{Host, PATIENCE, failure, shell};

/// A folder of its own that goes with the test.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("removing the test's folder");
    }
}

fn agent(test: &str) -> (Host<UnixStream>, Folder) {
    let path = std::env::temp_dir().join(format!("see-agent-{test}-{}", std::process::id()));
    let agent = Agent::new(Settings::new(&path)).expect("an agent");
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    ours.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let writer = theirs.try_clone().expect("a clone");
    thread::spawn(move || serve_connection(&agent, theirs, writer, Trust::Reached));
    let mut host = Host::silent(ours, 0x5EE);
    host.hello(b"").expect("a welcome");
    (host, Folder(path))
}

/// Waits for a condition, with a deadline.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited for {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process of this number runs; a zombie does not.
fn runs(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .and_then(|rest| rest.trim_start().chars().next());
    state.is_some_and(|state| state != 'Z')
}

#[test]
fn exit_codes_and_signals_are_told_apart() {
    let (mut host, _folder) = agent("exit");
    assert_eq!(host.run(shell("exit 3")).outcome.exit, Exit::Code(3));
    assert_eq!(
        host.run(shell("kill -TERM $$")).outcome.exit,
        Exit::Signal(15)
    );
}

#[test]
fn the_two_outputs_are_apart_and_come_in_the_order_of_writing() {
    let (mut host, folder) = agent("order");
    // Nothing else is written before what was has been heard.
    let script = "k=0; heard() { k=$((k + 1)); until [ -e \"$0-$k\" ]; do sleep 0.01; done; }; \
                  for n in 1 2 3; do printf o$n; heard; printf e$n >&2; heard; done";
    let mut run = shell(script);
    let mark = folder.0.join("heard").display().to_string();
    run.program.arguments.push(mark.clone().into_bytes());
    let number = host.send(Request::Run(run));
    assert!(matches!(host.answer(number), Reply::Started { .. }));
    let ran = host.collect_with(number, |pieces| {
        std::fs::write(format!("{mark}-{pieces}"), "").expect("the test's folder is writable");
    });
    assert_eq!(
        (&ran.stdout[..], &ran.stderr[..]),
        (&b"o1o2o3"[..], &b"e1e2e3"[..])
    );
    let order: Vec<Stream> = ran.pieces.iter().map(|(stream, _)| *stream).collect();
    assert_eq!(order, [Stream::Stdout, Stream::Stderr].repeat(3));
}

#[test]
fn arguments_variables_and_output_may_be_any_bytes() {
    let (mut host, _folder) = agent("bytes");
    let odd: Vec<u8> = (1..=255).collect();
    let mut run = shell("printf %s \"$1\"; printf %s \"$ODD\" >&2");
    run.program.arguments.extend([b"sh".to_vec(), odd.clone()]);
    run.program.environment.push((b"ODD".to_vec(), odd.clone()));
    let ran = host.run(run);
    assert_eq!(ran.stdout, odd);
    assert_eq!(ran.stderr, odd);
}

#[test]
fn an_empty_environment_and_a_working_folder_are_honoured() {
    let (mut host, _folder) = agent("folder");
    let mut run = shell("pwd; echo ${HOME-none} $A");
    run.program.clear_environment = true;
    run.program.environment.push((b"A".to_vec(), b"b".to_vec()));
    run.program.folder = b"/usr".to_vec();
    assert_eq!(host.run(run).stdout, b"/usr\nnone b\n");
    let mut run = shell("true");
    run.program.folder = b"/no/such/folder".to_vec();
    assert_eq!(
        failure(&host.call(Request::Run(run))),
        Some(FailureCode::NotFound)
    );
}

#[test]
fn a_program_that_is_not_there_says_so() {
    let (mut host, _folder) = agent("missing");
    let mut run = shell("");
    run.program.arguments = vec![b"/no/such/program".to_vec()];
    assert_eq!(
        failure(&host.call(Request::Run(run.clone()))),
        Some(FailureCode::NotFound)
    );
    run.program.arguments = vec![b"/etc".to_vec()];
    assert_eq!(
        failure(&host.call(Request::Run(run.clone()))),
        Some(FailureCode::Denied)
    );
    for bad in [vec![], vec![b"".to_vec()], vec![b"sh\0x".to_vec()]] {
        run.program.arguments = bad;
        let reply = host.call(Request::Run(run.clone()));
        assert_eq!(failure(&reply), Some(FailureCode::BadRequest));
    }
}

#[test]
fn input_is_streamed_to_the_program() {
    let (mut host, _folder) = agent("input");
    let mut run = shell("cat");
    run.placement = Placement::Foreground { input: true };
    let number = host.send(Request::Run(run));
    assert!(matches!(host.answer(number), Reply::Started { .. }));
    host.feed(number, [b"one ".to_vec(), b"two".to_vec()].into_iter())
        .expect("fed");
    assert_eq!(host.collect(number).stdout, b"one two");
}

#[test]
fn a_deadline_kills_the_whole_group() {
    let (mut host, _folder) = agent("deadline");
    let mut run = shell("sleep 600 & echo $!; sleep 600");
    run.deadline = Duration::from_millis(700);
    let started = Instant::now();
    let ran = host.run(run);
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert!(
        ran.outcome.timed_out && !ran.outcome.killed,
        "{:?}",
        ran.outcome
    );
    assert_eq!(ran.outcome.exit, Exit::Signal(9));
    let child = String::from_utf8(ran.stdout)
        .expect("a number")
        .trim()
        .to_owned();
    assert!(!child.is_empty());
    eventually("the child's end", || !runs(&child));
}

#[test]
fn descendants_that_keep_the_output_open_do_not_hold_up_the_answer() {
    let (mut host, _folder) = agent("daemon");
    let started = Instant::now();
    let ran = host.run(shell("sleep 30 & echo $!; exit 4"));
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
    assert_eq!(ran.outcome.exit, Exit::Code(4));
    assert!(
        ran.outcome.output_held && !ran.outcome.killed,
        "{:?}",
        ran.outcome
    );
    let child = String::from_utf8(ran.stdout)
        .expect("a number")
        .trim()
        .to_owned();
    assert!(!child.is_empty());
    assert!(runs(&child), "what a program leaves behind goes on");
    host.run(shell(&format!("kill {child}")));
    eventually("the child's end", || !runs(&child));
}

#[test]
fn output_beyond_the_limit_is_dropped_and_counted_while_the_program_goes_on() {
    let (mut host, _folder) = agent("limit");
    let mut run = shell("head -c 3000000 /dev/zero; echo done >&2");
    run.stdout_limit = 1000;
    let ran = host.run(run);
    assert_eq!(ran.stdout, vec![0; 1000]);
    assert_eq!(ran.stderr, b"done\n");
    let Outcome {
        stdout_truncated,
        stderr_truncated,
        stdout_bytes,
        ..
    } = ran.outcome;
    assert_eq!(
        (stdout_truncated, stderr_truncated, stdout_bytes),
        (true, false, 3_000_000)
    );
}

#[test]
fn a_host_that_takes_no_output_cannot_hold_off_the_deadline_of_a_flood() {
    let (mut host, _folder) = agent("flood");
    let mut run = shell("echo $$; exec yes");
    run.deadline = Duration::from_millis(500);
    run.stdout_limit = u64::MAX;
    let number = host.send(Request::Run(run));
    assert!(matches!(host.answer(number), Reply::Started { .. }));
    let Reply::Output { bytes, .. } = host.answer(number) else {
        panic!("no output");
    };
    let pid = String::from_utf8_lossy(&bytes)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned();
    assert!(!pid.is_empty());
    eventually("the flood's end", || !runs(&pid));
    // Meanwhile the agent answers, and gives the rest once the host takes it.
    assert!(matches!(host.call(Request::Ping), Reply::Pong(_)));
    let cost = Request::stream_cost(bytes.len()) as u32;
    host.send_as(number, Request::Credit(cost));
    let ran = host.collect(number);
    assert!(ran.outcome.timed_out, "{:?}", ran.outcome);
}

#[test]
fn a_cancelled_program_is_killed_and_still_answered() {
    let (mut host, _folder) = agent("cancel");
    let number = host.send(Request::Run(shell("echo $$; sleep 600")));
    assert!(matches!(host.answer(number), Reply::Started { .. }));
    host.send_as(number, Request::Cancel);
    let ran = host.collect(number);
    assert!(
        ran.outcome.killed && !ran.outcome.timed_out,
        "{:?}",
        ran.outcome
    );
}

#[test]
fn requests_beyond_the_bound_are_refused_and_pings_still_answered() {
    let (mut host, _folder) = agent("bound");
    let open: Vec<u32> = (0..MAX_REQUESTS)
        .map(|_| host.send(Request::Run(shell("sleep 600"))))
        .collect();
    for number in &open {
        assert!(matches!(host.answer(*number), Reply::Started { .. }));
    }
    let refused = host.call(Request::Run(shell("true")));
    assert_eq!(failure(&refused), Some(FailureCode::Busy));
    assert!(matches!(host.call(Request::Ping), Reply::Pong(_)));
    host.send_as(open[0], Request::Cancel);
    assert!(host.collect(open[0]).outcome.killed);
    assert_eq!(host.run(shell("exit 5")).outcome.exit, Exit::Code(5));
}

#[test]
fn a_background_program_is_asked_after_later_and_killed() {
    let (mut host, _folder) = agent("job");
    let mut run = shell("echo begun; echo odd >&2; sleep 600");
    run.placement = Placement::Background;
    let Reply::Started { job, pid } = host.call(Request::Run(run)) else {
        panic!("not started");
    };
    let ask = |host: &mut Host<UnixStream>, stdout_from| {
        let request = Request::Job {
            job,
            stdout_from,
            stderr_from: 0,
        };
        let number = host.send(request);
        let (mut out, mut err) = (Vec::new(), Vec::new());
        loop {
            match host.answer(number) {
                Reply::Output {
                    stream: Stream::Stdout,
                    bytes,
                } => out.extend(bytes),
                Reply::Output {
                    stream: Stream::Stderr,
                    bytes,
                } => err.extend(bytes),
                Reply::Job(state) => return (out, err, state),
                other => panic!("{other:?}"),
            }
        }
    };
    eventually("the output", || {
        ask(&mut host, 0) == (b"begun\n".to_vec(), b"odd\n".to_vec(), JobState::Running)
    });
    assert_eq!(ask(&mut host, 3).0, b"un\n");
    assert_eq!(host.call(Request::Kill { job }), Reply::Done);
    eventually(
        "its end",
        || matches!(ask(&mut host, 0).2, JobState::Ended(o) if o.killed),
    );
    assert!(!runs(&pid.to_string()));
    assert_eq!(
        failure(&host.call(Request::Kill { job })),
        Some(FailureCode::NotFound)
    );
    let unknown = Request::Job {
        job: 999,
        stdout_from: 0,
        stderr_from: 0,
    };
    assert_eq!(failure(&host.call(unknown)), Some(FailureCode::NotFound));
}

#[test]
fn a_sample_is_uploaded_and_run_in_one_request() {
    let (mut host, folder) = agent("sample");
    let content = b"#!/bin/sh\necho \"$0 got $1\"\nexit 3\n";
    let upload = Upload {
        name: b"my sample".to_vec(),
        mode: 0o755,
        size: content.len() as u64,
    };
    let mut run = shell("");
    run.program.arguments = vec![b"{sample}".to_vec(), b"<{sample}>".to_vec()];
    let number = host.send(Request::UploadRun(upload, run));
    host.feed(number, [content.to_vec()].into_iter())
        .expect("fed");
    let Reply::Stored { path, size } = host.last_answer(number) else {
        panic!("not stored");
    };
    assert_eq!(size, content.len() as u64);
    let path = String::from_utf8(path).expect("a path");
    assert_eq!(path, folder.0.join("my sample").to_str().expect("a path"));
    assert!(matches!(host.answer(number), Reply::Started { .. }));
    let ran = host.collect(number);
    assert_eq!(ran.outcome.exit, Exit::Code(3));
    assert_eq!(
        String::from_utf8(ran.stdout).expect("text"),
        format!("{path} got <{path}>\n")
    );
}

#[test]
fn a_sample_and_a_command_run_as_a_user_who_may_not_enter_the_agents_other_folders() {
    if !rustix::process::geteuid().is_root() {
        // Only root runs programs as somebody else.
        return;
    }
    let (mut host, folder) = agent("as-user");
    let content = b"#!/bin/sh\nid -u; pwd\n";
    let upload = Upload {
        name: b"sample".to_vec(),
        mode: 0o755,
        size: content.len() as u64,
    };
    let mut run = shell("");
    run.program.arguments = vec![b"{sample}".to_vec()];
    run.program.user = "nobody".to_owned();
    let number = host.send(Request::UploadRun(upload, run));
    host.feed(number, [content.to_vec()].into_iter())
        .expect("fed");
    let stored = host.last_answer(number);
    assert!(matches!(stored, Reply::Stored { .. }), "{stored:?}");
    let started = host.answer(number);
    assert!(matches!(started, Reply::Started { .. }), "{started:?}");
    let ran = host.collect(number);
    assert_eq!(ran.outcome.exit, Exit::Code(0));
    assert!(ran.stdout.starts_with(b"65534\n/"), "{:?}", ran.stdout);
    // The uploads of others are not listed to the user.
    let mut list = shell(&format!("ls '{}'", folder.0.display()));
    list.program.user = "nobody".to_owned();
    assert_ne!(host.run(list).outcome.exit, Exit::Code(0));
    // Nor does a command need the folder at all.
    let closed = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(&folder.0, closed).expect("it is ours");
    let mut command = shell("id -u");
    command.program.user = "nobody".to_owned();
    assert_eq!(host.run(command).stdout, b"65534\n");
}

#[test]
fn processes_are_listed_with_their_parents_and_arguments() {
    let (mut host, _folder) = agent("list");
    let run = host.send(Request::Run(shell("exec sleep 599")));
    let Reply::Started { pid, .. } = host.answer(run) else {
        panic!("not started");
    };
    let list = |host: &mut Host<UnixStream>| {
        let number = host.send(Request::Processes);
        let mut all = Vec::new();
        loop {
            match host.answer(number) {
                Reply::Processes(some) => all.extend(some),
                Reply::End { total, truncated } => {
                    assert_eq!((total, truncated), (all.len() as u64, false));
                    return all;
                }
                other => panic!("{other:?}"),
            }
        }
    };
    eventually("the program in the list", || {
        let all = list(&mut host);
        let ours = all.iter().find(|process| process.pid == pid);
        ours.is_some_and(|process| {
            process.parent == std::process::id()
                && process.name == b"sleep"
                && process.command_line == b"sleep\x00599\0"
        })
    });
    host.send_as(run, Request::Cancel);
    host.collect(run);
}

//! The client against the real agent, and against guests that are none.

mod support;

use see_agent::protocol::{
    Exit, FailureCode, Finding, Info, JobState, MAX_TARGETS, Placement, ProbeTarget, Reply,
    Request, Upload,
};
use see_hooks_std::client::{Client, ClientError, Progress};
use std::io::Cursor;
use std::time::Duration;
use support::{PATIENCE, agent, collect, raw_guest, shell, until};

async fn client(test: &str) -> (Client, support::Folder) {
    let (stream, folder) = agent(test);
    let client = Client::connect(stream, b"", PATIENCE)
        .await
        .expect("a session");
    (client, folder)
}

fn upload(name: &str, size: u64) -> Upload {
    Upload {
        name: name.into(),
        mode: 0o700,
        size,
    }
}

#[tokio::test]
async fn the_agent_tells_about_its_guest() {
    let (client, folder) = client("info").await;
    let Info {
        system,
        folder: theirs,
        ..
    } = client.info().clone();
    assert_eq!(system, "linux");
    assert_eq!(theirs, folder.path().as_os_str().as_encoded_bytes());
    assert_eq!(
        client.ping(PATIENCE).await.expect("a pong").instance,
        client.info().instance
    );
}

#[tokio::test]
async fn a_program_is_run_with_its_outputs_apart() {
    let (client, _folder) = client("run").await;
    let execution = client
        .run(shell("echo out; echo err >&2; exit 3"), PATIENCE)
        .await;
    let (stdout, stderr, outcome) = collect(execution.expect("started")).await;
    assert_eq!((&stdout[..], &stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(outcome.exit, Exit::Code(3));
}

#[tokio::test]
async fn sixty_four_mebibytes_of_output_pass_in_order() {
    let (client, _folder) = client("much").await;
    let mut run = shell("seq 1 9000000 | head -c 67108864");
    run.stdout_limit = u64::MAX;
    let mut execution = client.run(run, PATIENCE).await.expect("started");
    let mut expected = (1..).flat_map(|n: u32| format!("{n}\n").into_bytes());
    let mut total = 0;
    loop {
        match execution.next().await.expect("progress") {
            Progress::Output { bytes, .. } => {
                assert!(bytes.iter().all(|byte| Some(*byte) == expected.next()));
                total += bytes.len();
            }
            Progress::Exited(outcome) => {
                assert_eq!(outcome.stdout_bytes, 64 << 20);
                break;
            }
        }
    }
    assert_eq!(total, 64 << 20);
}

#[tokio::test]
async fn a_large_file_passes_both_ways_while_pings_are_answered() {
    let (client, _folder) = client("large").await;
    let content: Vec<u8> = (0..20_000_000u32)
        .map(|n| (n >> 8) as u8 ^ n as u8)
        .collect();
    let size = content.len() as u64;
    let both = async {
        let path = client
            .upload(upload("large", size), Cursor::new(&content), PATIENCE)
            .await;
        let mut back = Vec::new();
        let path = path.expect("stored");
        let done = client
            .download(path, u64::MAX, &mut back, PATIENCE)
            .await
            .expect("fetched");
        assert_eq!((done.size, done.truncated), (size, false));
        back
    };
    let pings = async {
        for _ in 0..20 {
            client.ping(PATIENCE).await.expect("a pong");
        }
    };
    let (back, ()) = tokio::join!(both, pings);
    assert!(back == content);
}

#[tokio::test]
async fn a_sample_is_stored_and_run_in_one_call() {
    let (client, folder) = client("sample").await;
    let script = b"#!/bin/sh\necho $0\n";
    let mut run = shell("");
    run.program.arguments = vec![b"{sample}".to_vec()];
    let sample = upload("s", script.len() as u64);
    let execution = client
        .upload_and_run(sample, &script[..], run, PATIENCE)
        .await;
    let execution = execution.expect("started");
    let path = folder.path().join("s");
    assert_eq!(execution.path(), Some(path.as_os_str().as_encoded_bytes()));
    let (stdout, _, _) = collect(execution).await;
    assert_eq!(
        stdout,
        [path.as_os_str().as_encoded_bytes(), b"\n"].concat()
    );
}

#[tokio::test]
async fn a_file_shorter_than_announced_is_not_stored() {
    let (client, folder) = client("short").await;
    let refused = client.upload(upload("x", 10), &b"four"[..], PATIENCE).await;
    assert!(
        matches!(refused, Err(ClientError::Local { .. })),
        "{refused:?}"
    );
    // The agent was told, and removes what it had.
    until("the folder to be empty", || folder.names().is_empty()).await;
}

#[tokio::test]
async fn a_refusal_in_the_middle_of_an_upload_ends_it() {
    let (client, _folder) = client("refused").await;
    let refused = client
        .upload(upload("../x", 1 << 30), tokio::io::repeat(7), PATIENCE)
        .await;
    assert!(
        matches!(
            refused,
            Err(ClientError::Refused {
                code: FailureCode::BadRequest,
                ..
            })
        ),
        "{refused:?}"
    );
    client.ping(PATIENCE).await.expect("the session goes on");
}

#[tokio::test]
async fn a_dropped_execution_kills_its_program() {
    let (client, _folder) = client("dropped").await;
    let execution = client
        .run(shell("exec sleep 600"), PATIENCE)
        .await
        .expect("started");
    let stat = format!("/proc/{}/stat", execution.pid());
    assert!(std::fs::metadata(&stat).is_ok());
    drop(execution);
    until("its end", || std::fs::metadata(&stat).is_err()).await;
}

#[tokio::test]
async fn a_background_program_is_asked_after() {
    let (client, _folder) = client("job").await;
    let mut run = shell("echo begun; exec sleep 600");
    run.placement = Placement::Background;
    let (job, _) = client.start(run, PATIENCE).await.expect("started");
    let mut report = client
        .job(job, (0, 0), 100, PATIENCE)
        .await
        .expect("a report");
    while report.stdout.is_empty() {
        report = client
            .job(job, (0, 0), 100, PATIENCE)
            .await
            .expect("a report");
    }
    assert_eq!(
        (&report.stdout[..], report.state),
        (&b"begun\n"[..], JobState::Running)
    );
    client.kill(job, PATIENCE).await.expect("killed");
    while report.state == JobState::Running {
        report = client
            .job(job, (6, 0), 100, PATIENCE)
            .await
            .expect("a report");
    }
    assert!(matches!(report.state, JobState::Ended(outcome) if outcome.killed));
    assert!(report.stdout.is_empty());
}

#[tokio::test]
async fn the_guests_processes_are_listed() {
    let (client, _folder) = client("list").await;
    let (processes, truncated) = client.processes(PATIENCE).await.expect("a list");
    assert!(!truncated);
    assert!(
        processes
            .iter()
            .any(|process| process.pid == std::process::id())
    );
}

#[tokio::test]
async fn a_second_client_ends_the_first_ones_session() {
    let (stream, _folder) = agent("second");
    let (first, second) = support::shared_line(stream);
    let first = Client::connect(first, b"", PATIENCE)
        .await
        .expect("a session");
    let second = Client::connect(second, b"", PATIENCE)
        .await
        .expect("a session");
    second.ping(PATIENCE).await.expect("a pong");
    let lost = first.ping(PATIENCE).await.expect_err("superseded");
    assert!(matches!(lost, ClientError::NoSession), "{lost:?}");
    assert!(lost.is_lost());
}

#[tokio::test]
async fn an_agent_that_never_answers_costs_the_deadline_only() {
    let (stream, _guest) = tokio::io::duplex(1 << 20);
    let silent = Client::connect(stream, b"", Duration::from_millis(300)).await;
    assert!(
        matches!(silent, Err(ClientError::Timeout { .. })),
        "{silent:?}"
    );
    // Nor does one that does not even read.
    let (stream, _guest) = tokio::io::duplex(16);
    let deaf = Client::connect(stream, b"", Duration::from_millis(300)).await;
    assert!(matches!(deaf, Err(ClientError::Timeout { .. })), "{deaf:?}");
}

#[tokio::test]
async fn an_agent_that_answers_late_is_not_missed() {
    let (stream, mut guest) = tokio::io::duplex(1 << 20);
    let late = async {
        let (session, number) = raw_guest::hello(&mut guest).await;
        // Later than several more hellos, and to the first of them.
        for _ in 0..3 {
            raw_guest::hello(&mut guest).await;
        }
        raw_guest::send(
            &mut guest,
            session,
            number,
            Reply::Welcome(raw_guest::info()),
        )
        .await;
    };
    let (client, ()) = tokio::join!(Client::connect(stream, b"", PATIENCE), late);
    client.expect("a session");
}

#[tokio::test]
async fn an_agent_that_dies_in_a_call_ends_it() {
    let (stream, mut guest) = tokio::io::duplex(1 << 20);
    let dies = async move {
        let session = raw_guest::welcome(&mut guest).await;
        let (number, request) = raw_guest::request(&mut guest, session).await;
        assert!(matches!(request, Request::Run(_)));
        let started = Reply::Started { job: 0, pid: 1 };
        raw_guest::send(&mut guest, session, number, started).await;
    };
    let call = async {
        let client = Client::connect(stream, b"", PATIENCE)
            .await
            .expect("a session");
        let mut execution = client.run(shell("x"), PATIENCE).await.expect("started");
        execution.next().await
    };
    let ((), lost) = tokio::join!(dies, call);
    assert!(matches!(lost, Err(ClientError::Lost(_))), "{lost:?}");
}

#[tokio::test]
async fn more_targets_than_fit_a_request_are_all_tried_in_their_order() {
    let (client, _folder) = client("probe").await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let open = ProbeTarget::Tcp(listener.local_addr().expect("an address"));
    let deaf = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let closed = ProbeTarget::Udp(deaf.local_addr().expect("an address"));
    let mut targets = vec![closed; MAX_TARGETS + 1];
    targets[3] = open.clone();
    targets.push(open);
    let patience = Duration::from_millis(100);
    let findings = client.probe(&targets, patience).await.expect("findings");
    let answered = |finding: &Finding| matches!(finding, Finding::Answered(_));
    let open: Vec<usize> = (0..findings.len())
        .filter(|at| answered(&findings[*at]))
        .collect();
    assert_eq!(findings.len(), targets.len());
    assert_eq!(open, [3, MAX_TARGETS + 1]);
}

#[tokio::test]
async fn a_guest_has_all_targets_of_a_proof_to_try_before_it_answers_for_any() {
    const REQUESTS: usize = 4;
    let targets: Vec<ProbeTarget> = (1..=MAX_TARGETS * REQUESTS)
        .map(|port| ProbeTarget::Udp(([192, 0, 2, 1], u16::try_from(port).expect("a port")).into()))
        .collect();
    let (ours, mut guest) = tokio::io::duplex(1 << 18);
    let telling = async {
        let session = raw_guest::welcome(&mut guest).await;
        let mut requests = raw_guest::requests(&mut guest, session, REQUESTS).await;
        // Whichever is answered first, the findings keep the order of their targets.
        requests.reverse();
        for (number, request) in requests {
            let Request::Probe(probe) = request else {
                panic!("{request:?}");
            };
            let finding = |target: ProbeTarget| Finding::Answered(format!("{target:?}"));
            let findings = probe.targets.into_iter().map(finding).collect();
            raw_guest::send(&mut guest, session, number, Reply::Probed(findings)).await;
        }
    };
    let asking = async {
        let client = Client::connect(ours, b"", PATIENCE).await?;
        client.probe(&targets, Duration::from_secs(1)).await
    };
    let both = async { tokio::join!(asking, telling) };
    let (findings, ()) = tokio::time::timeout(PATIENCE, both)
        .await
        .expect("the guest was given all targets at once");
    let told: Vec<Finding> = targets
        .iter()
        .map(|target| Finding::Answered(format!("{target:?}")))
        .collect();
    assert_eq!(findings.expect("findings"), told);
}

//! The client while as much is under way as may be.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use see_agent::protocol::{JobState, MAX_REQUESTS, Placement, Reply, Request, Stream, Upload};
use see_hooks_std::client::{Client, ClientError, Execution, Progress};
use std::time::Duration;
use support::{PATIENCE, agent, raw_guest, shell, until};

async fn client(test: &str) -> (Client, support::Folder) {
    let (stream, folder) = agent(test);
    let client = Client::connect(stream, b"", PATIENCE).await;
    (client.expect("a session"), folder)
}

fn upload(name: &str, size: u64) -> Upload {
    Upload {
        name: name.into(),
        mode: 0o700,
        size,
    }
}

fn output(length: usize) -> Reply {
    Reply::Output {
        stream: Stream::Stdout,
        bytes: vec![b'x'; length],
    }
}

/// As many programs as the agent serves at once, all of which say nothing.
async fn fill(client: &Client) -> Vec<Execution> {
    let mut all = Vec::new();
    for _ in 0..MAX_REQUESTS {
        let run = client.run(shell("exec sleep 600"), PATIENCE).await;
        all.push(run.expect("started"));
    }
    all
}

#[tokio::test]
async fn while_as_many_programs_run_as_may_pings_are_answered_and_programs_asked_after_and_ended() {
    let (client, _folder) = client("client-full").await;
    let mut background = shell("exec sleep 600");
    background.placement = Placement::Background;
    let (job, _) = client.start(background, PATIENCE).await.expect("started");
    let mut all = fill(&client).await;
    client.ping(PATIENCE).await.expect("a pong");
    let report = client.job(job, (0, 0), 100, PATIENCE).await;
    assert_eq!(report.expect("a report").state, JobState::Running);
    client.kill(job, PATIENCE).await.expect("killed");
    // One in the foreground is ended by letting go of it.
    let stat = format!("/proc/{}/stat", all[0].pid());
    drop(all.remove(0));
    until("its end", || std::fs::metadata(&stat).is_err()).await;
}

#[tokio::test]
async fn a_program_that_waits_for_its_turn_loses_none_of_its_time() {
    let (client, _folder) = client("client-turn").await;
    let mut all = fill(&client).await;
    let next = client.run(shell("true"), Duration::ZERO);
    tokio::pin!(next);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut next).await;
    assert!(early.is_err(), "its time was over before its turn");
    let mut run = shell("true");
    run.placement = Placement::Background;
    let behind = client.start(run.clone(), Duration::ZERO);
    let fed = client.upload_and_start(upload("x", 1), &b"x"[..], run, Duration::ZERO);
    tokio::pin!(behind, fed);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut behind).await;
    assert!(early.is_err(), "its time was over before its turn");
    let early = tokio::time::timeout(Duration::from_millis(50), &mut fed).await;
    assert!(early.is_err(), "its time was over before its turn");
    drop(all.remove(0));
    for late in [
        next.await.map(drop),
        behind.await.map(drop),
        fed.await.map(drop),
    ] {
        // Then it had no time at all, unless the agent was quicker than the clock ticks.
        let is_as_told = matches!(late, Ok(()) | Err(ClientError::Timeout { .. }));
        assert!(is_as_told, "{late:?}");
    }
}

#[tokio::test]
async fn a_wait_for_progress_that_is_dropped_costs_the_agent_no_room() {
    let (stream, mut guest) = tokio::io::duplex(1024);
    let greeting = async { raw_guest::welcome(&mut guest).await };
    let connecting = Client::connect(stream, b"", PATIENCE);
    let (client, session) = tokio::join!(connecting, greeting);
    let client = client.expect("a session");
    let starting = async {
        let (number, _) = raw_guest::request(&mut guest, session).await;
        let started = Reply::Started { job: 0, pid: 1 };
        raw_guest::send(&mut guest, session, number, started).await;
        number
    };
    let (execution, number) = tokio::join!(client.run(shell("x"), PATIENCE), starting);
    let mut execution = execution.expect("started");
    // The guest reads nothing any more, and much is to be sent to it.
    let uploads: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let content = tokio::io::repeat(7);
                client.upload(upload("x", 1 << 20), content, PATIENCE).await
            })
        })
        .collect();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let cost = output(50_000)
        .into_frame(session, number)
        .expect("fits")
        .cost();
    let telling = async {
        for _ in 0..3 {
            raw_guest::send(&mut guest, session, number, output(50_000)).await;
        }
    };
    let taking = async {
        let mut taken = 0;
        // The third one waits until room can be given back: the agent does not read.
        while taken < 2 {
            execution.next().await.expect("progress");
            taken += 1;
        }
        for _ in 0..10 {
            let waited = tokio::time::timeout(Duration::from_millis(5), execution.next()).await;
            assert!(waited.is_err(), "the guest reads nothing: {waited:?}");
        }
    };
    tokio::join!(telling, taking);
    let reading = async {
        let mut given = 0;
        while given < 2 * cost {
            let (of, request) = raw_guest::request(&mut guest, session).await;
            if let (true, Request::Credit(amount)) = (of == number, request) {
                given += amount as usize;
            }
        }
    };
    let both = async { tokio::join!(reading, execution.next()).1 };
    let last = tokio::time::timeout(PATIENCE, both).await;
    let last = last.expect("what was taken is given back");
    assert!(matches!(last, Ok(Progress::Output { .. })), "{last:?}");
    uploads.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_agent_that_goes_on_sending_is_heard_while_its_answer_to_a_ping_waits() {
    let (stream, mut guest) = tokio::io::duplex(1 << 18);
    let greeting = async { raw_guest::welcome(&mut guest).await };
    let connecting = Client::connect(stream, b"", PATIENCE);
    let (client, session) = tokio::join!(connecting, greeting);
    let client = client.expect("a session");
    let before = client.heard();
    let starting = async {
        let (number, _) = raw_guest::request(&mut guest, session).await;
        let started = Reply::Started { job: 0, pid: 1 };
        raw_guest::send(&mut guest, session, number, started).await;
        raw_guest::send(&mut guest, session, number, output(10)).await;
    };
    let (execution, ()) = tokio::join!(client.run(shell("x"), PATIENCE), starting);
    let ping = client.ping(Duration::from_millis(50)).await;
    assert!(matches!(ping, Err(ClientError::Timeout { .. })), "{ping:?}");
    until("the output", || client.heard() == before + 2).await;
    assert!(!client.is_lost());
    drop((execution, guest));
    let why = tokio::time::timeout(PATIENCE, client.lost()).await;
    assert!(matches!(why, Ok(ClientError::Lost(_))), "{why:?}");
}

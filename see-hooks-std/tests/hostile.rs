//! The client against guests that break the protocol.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use see_agent::protocol::{
    FailureCode, FileInfo, Finding, MAX_REQUESTS, MAX_SHORT_REQUESTS, ProbeTarget, Reply, Request,
    Stream, WINDOW,
};
use see_hooks_std::client::{Client, ClientError, Progress};
use std::time::Duration;
use support::{PATIENCE, raw_guest, shell};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A guest that answers a run with these replies; what the client makes of it.
async fn hostile(replies: impl FnOnce(u64, u32) -> Vec<u8>) -> Result<Progress, ClientError> {
    let (stream, mut guest) = tokio::io::duplex(1 << 20);
    let guest = async {
        let session = raw_guest::welcome(&mut guest).await;
        let (number, _) = raw_guest::request(&mut guest, session).await;
        let started = Reply::Started { job: 0, pid: 1 };
        raw_guest::send(&mut guest, session, number, started).await;
        // The client hangs up in the middle.
        let _ = guest.write_all(&replies(session, number)).await;
        let mut rest = Vec::new();
        let _ = guest.read_to_end(&mut rest).await;
    };
    let client = async {
        let client = Client::connect(stream, b"", PATIENCE)
            .await
            .expect("a session");
        let mut execution = client.run(shell("x"), PATIENCE).await.expect("started");
        // Nothing is taken until the connection is given up, or all of it came.
        for _ in 0..200 {
            if client
                .ping(Duration::from_millis(10))
                .await
                .is_err_and(|error| error.is_lost())
            {
                break;
            }
        }
        let mut last = execution.next().await;
        while let Ok(Progress::Output { .. }) = last {
            last = execution.next().await;
        }
        last
    };
    tokio::select! {
        last = async { tokio::join!(client, guest).0 } => last,
        () = tokio::time::sleep(PATIENCE) => panic!("the client still waits"),
    }
}

fn frames(session: u64, number: u32, replies: impl IntoIterator<Item = Reply>) -> Vec<u8> {
    let frame = |reply: Reply| {
        let frame = reply.into_frame(session, number).expect("fits");
        frame.encode().expect("fits")
    };
    replies.into_iter().flat_map(frame).collect()
}

fn output(length: usize) -> Reply {
    Reply::Output {
        stream: Stream::Stdout,
        bytes: vec![b'x'; length],
    }
}

#[tokio::test]
async fn a_guest_that_overruns_its_window_loses_the_connection() {
    let flood = |session, number| {
        let count = WINDOW / 50_000 + 2;
        frames(session, number, std::iter::repeat_n(output(50_000), count))
    };
    let lost = hostile(flood).await;
    assert!(matches!(lost, Err(ClientError::Violation(_))), "{lost:?}");
}

#[tokio::test]
async fn a_guest_that_sends_countless_empty_frames_loses_the_connection() {
    let flood = |session, number| {
        frames(
            session,
            number,
            std::iter::repeat_n(output(0), WINDOW / 32 + 2),
        )
    };
    let lost = hostile(flood).await;
    assert!(matches!(lost, Err(ClientError::Violation(_))), "{lost:?}");
}

#[tokio::test]
async fn a_guest_that_gives_back_what_it_never_got_loses_the_connection() {
    let lost = hostile(|session, number| frames(session, number, [Reply::Credit(1)])).await;
    assert!(matches!(lost, Err(ClientError::Violation(_))), "{lost:?}");
}

#[tokio::test]
async fn a_guest_that_sends_what_is_no_reply_loses_the_connection() {
    let lost = hostile(|session, number| {
        let kind = 0x86;
        let frame = see_agent::protocol::Frame {
            session,
            request: number,
            kind,
            body: vec![9],
        };
        frame.encode().expect("fits")
    })
    .await;
    assert!(matches!(lost, Err(ClientError::Violation(_))), "{lost:?}");
}

#[tokio::test]
async fn a_guest_whose_frames_are_damaged_loses_the_connection() {
    let damaged = |session, number| {
        let mut bytes = frames(session, number, [output(100)]);
        *bytes.last_mut().expect("a body") ^= 1;
        bytes.repeat(100)
    };
    let lost = hostile(damaged).await;
    assert!(matches!(lost, Err(ClientError::Violation(_))), "{lost:?}");
}

#[tokio::test]
async fn texts_of_a_guest_are_escaped_in_errors() {
    let refused = hostile(|session, number| {
        let failed = Reply::failed(FailureCode::Io, "\x1b[2Jgone\r\n");
        frames(session, number, [failed])
    })
    .await
    .expect_err("refused");
    let text = refused.to_string();
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert!(text.contains("\\u{1b}[2Jgone"), "{text:?}");
}

#[tokio::test]
async fn a_guest_that_tells_of_other_targets_than_it_was_given_breaks_the_protocol() {
    let (ours, mut guest) = tokio::io::duplex(1 << 18);
    let telling = async {
        let session = raw_guest::welcome(&mut guest).await;
        let (number, request) = raw_guest::request(&mut guest, session).await;
        assert!(matches!(request, Request::Probe(_)), "{request:?}");
        let findings = vec![Finding::Silent; 2];
        raw_guest::send(&mut guest, session, number, Reply::Probed(findings)).await;
    };
    let asking = async {
        let client = Client::connect(ours, b"", PATIENCE).await?;
        let target = ProbeTarget::Ping([127, 0, 0, 1].into());
        client.probe(&[target], Duration::from_secs(1)).await
    };
    let (answer, ()) = tokio::join!(asking, telling);
    assert!(
        matches!(answer, Err(ClientError::Violation(_))),
        "{answer:?}"
    );
}

#[tokio::test]
async fn an_answer_that_was_not_asked_for_ends_the_connection_for_every_caller() {
    let answers = [
        Reply::Done,
        Reply::Probed(vec![Finding::Silent]),
        Reply::File(FileInfo::default()),
    ];
    for answer in answers {
        let (ours, mut guest) = tokio::io::duplex(1 << 18);
        let telling = async {
            let session = raw_guest::welcome(&mut guest).await;
            let (number, _) = raw_guest::request(&mut guest, session).await;
            raw_guest::send(&mut guest, session, number, answer).await;
        };
        let connecting = Client::connect(ours, b"", PATIENCE);
        let asking = async {
            let client = connecting.await.expect("a session");
            (client.ping(PATIENCE).await, client)
        };
        let ((answer, client), ()) = tokio::join!(asking, telling);
        assert!(
            matches!(answer, Err(ClientError::Violation(_))),
            "{answer:?}"
        );
        let why = tokio::time::timeout(PATIENCE, client.lost()).await;
        assert!(matches!(why, Ok(ClientError::Violation(_))), "{why:?}");
        let next = client.ping(PATIENCE).await;
        assert!(matches!(next, Err(ClientError::Violation(_))), "{next:?}");
        let mut rest = Vec::new();
        let hung_up = tokio::time::timeout(PATIENCE, guest.read_to_end(&mut rest)).await;
        assert!(hung_up.is_ok(), "the host still listens");
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_a_guest_leaves_unanswered_do_not_keep_later_ones_from_it() {
    let (ours, mut guest) = tokio::io::duplex(1 << 20);
    let connecting = Client::connect(ours, b"", PATIENCE);
    let (client, session) = tokio::join!(connecting, raw_guest::welcome(&mut guest));
    let client = client.expect("a session");
    let time = Duration::from_secs(1);
    for _ in 0..MAX_REQUESTS {
        let unanswered = client.run(shell("x"), time).await;
        assert!(
            matches!(unanswered, Err(ClientError::Timeout { .. })),
            "{unanswered:?}"
        );
    }
    for _ in 0..MAX_SHORT_REQUESTS {
        client.ping(time).await.expect_err("no answer");
    }
    // Longer than an agent that means well takes to end a program.
    let patience = Duration::from_secs(120);
    let next = tokio::time::timeout(patience, client.run(shell("y"), time)).await;
    assert!(
        matches!(next, Ok(Err(ClientError::Timeout { .. }))),
        "{next:?}"
    );
    let number = MAX_REQUESTS + MAX_SHORT_REQUESTS;
    let asked = async {
        let mut programs = 0;
        while programs <= MAX_REQUESTS {
            let some = raw_guest::requests(&mut guest, session, 1).await;
            let is_run = |(_, request): &&(u32, Request)| matches!(request, Request::Run(_));
            programs += some.iter().filter(is_run).count();
        }
    };
    let asked = tokio::time::timeout(PATIENCE, asked).await;
    asked.unwrap_or_else(|_| panic!("the request after {number} unanswered ones never came"));
    let ping = tokio::time::timeout(patience, client.ping(patience));
    let answering = async {
        loop {
            let (number, request) = raw_guest::request(&mut guest, session).await;
            if request == Request::Ping {
                let pong = Reply::Pong(raw_guest::info());
                return raw_guest::send(&mut guest, session, number, pong).await;
            }
        }
    };
    let (ping, ()) = tokio::join!(ping, answering);
    ping.expect("its turn").expect("a pong");
}

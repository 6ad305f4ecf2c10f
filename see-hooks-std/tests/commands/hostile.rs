//! Guests that answer what they like.

use super::*;
use see_agent::protocol::{Decoder, Exit, JobState, Outcome, Reply, Request, Stream};
use support::raw_guest;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

/// A guest that starts whatever it is asked to start and gives these answers when it is asked after it; it hangs up
/// where it is handed a token.
async fn serve(mut line: DuplexStream, answers: fn() -> Vec<Reply>) {
    let mut decoder = Decoder::default();
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length @ 1..) = line.read(&mut buffer).await {
        decoder.push(&buffer[..length]);
        while let Some(frame) = decoder.next_frame() {
            let (session, number) = (frame.session, frame.request);
            let replies = match Request::from_frame(frame).expect("a request") {
                Request::Hello { .. } => vec![Reply::Welcome(raw_guest::info())],
                Request::Ping => vec![Reply::Pong(raw_guest::info())],
                // The end of an upload.
                Request::End => {
                    let path = b"/sample".to_vec();
                    let stored = Reply::Stored { path, size: 0 };
                    vec![stored, Reply::Started { job: 1, pid: 1 }]
                }
                Request::Job { .. } => answers(),
                Request::Authorize { .. } => return,
                _ => Vec::new(),
            };
            for reply in replies {
                let frame = reply.into_frame(session, number).expect("fits");
                // The host hangs up when it has enough.
                let _ = line.write_all(&frame.encode().expect("fits")).await;
            }
        }
    }
}

/// An environment with such a guest, in which a sample was started in the background.
async fn started(answers: fn() -> Vec<Reply>) -> World {
    let mut world = World::new(COMMANDS).await;
    world.control.answer(move || {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        tokio::spawn(serve(theirs, answers));
        Box::new(ours)
    });
    world.poweron().await;
    world.event("ip_address").await;
    let run = sample(&world, "exit 0").with("async_flag", true);
    world.trigger(run.with("deadline", 600)).await;
    world
}

#[tokio::test]
async fn a_guest_that_breaks_the_protocol_is_lost_to_its_sample_in_the_background_at_once() {
    let world = started(|| vec![Reply::Done]).await;
    let finished = world.event("sample_finished").await;
    assert!(flag(&finished, "agent_lost"), "{finished:?}");
    let error = text(&finished, "error");
    assert!(error.contains("broke its protocol"), "{error}");
    world.end().await;
}

#[tokio::test]
async fn of_a_guest_that_never_ceases_to_send_output_the_documented_256_kib_are_taken() {
    let flood = || {
        let outcome = Outcome {
            exit: Exit::Code(0),
            ..Outcome::default()
        };
        let output = Reply::Output {
            stream: Stream::Stderr,
            bytes: vec![b'x'; 60_000],
        };
        let mut replies = vec![output; 4];
        replies.push(Reply::Job(JobState::Ended(outcome)));
        replies
    };
    let world = started(flood).await;
    let finished = world.event("sample_finished").await;
    let output = std::fs::read(text(&finished, "stderr")).expect("the file");
    assert_eq!(output.len(), 256 << 10);
    assert!(flag(&finished, "truncated"), "{finished:?}");
    world.end().await;
}

#[tokio::test]
async fn an_agent_that_leaves_before_it_takes_its_token_is_looked_for_again() {
    let guest = Guest::new(None);
    let settings = tcp(guest.listens(), None);
    let mut world = World::with(COMMANDS, settings, false)
        .await
        .expect("an environment");
    let left = AtomicBool::new(false);
    world.control.answer(move || {
        if left.swap(true, std::sync::atomic::Ordering::Relaxed) {
            return Box::new(guest.dial());
        }
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        tokio::spawn(serve(theirs, Vec::new));
        Box::new(ours)
    });
    world.poweron().await;
    let address = Event::new("ip_address").with("address", "127.0.0.1");
    world.trigger(address).await;
    world.event("ready").await;
    world.end().await;
}

//! Which answers are asked for again, how often, and when.

use std::time::{Duration, Instant};

use reqwest::{Method, StatusCode};
use see_core::ErrorKind;
use see_image_providers::client::{Client, TlsConfiguration};
use see_image_providers::testing::{Fault, FaultServer, Resource, noise};

use crate::support::{Shelf, Web};

fn answers(status: u16) -> Fault {
    Fault::Status(status, Vec::new(), "as told".into())
}

fn busy_for(status: u16, seconds: u64) -> Fault {
    let after = vec![("Retry-After".to_owned(), seconds.to_string())];
    Fault::Status(status, after, "busy".into())
}

/// What a question gets in the end, after how many requests, and how long that took.
async fn question(resource: Resource) -> (StatusCode, usize, Duration) {
    let server = FaultServer::start().await;
    server.put("/answer", resource);
    let client = Client::new(&TlsConfiguration::default()).unwrap();
    let url = server.url("/answer").parse().unwrap();
    let request = client.request(Method::GET, url).build().unwrap();
    let begun = Instant::now();
    let (response, _) = client.read(request, 1000).await.unwrap();
    (response.status(), server.seen().len(), begun.elapsed())
}

/// The same for a download, whose questions are no `GET`.
async fn download(resource: Resource) -> (Result<(), ErrorKind>, usize, Duration) {
    let server = FaultServer::start().await;
    server.put("/image", resource);
    let shelf = Shelf::new();
    let begun = Instant::now();
    let got = shelf.get(&Web::new(server.url("/image"))).await;
    let gets = server.seen().into_iter();
    let gets = gets.filter(|seen| seen.method == "GET").count();
    let got = got.map(drop).map_err(|error| error.kind());
    (got, gets, begun.elapsed())
}

fn small() -> Resource {
    Resource::new(noise(100))
}

#[tokio::test]
async fn a_question_that_fails_twice_is_answered_by_its_third_request() {
    for status in [408, 425, 429, 500, 502, 503, 504] {
        let resource = small().fault(answers(status)).fault(answers(status));
        let (answer, requests, _) = question(resource).await;
        assert_eq!((answer.as_u16(), requests), (200, 3), "{status}");
    }
}

#[tokio::test]
async fn a_question_is_sent_four_times_and_then_the_answer_stands() {
    let (answer, requests, _) = question(small().always(answers(500))).await;
    assert_eq!((answer.as_u16(), requests), (500, 4));
}

#[tokio::test]
async fn an_answer_that_will_not_change_is_asked_for_once() {
    for status in [400, 401, 403, 404, 410, 501] {
        let (answer, requests, _) = question(small().always(answers(status))).await;
        assert_eq!((answer.as_u16(), requests), (status, 1), "{status}");
    }
    for (status, kind) in [
        (403, ErrorKind::PermissionDenied),
        (501, ErrorKind::Unavailable),
    ] {
        let (got, requests, _) = download(small().always(answers(status))).await;
        assert_eq!((got, requests), (Err(kind), 1), "{status}");
    }
}

#[tokio::test]
async fn the_pause_that_the_server_names_is_waited_for() {
    let pause = Duration::from_secs(1);
    for status in [429, 503] {
        let (answer, requests, time) = question(small().fault(busy_for(status, 1))).await;
        assert_eq!((answer.as_u16(), requests), (200, 2), "{status}");
        assert!(time >= pause, "{status}: {time:?}");
        let (got, requests, time) = download(small().fault(busy_for(status, 1))).await;
        assert_eq!((got, requests), (Ok(()), 2), "{status}");
        assert!(time >= pause, "{status}: {time:?}");
    }
}

#[tokio::test]
async fn a_question_is_not_repeated_before_the_server_wants_it_nor_waits_long() {
    let (answer, requests, _) = question(small().always(busy_for(503, 60))).await;
    assert_eq!((answer.as_u16(), requests), (503, 1));
}

#[tokio::test]
async fn a_download_that_fails_twice_goes_on_with_the_third_request() {
    let resource = small().fault(answers(500)).fault(answers(500));
    let (got, requests, _) = download(resource).await;
    assert_eq!((got, requests), (Ok(()), 3));
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let (answer, requests, _) = question(small().fault(Fault::CutAfter(10))).await;
    assert_eq!((answer.as_u16(), requests), (200, 2));
}

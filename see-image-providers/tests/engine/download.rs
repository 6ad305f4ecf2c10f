//! One download, and what may go wrong with it.

use std::time::Duration;

use see_core::ErrorKind;
use see_image_providers::cache::Algorithm;
use see_image_providers::testing::{Fault, FaultServer, Resource, noise};

use crate::support::{Shelf, Web, digest};

const LENGTH: usize = 3 << 20;

/// Gets `/image` with these faults, and checks that it is the right one in the end.
async fn survives(resource: impl FnOnce(Resource) -> Resource) -> (FaultServer, Shelf) {
    survives_on(Shelf::new(), resource).await
}

async fn survives_on(
    shelf: Shelf,
    resource: impl FnOnce(Resource) -> Resource,
) -> (FaultServer, Shelf) {
    let server = FaultServer::start().await;
    let body = noise(LENGTH);
    let plain = Resource::new(body.clone()).entity_tag("one");
    server.put("/image", resource(plain));
    let origin = Web::new(server.url("/image")).promising(digest(Algorithm::Sha256, &body));
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == body, "other bytes");
    assert_eq!(shelf.partials(), Vec::<String>::new());
    (server, shelf)
}

#[tokio::test]
async fn an_image_is_downloaded_once_and_then_given_out() {
    let (server, shelf) = survives(|resource| resource).await;
    let origin = Web::new(server.url("/image"));
    let image = shelf.get(&origin).await.unwrap();
    assert!(image.path.starts_with(shelf.store_folder()));
    assert_eq!(server.sent(), LENGTH as u64);
    let images = shelf.store().list().unwrap();
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].format, "raw");
    assert_eq!(images[0].origins, [server.url("/image")]);
}

#[tokio::test]
async fn a_broken_download_is_resumed_where_it_broke() {
    let (server, _shelf) = survives(|resource| {
        resource
            .fault(Fault::CutAfter(1_000_000))
            .fault(Fault::CutAfter(0))
            .fault(Fault::CutAfter(123_456))
    })
    .await;
    assert_eq!(server.sent(), LENGTH as u64, "nothing came twice");
    let seen = server.seen();
    let ranges: Vec<_> = seen
        .iter()
        .filter_map(|seen| seen.header("range"))
        .collect();
    assert_eq!(
        ranges,
        ["bytes=1000000-", "bytes=1000000-", "bytes=1123456-"]
    );
    assert!(
        seen.iter()
            .any(|seen| seen.header("if-range") == Some("\"one\""))
    );
}

#[tokio::test]
async fn a_server_without_ranges_sends_all_of_it_again() {
    let (server, _shelf) =
        survives(|resource| resource.without_ranges().fault(Fault::CutAfter(1_000_000))).await;
    assert_eq!(server.sent(), LENGTH as u64 + 1_000_000);
}

#[tokio::test]
async fn a_range_that_is_another_one_is_not_taken() {
    survives(|resource| {
        resource
            .fault(Fault::CutAfter(1_000_000))
            .fault(Fault::ShiftedRange(5))
    })
    .await;
}

#[tokio::test]
async fn a_server_that_stops_sending_is_asked_again() {
    let mut shelf = Shelf::new();
    shelf.configuration.stall = Some(Duration::from_millis(300).into());
    let stalls = |resource: Resource| resource.fault(Fault::Stall(500_000));
    let (server, _shelf) = survives_on(shelf, stalls).await;
    let ranges = server
        .seen()
        .iter()
        .filter(|seen| seen.header("range").is_some())
        .count();
    assert!(ranges > 0, "it was asked for the rest");
}

#[tokio::test]
async fn a_busy_server_is_asked_again_when_it_says() {
    let busy = |after: String| {
        let headers = vec![("Retry-After".to_owned(), after)];
        Fault::Status(503, headers, "busy".into())
    };
    let begin = std::time::Instant::now();
    let past = "Wed, 21 Oct 2015 07:28:00 GMT".to_owned();
    survives(|resource| resource.fault(busy("1".to_owned())).fault(busy(past))).await;
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn an_image_of_unknown_length_is_got_too() {
    let server = FaultServer::start().await;
    let body = noise(LENGTH);
    let resource = Resource::new(body.clone()).always(Fault::NoLength);
    server.put("/image", resource);
    let mut origin = Web::new(server.url("/image"));
    origin.forgets_size = true;
    let shelf = Shelf::new();
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == body);
    assert_eq!(server.sent(), LENGTH as u64);
}

#[tokio::test]
async fn an_image_that_is_replaced_while_it_downloads_is_got_anew() {
    for length in [LENGTH, LENGTH / 2] {
        let server = FaultServer::start().await;
        let newer = noise(length + 7).slice(7..);
        let next = Resource::new(newer.clone()).entity_tag("two");
        let resource = Resource::new(noise(LENGTH))
            .entity_tag("one")
            .fault(Fault::Replace(1_000_000, Box::new(next)));
        server.put("/image", resource);
        let shelf = Shelf::new();
        let origin = Web::new(server.url("/image"));
        let image = shelf.get(&origin).await.unwrap();
        assert!(std::fs::read(&image.path).unwrap() == newer);
        assert_eq!(shelf.partials(), Vec::<String>::new());
        // It is known as what it is.
        let sent = server.sent();
        shelf.get(&origin).await.unwrap();
        assert_eq!(server.sent(), sent);
    }
}

#[tokio::test]
async fn a_remembered_length_past_the_end_is_looked_at_again() {
    // The first part is of a version that had more bytes, without any mark of its version.
    let server = FaultServer::start().await;
    let shorter = noise(500_000);
    let next = Resource::new(shorter.clone());
    let resource = Resource::new(noise(LENGTH)).fault(Fault::Replace(1_000_000, Box::new(next)));
    server.put("/image", resource);
    let shelf = Shelf::new();
    let image = shelf.get(&Web::new(server.url("/image"))).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == shorter);
    let statuses = server.seen();
    assert!(statuses.iter().any(|seen| seen.header("range").is_some()));
}

#[tokio::test]
async fn a_flipped_byte_is_found_and_the_download_discarded() {
    let server = FaultServer::start().await;
    let body = noise(LENGTH);
    let resource = Resource::new(body.clone()).always(Fault::Flip(1_500_000));
    server.put("/image", resource);
    for algorithm in [Algorithm::Md5, Algorithm::Sha256, Algorithm::Sha512] {
        let expected = digest(algorithm, &body);
        let origin = Web::new(server.url("/image")).promising(expected.clone());
        let shelf = Shelf::new();
        let error = shelf.get(&origin).await.unwrap_err();
        let mut flipped = body.to_vec();
        flipped[1_500_000] ^= 1;
        let found = digest(algorithm, &flipped);
        assert_eq!(error.kind(), ErrorKind::Guest);
        let text = error.to_string();
        assert!(
            text.contains(&format!("expected {expected}, found {found}")),
            "{text}"
        );
        assert_eq!(shelf.partials(), Vec::<String>::new());
        assert!(shelf.store().list().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_length_that_lies_is_an_error_that_names_both() {
    for (announced, part) in [
        (LENGTH as u64 + 10, "announces 3145738"),
        (1_000, "announces 1000"),
    ] {
        let server = FaultServer::start().await;
        let resource = Resource::new(noise(LENGTH)).always(Fault::ContentLength(announced));
        server.put("/image", resource);
        let shelf = Shelf::new();
        let error = shelf
            .get(&Web::new(server.url("/image")))
            .await
            .unwrap_err();
        let text = error.to_string();
        assert!(text.contains("should have 3145728 bytes"), "{text}");
        assert!(text.contains(part), "{text}");
        assert!(shelf.store().list().unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_server_that_sends_more_than_it_announced_is_not_believed() {
    let server = FaultServer::start().await;
    let resource = Resource::new(noise(LENGTH)).announcing(1_000_001);
    server.put("/image", resource.always(Fault::NoLength));
    let shelf = Shelf::new();
    let got = shelf.get(&Web::new(server.url("/image"))).await;
    let text = got.unwrap_err().to_string();
    assert!(text.contains("should have 1000001 bytes"), "{text}");
    assert!(text.contains("the server sends more"), "{text}");
    assert!(shelf.store().list().unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_keeps_failing_is_given_up_with_what_it_says() {
    let server = FaultServer::start().await;
    let page = Fault::Status(500, Vec::new(), "<b>out of\x1b order</b>".into());
    server.put("/image", Resource::new(noise(LENGTH)).always(page));
    let mut shelf = Shelf::new();
    shelf.configuration.patience = Some(Duration::from_millis(600).into());
    let error = shelf
        .get(&Web::new(server.url("/image")))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(text.contains("500"), "{text}");
    assert!(text.contains("out of\\u{1b} order"), "{text}");
    assert!(text.contains("without progress for 600ms"), "{text}");
}

#[tokio::test]
async fn a_wait_that_is_longer_than_the_patience_is_not_waited() {
    let server = FaultServer::start().await;
    let headers = vec![("Retry-After".to_owned(), "3600".to_owned())];
    let busy = Fault::Status(503, headers, "".into());
    server.put("/image", Resource::new(noise(LENGTH)).always(busy));
    let begin = std::time::Instant::now();
    let error = Shelf::new()
        .get(&Web::new(server.url("/image")))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("come back in 3600s"), "{error}");
    assert!(begin.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn a_stop_ends_a_download_which_the_next_run_continues() {
    let server = FaultServer::start().await;
    let body = noise(LENGTH);
    let resource = Resource::new(body.clone())
        .entity_tag("one")
        .fault(Fault::Stall(1_000_000));
    server.put("/image", resource);
    let mut shelf = Shelf::new();
    let origin = Web::new(server.url("/image"));
    let getting = shelf.get(&origin);
    let stopping = async {
        shelf.until_partial_has(1_000_000).await;
        shelf.stop.stop();
    };
    let (ended, ()) = tokio::join!(getting, stopping);
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Stopped);
    assert!(!shelf.partials().is_empty());
    shelf.stop = see_core::Stop::new();
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == body);
    assert!(
        server.sent() < LENGTH as u64 + 1_000_000,
        "some of it was kept"
    );
}

#[tokio::test]
async fn a_page_with_status_200_is_refused_before_all_of_it_came() {
    let server = FaultServer::start().await;
    let mut page = b"<html><title>Log in</title>".to_vec();
    page.resize(1 << 20, b' ');
    let endless = Resource::new(page).repeated_to(1 << 30);
    server.put("/image", endless);
    let shelf = Shelf::new();
    let error = shelf
        .get(&Web::new(server.url("/image")))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("<html><title>Log in</title>"),
        "{error}"
    );
    assert!(server.sent() < 1 << 29, "{}", server.sent());
    assert_eq!(shelf.partials(), Vec::<String>::new());
}

#[tokio::test]
async fn nothing_at_all_is_told_as_that() {
    let server = FaultServer::start().await;
    let none = Fault::Status(204, Vec::new(), "".into());
    server.put("/image", Resource::new(noise(LENGTH)).always(none));
    let error = Shelf::new()
        .get(&Web::new(server.url("/image")))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("may not be uploaded yet"),
        "{error}"
    );
    server.put("/empty", Resource::new(""));
    let error = Shelf::new()
        .get(&Web::new(server.url("/empty")))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("is empty"), "{error}");
}

#[tokio::test]
async fn several_connections_bring_an_image_where_that_is_said() {
    let server = FaultServer::start().await;
    let body = noise(5 << 20);
    let slow = Fault::Trickle(16 << 10, Duration::from_millis(20));
    let resource = Resource::new(body.clone()).entity_tag("one").always(slow);
    server.put("/image", resource);
    let sum = digest(Algorithm::Sha256, &body);
    let mut shelf = Shelf::new();
    shelf.configuration.streams = Some(4);
    let origin = Web::new(server.url("/image")).promising(sum);
    shelf.get(&origin).await.unwrap();
    assert_eq!(server.most_at_once(), 4);
    assert_eq!(server.sent(), body.len() as u64, "nothing came twice");
}

#[tokio::test]
async fn an_image_without_a_mark_or_a_digest_comes_in_one_answer() {
    let server = FaultServer::start().await;
    let body = noise(5 << 20);
    server.put("/image", Resource::new(body.clone()));
    let origin = Web::new(server.url("/image"));
    let mut shelf = Shelf::new();
    shelf.configuration.streams = Some(4);
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == body);
    let seen = server.seen();
    let gets = seen.iter().filter(|seen| seen.method == "GET").count();
    assert_eq!(gets, 1, "{seen:#?}");
}

#[tokio::test]
async fn one_connection_stays_alone_unless_more_are_asked_for() {
    let server = FaultServer::start().await;
    let slow = Fault::Trickle(64 << 10, Duration::from_millis(20));
    let resource = Resource::new(noise(4 << 20)).entity_tag("one").always(slow);
    server.put("/image", resource);
    let shelf = Shelf::new();
    shelf.get(&Web::new(server.url("/image"))).await.unwrap();
    assert_eq!(server.most_at_once(), 1);
}

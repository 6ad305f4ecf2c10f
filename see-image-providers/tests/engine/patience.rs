//! What is tried again, for how long, and what ends it.

use std::time::Duration;

use async_trait::async_trait;
use see_core::{Error, ErrorKind, Result};
use see_image_providers::cache::Unpack;
use see_image_providers::testing::{Fault, FaultServer, Resource, noise};

use crate::support::{Behind, Login, Shelf, Web};

const LENGTH: usize = 2 << 20;

fn hasty() -> Shelf {
    let mut shelf = Shelf::new();
    shelf.configuration.patience = Some(Duration::from_secs(1).into());
    shelf
}

#[tokio::test]
async fn a_part_that_nobody_asked_for_is_an_error_and_no_endless_loop() {
    let server = FaultServer::start().await;
    let part = Fault::Status(206, Vec::new(), noise(1000));
    server.put("/image", Resource::new(noise(1000)).always(part));
    let error = hasty()
        .get(&Web::new(server.url("/image")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("a part of the image"), "{error}");
    let count = server.seen().len();
    assert!(count < 10, "{count} requests");
}

#[tokio::test]
async fn a_server_that_asks_for_time_without_end_is_not_waited_for() {
    let server = FaultServer::start().await;
    let wait = vec![("Retry-After".to_owned(), u64::MAX.to_string())];
    let busy = Fault::Status(503, wait, "busy".into());
    server.put("/image", Resource::new(noise(1000)).always(busy));
    let error = Shelf::new()
        .get(&Web::new(server.url("/image")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("come back in"), "{error}");
}

#[tokio::test]
async fn one_byte_is_not_waited_for_longer_than_there_is_patience() {
    let server = FaultServer::start().await;
    let resource = Resource::new(noise(LENGTH)).fault(Fault::Stall(1000));
    server.put("/image", resource.always(Fault::Stall(0)));
    let mut shelf = hasty();
    shelf.configuration.stall = Some(Duration::from_secs(600).into());
    let origin = Web::new(server.url("/image"));
    let got = tokio::time::timeout(Duration::from_secs(60), shelf.get(&origin)).await;
    let error = got.expect("the patience ends").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("1000 of"), "{error}");
}

#[tokio::test]
async fn what_failed_before_a_download_begins_anew_is_told() {
    let server = FaultServer::start().await;
    let resource = Resource::new(noise(LENGTH))
        .entity_tag("one")
        .without_ranges()
        .fault(Fault::CutAfter(1000));
    server.put("/image", resource);
    let mut shelf = Shelf::new();
    shelf.delivery.unpack = Unpack::Always;
    let error = shelf
        .get(&Web::new(server.url("/image")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Guest, "{error}");
    assert!(error.to_string().contains("none of gzip"), "{error}");
}

/// A login that is renewed at the second try.
struct LateRenewed;

#[async_trait]
impl Login for LateRenewed {
    async fn renew(&self, number: usize) -> Result<bool> {
        match number {
            0 => Err(Error::new(ErrorKind::Unavailable, "nobody is there")),
            _ => Ok(true),
        }
    }
}

/// A login whose renewal never ends.
struct Hanging;

#[async_trait]
impl Login for Hanging {
    async fn renew(&self, _number: usize) -> Result<bool> {
        std::future::pending().await
    }
}

/// An image whose server finds this login at its end, twice.
async fn ran_out<L: Login>(login: L) -> (FaultServer, Behind<L>) {
    let server = FaultServer::start().await;
    let refused = Fault::Status(401, Vec::new(), "expired".into());
    let resource = Resource::new(noise(LENGTH)).entity_tag("one");
    server.put("/image", resource.fault(refused.clone()).fault(refused));
    let origin = Behind::new(login, Web::new(server.url("/image")));
    (server, origin)
}

#[tokio::test]
async fn a_login_that_cannot_be_renewed_just_now_is_tried_again() {
    let (_server, origin) = ran_out(LateRenewed).await;
    let shelf = Shelf::new();
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
    assert_eq!(origin.renewals(), 2);
}

#[tokio::test]
async fn a_stop_ends_the_renewal_of_a_login() {
    let (_server, origin) = ran_out(Hanging).await;
    let shelf = Shelf::new();
    let stopping = async {
        while origin.renewals() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        shelf.stop.stop();
    };
    let both = async { tokio::join!(shelf.get(&origin), stopping) };
    let ended = tokio::time::timeout(Duration::from_secs(60), both).await;
    let (ended, ()) = ended.expect("the stop is looked at");
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Stopped);
}

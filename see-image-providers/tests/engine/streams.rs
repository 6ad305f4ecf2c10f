//! Several ranges of one image at once, while something happens to it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::Request;
use see_core::Result;
use see_image_providers::cache::{ByteRange, Object, Origin};
use see_image_providers::testing::{Fault, FaultServer, Resource, noise};
use tokio::sync::Notify;

use crate::support::{Behind, Login, Shelf, Web};

const LENGTH: usize = 8 << 20;
/// The number of the request at which it happens: among the first, and later.
const INSTANTS: [usize; 2] = [2, 12];

fn several() -> Shelf {
    let mut shelf = Shelf::new();
    shelf.configuration.streams = Some(4);
    shelf
}

/// A slow server, at whose request of this number something else happens.
fn slow_until(number: usize, fault: Fault) -> Resource {
    let slow = Fault::Trickle(16 << 10, Duration::from_millis(20));
    let mut resource = Resource::new(noise(LENGTH)).entity_tag("one");
    for _ in 0..number {
        resource = resource.fault(slow.clone());
    }
    resource.fault(fault).always(slow)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_connections_that_breaks_ends_nothing() {
    for instant in INSTANTS {
        let server = FaultServer::start().await;
        server.put("/image", slow_until(instant, Fault::CutAfter(1000)));
        let shelf = several();
        let image = shelf.get(&Web::new(server.url("/image"))).await.unwrap();
        assert!(server.most_at_once() > 1, "several were tried");
        assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_is_replaced_under_several_connections_is_got_anew_and_never_mixed() {
    for instant in INSTANTS {
        let server = FaultServer::start().await;
        let newer = noise(LENGTH / 4 + 7).slice(7..);
        let next = Resource::new(newer.clone()).entity_tag("two");
        let replacing = Fault::Replace(1000, Box::new(next));
        server.put("/image", slow_until(instant, replacing));
        let shelf = several();
        let image = shelf.get(&Web::new(server.url("/image"))).await.unwrap();
        assert!(server.most_at_once() > 1, "several were tried");
        assert!(std::fs::read(&image.path).unwrap() == newer);
    }
}

/// A login that runs out under several requests, of which the first is answered last.
struct RunsOut {
    refusing: Web,
    requests: AtomicUsize,
    renewed: Notify,
}

#[async_trait]
impl Login for RunsOut {
    async fn request(
        &self,
        web: &Web,
        object: &Object,
        range: Option<ByteRange>,
    ) -> Result<Request> {
        match self.requests.fetch_add(1, Ordering::Relaxed) {
            2 => {
                self.renewed.notified().await;
                self.refusing.request(object, range).await
            }
            3 => self.refusing.request(object, range).await,
            _ => web.request(object, range).await,
        }
    }

    async fn renew(&self, _number: usize) -> Result<bool> {
        self.renewed.notify_one();
        Ok(true)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_runs_out_under_several_connections_is_renewed_once() {
    let server = FaultServer::start().await;
    let slow = Fault::Trickle(16 << 10, Duration::from_millis(20));
    server.put("/image", slow_until(0, slow));
    let refused = Fault::Status(401, Vec::new(), "expired".into());
    server.put("/refused", Resource::new("").always(refused));
    let login = RunsOut {
        refusing: Web::new(server.url("/refused")),
        requests: AtomicUsize::new(0),
        renewed: Notify::new(),
    };
    let origin = Behind::new(login, Web::new(server.url("/image")));
    let shelf = several();
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
    assert_eq!(origin.renewals(), 1);
}

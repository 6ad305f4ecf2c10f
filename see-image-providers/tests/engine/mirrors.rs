//! Servers that answer in turn with words of their own: mirrors behind one address, and tags without quotes.

use see_image_providers::cache::{Algorithm, Unpack};
use see_image_providers::testing::{Fault, FaultServer, Resource, noise};

use crate::support::{Shelf, Web, digest};

const LENGTH: usize = 2 << 20;

/// An address that tells its own tag to a `HEAD`, and sends the `GET`s on to these paths in turn.
fn redirector(server: &FaultServer, mirrors: &[&str]) -> Resource {
    let there = Resource::new(noise(LENGTH)).entity_tag("redirector");
    let last = Fault::Redirect(server.url(mirrors[mirrors.len() - 1]));
    let faults = mirrors.iter().map(|path| Fault::Redirect(server.url(path)));
    faults.fold(there, Resource::fault).always(last)
}

#[tokio::test]
async fn a_mirror_whose_tag_is_another_than_that_of_the_redirector_serves_and_is_continued() {
    let server = FaultServer::start().await;
    server.put("/image", redirector(&server, &["/mirror"]));
    let mirror = Resource::new(noise(LENGTH)).entity_tag("mirror");
    server.put("/mirror", mirror.fault(Fault::CutAfter(1_000_000)));
    let shelf = Shelf::new();
    let origin = Web::new(server.url("/image"));
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
    assert_eq!(server.sent(), LENGTH as u64);
    // It is what the address has, until the address says otherwise.
    shelf.get(&origin).await.unwrap();
    assert_eq!(server.sent(), LENGTH as u64);
}

#[tokio::test]
async fn under_a_pinned_digest_several_mirrors_continue_one_download() {
    let server = FaultServer::start().await;
    server.put("/image", redirector(&server, &["/one", "/two"]));
    let mirror = |tag| Resource::new(noise(LENGTH)).entity_tag(tag);
    server.put("/one", mirror("one").fault(Fault::CutAfter(1_000_000)));
    server.put("/two", mirror("two"));
    let mut shelf = Shelf::new();
    shelf.delivery.digests = vec![digest(Algorithm::Sha256, &noise(LENGTH))];
    let image = shelf.get(&Web::new(server.url("/image"))).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
    assert_eq!(server.sent(), LENGTH as u64);
}

#[tokio::test]
async fn pieces_of_mirrors_that_differ_are_found_by_the_digest_and_got_anew() {
    let server = FaultServer::start().await;
    server.put("/image", redirector(&server, &["/stale", "/new"]));
    let stale = Resource::new(noise(LENGTH + 5).slice(5..)).entity_tag("stale");
    server.put("/stale", stale.fault(Fault::CutAfter(1_000_000)));
    server.put("/new", Resource::new(noise(LENGTH)).entity_tag("new"));
    let mut shelf = Shelf::new();
    shelf.delivery.digests = vec![digest(Algorithm::Sha256, &noise(LENGTH))];
    let image = shelf.get(&Web::new(server.url("/image"))).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
}

#[tokio::test]
async fn a_tag_without_quotes_tells_versions_apart_and_lets_a_download_go_on() {
    let server = FaultServer::start().await;
    let resource = |content, tag| Resource::new(content).raw_entity_tag(tag);
    let first = resource(noise(LENGTH), "abc");
    server.put("/image", first.fault(Fault::CutAfter(1_000_000)));
    let shelf = Shelf::new();
    let origin = Web::new(server.url("/image"));
    for _ in 0..2 {
        let image = shelf.get(&origin).await.unwrap();
        assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
    }
    assert_eq!(server.sent(), LENGTH as u64);
    let newer = noise(LENGTH + 9).slice(9..);
    server.put("/image", resource(newer.clone(), "abd"));
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == newer);
}

#[tokio::test]
async fn a_pinned_digest_finds_the_image_wherever_it_came_from_and_asks_no_server() {
    let server = FaultServer::start().await;
    server.put("/image", Resource::new(noise(LENGTH)).entity_tag("one"));
    let mut shelf = Shelf::new();
    let image = shelf.get(&Web::new(server.url("/image"))).await.unwrap();
    let asked = server.seen().len();
    shelf.delivery.digests = vec![digest(Algorithm::Sha256, &noise(LENGTH))];
    shelf.configuration.offline = Some(false);
    for path in ["/image", "/nowhere?signature=2"] {
        let found = shelf.get(&Web::new(server.url(path))).await.unwrap();
        assert_eq!(found.path, image.path, "{path}");
    }
    assert_eq!(server.seen().len(), asked);
    // At a path of its own, too.
    shelf.delivery.path = Some(shelf.folder.path().join("copy.img"));
    let copy = shelf.get(&Web::new(server.url("/nowhere"))).await.unwrap();
    assert!(std::fs::read(&copy.path).unwrap() == noise(LENGTH));
    // Another one has to be fetched.
    let other = noise(LENGTH + 1);
    server.put("/other", Resource::new(other.clone()).entity_tag("other"));
    shelf.delivery.digests = vec![digest(Algorithm::Sha256, &other)];
    let copy = shelf.get(&Web::new(server.url("/other"))).await.unwrap();
    assert!(std::fs::read(&copy.path).unwrap() == other);
    assert!(server.seen().len() > asked);
}

#[tokio::test]
async fn a_pinned_digest_of_a_packed_image_finds_what_it_holds() {
    let server = FaultServer::start().await;
    let packed = zstd::encode_all(&*noise(LENGTH), 1).unwrap();
    server.put("/image", Resource::new(packed.clone()).entity_tag("one"));
    let mut shelf = Shelf::new();
    shelf.delivery.unpack = Unpack::Auto;
    shelf.delivery.digests = vec![digest(Algorithm::Sha512, &packed)];
    let image = shelf.get(&Web::new(server.url("/image"))).await.unwrap();
    drop(server);
    shelf.configuration.offline = Some(false);
    let nowhere = Web::new("http://127.0.0.1:1/".to_owned());
    let again = shelf.get(&nowhere).await.unwrap();
    assert_eq!(again.path, image.path);
    assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
}

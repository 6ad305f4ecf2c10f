//! What a later run finds of an earlier one, and logins that run out.

use async_trait::async_trait;
use see_core::{ErrorKind, Result, Stop};
use see_image_providers::testing::{Fault, FaultServer, Resource, noise};

use crate::support::{Behind, Login, Shelf, Web, files};

const LENGTH: usize = 2 << 20;

/// A download of the first version that was stopped in its middle.
async fn broken_off(server: &FaultServer) -> (Shelf, Web) {
    let resource = Resource::new(noise(LENGTH)).entity_tag("one");
    server.put("/image", resource.fault(Fault::Stall(1_000_000)));
    let mut shelf = Shelf::new();
    let origin = Web::new(server.url("/image"));
    let stopping = async {
        shelf.until_partial_has(1_000_000).await;
        shelf.stop.stop();
    };
    let (ended, ()) = tokio::join!(shelf.get(&origin), stopping);
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Stopped);
    shelf.stop = Stop::new();
    (shelf, origin)
}

#[tokio::test]
async fn a_left_over_part_of_another_version_is_in_nobodys_way() {
    let server = FaultServer::start().await;
    let (shelf, origin) = broken_off(&server).await;
    let newer = noise(LENGTH + 11).slice(11..);
    server.put("/image", Resource::new(newer.clone()).entity_tag("two"));
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == newer);
    assert_eq!(shelf.partials(), Vec::<String>::new());
}

#[tokio::test]
async fn a_left_over_part_without_a_record_is_in_nobodys_way() {
    let server = FaultServer::start().await;
    let (shelf, origin) = broken_off(&server).await;
    let folder = shelf.store_folder().join("partial");
    for name in shelf.partials() {
        match name.ends_with(".json") {
            true => std::fs::write(folder.join(name), "{").unwrap(),
            false => std::fs::write(folder.join(name), "rubbish").unwrap(),
        }
    }
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
}

#[tokio::test]
async fn a_left_over_part_that_is_wrong_is_found_and_got_anew() {
    let server = FaultServer::start().await;
    let (shelf, mut origin) = broken_off(&server).await;
    let folder = shelf.store_folder().join("partial");
    let name = shelf
        .partials()
        .into_iter()
        .find(|name| !name.contains('.'))
        .unwrap();
    let mut bytes = std::fs::read(folder.join(&name)).unwrap();
    bytes[500_000] ^= 1;
    std::fs::write(folder.join(&name), bytes).unwrap();
    let sum = crate::support::digest(
        see_image_providers::cache::Algorithm::Sha256,
        &noise(LENGTH),
    );
    origin.digests.push(sum);
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
}

#[tokio::test]
async fn after_the_host_was_started_anew_a_download_begins_anew() {
    let server = FaultServer::start().await;
    let (shelf, origin) = broken_off(&server).await;
    let folder = shelf.store_folder().join("partial");
    let name = shelf
        .partials()
        .into_iter()
        .find(|name| name.ends_with(".json"))
        .unwrap();
    let mut record: serde_json::Value =
        serde_json::from_slice(&std::fs::read(folder.join(&name)).unwrap()).unwrap();
    record["boot"] = "another".into();
    std::fs::write(folder.join(&name), record.to_string()).unwrap();
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
    let seen = server.seen();
    assert!(seen.iter().all(|seen| seen.header("range").is_none()));
}

#[tokio::test]
async fn an_image_that_was_cut_in_the_store_is_got_anew() {
    let server = FaultServer::start().await;
    server.put("/image", Resource::new(noise(LENGTH)).entity_tag("one"));
    let shelf = Shelf::new();
    let origin = Web::new(server.url("/image"));
    let image = shelf.get(&origin).await.unwrap();
    std::fs::remove_file(&image.path).unwrap();
    std::fs::write(&image.path, "cut").unwrap();
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
    assert_eq!(files(&shelf.store_folder().join("images")).len(), 2);
}

/// A login that is renewed whenever that is asked for.
struct Renewed;

#[async_trait]
impl Login for Renewed {
    async fn renew(&self, _number: usize) -> Result<bool> {
        Ok(true)
    }
}

#[tokio::test]
async fn a_login_that_runs_out_is_renewed_whenever_it_does_but_not_for_ever() {
    let server = FaultServer::start().await;
    let refused = Fault::Status(401, Vec::new(), "expired".into());
    let resource = Resource::new(noise(LENGTH))
        .entity_tag("one")
        .fault(refused.clone())
        .fault(Fault::CutAfter(1_000_000))
        .fault(refused.clone());
    server.put("/image", resource);
    let origin = Behind::new(Renewed, Web::new(server.url("/image")));
    let shelf = Shelf::new();
    let image = shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
    assert_eq!(origin.renewals(), 2);
    // A right that was withdrawn.
    server.put(
        "/image",
        Resource::new(noise(LENGTH))
            .entity_tag("two")
            .always(refused),
    );
    let error = shelf.get(&origin).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(
        error.to_string().contains("check the credentials"),
        "{error}"
    );
    assert_eq!(origin.renewals(), 3);
}

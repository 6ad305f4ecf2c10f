//! Several who want one image at the same time.

use std::sync::Arc;
use std::time::Duration;

use see_core::{ErrorKind, ImagePhase, ImageProgress};
use see_image_providers::testing::{Fault, FaultServer, Resource, noise};
use tokio::task::JoinSet;

use crate::support::{Shelf, Web};

const LENGTH: usize = 2 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn eight_who_ask_at_once_cause_one_download() {
    let server = FaultServer::start().await;
    let slow = Fault::Trickle(64 << 10, Duration::from_millis(5));
    server.put(
        "/image",
        Resource::new(noise(LENGTH)).entity_tag("one").fault(slow),
    );
    let shelf = Arc::new(Shelf::new());
    let mut asking = JoinSet::new();
    for _ in 0..8 {
        let (shelf, url) = (Arc::clone(&shelf), server.url("/image"));
        asking.spawn(async move { shelf.get(&Web::new(url)).await.unwrap().path });
    }
    let paths = asking.join_all().await;
    assert_eq!(paths.len(), 8);
    assert!(paths.iter().all(|path| *path == paths[0]));
    assert_eq!(server.sent(), LENGTH as u64);
    let stored = shelf.store().list().unwrap();
    assert_eq!((stored.len(), stored[0].leases), (1, 8));
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_sees_how_far_the_one_is_who_downloads() {
    let server = FaultServer::start().await;
    let slow = Fault::Trickle(64 << 10, Duration::from_millis(40));
    server.put(
        "/image",
        Resource::new(noise(LENGTH)).entity_tag("one").fault(slow),
    );
    let shelf = Arc::new(Shelf::new());
    let (first, url) = (Arc::clone(&shelf), server.url("/image"));
    let downloading = tokio::spawn(async move { first.get(&Web::new(url)).await });
    shelf.until_partial_has(1).await;
    let progress = ImageProgress::new();
    let mut listener = progress.listen();
    let watching = tokio::spawn(async move {
        let mut seen = Vec::new();
        while listener.changed().await.is_ok() {
            let report = *listener.borrow_and_update();
            if report.phase == ImagePhase::Waiting && report.done > 0 {
                assert_eq!(report.total, Some(LENGTH as u64), "{report:?}");
                seen.push(report.done);
            }
        }
        seen
    });
    let web = Web::new(server.url("/image"));
    let waited = shelf.get_telling(&web, progress).await.unwrap();
    assert_eq!(downloading.await.unwrap().unwrap().path, waited.path);
    let seen = watching.await.unwrap();
    assert!(seen.len() > 1 && seen.is_sorted(), "{seen:?}");
    assert_eq!(server.sent(), LENGTH as u64, "only one downloaded");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_takes_over_and_resumes_when_the_downloader_is_gone() {
    let server = FaultServer::start().await;
    let resource = Resource::new(noise(LENGTH)).entity_tag("one");
    server.put("/image", resource.fault(Fault::Stall(1_000_000)));
    let mut shelf = Shelf::new();
    shelf.configuration.stall = Some(Duration::from_secs(600).into());
    let shelf = Arc::new(shelf);
    let ask = || {
        let (shelf, url) = (Arc::clone(&shelf), server.url("/image"));
        tokio::spawn(async move { shelf.get(&Web::new(url)).await })
    };
    let first = ask();
    shelf.until_partial_has(1_000_000).await;
    let second = ask();
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let image = second.await.unwrap().unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(LENGTH));
    assert_eq!(server.sent(), LENGTH as u64, "nothing came twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_downloader_that_gets_no_further_is_told_so() {
    let server = FaultServer::start().await;
    server.put(
        "/image",
        Resource::new(noise(LENGTH)).always(Fault::Stall(1_000_000)),
    );
    let mut patient = Shelf::new();
    patient.configuration.stall = Some(Duration::from_secs(600).into());
    let mut hasty = patient.configuration.clone();
    hasty.stall = Some(Duration::from_millis(100).into());
    hasty.patience = Some(Duration::from_millis(200).into());
    let patient = Arc::new(patient);
    let (shelf, url) = (Arc::clone(&patient), server.url("/image"));
    let first = tokio::spawn(async move { shelf.get(&Web::new(url)).await });
    patient.until_partial_has(1_000_000).await;
    let other = Shelf::with(hasty);
    let error = other
        .get(&Web::new(server.url("/image")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(
        error.to_string().contains("another process that downloads"),
        "{error}"
    );
    first.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_patient_with_a_downloader_that_reads_again_what_there_is() {
    let server = FaultServer::start().await;
    let resource = Resource::new(noise(LENGTH)).fault(Fault::Stall(1_000_000));
    server.put("/image", resource);
    let patient = Arc::new(Shelf::new());
    let mut hasty = patient.configuration.clone();
    hasty.stall = Some(Duration::from_millis(100).into());
    hasty.patience = Some(Duration::from_millis(200).into());
    let (shelf, url) = (Arc::clone(&patient), server.url("/image"));
    let first = tokio::spawn(async move { shelf.get(&Web::new(url)).await });
    patient.until_partial_has(1_000_000).await;
    let (other, url) = (Shelf::with(hasty), server.url("/image"));
    let second = tokio::spawn(async move { (other.get(&Web::new(url)).await, other) });
    // It looks at the lock, which the one who reads touches all the time.
    let names = patient.partials();
    let lock = names.iter().find(|name| name.ends_with(".lock")).unwrap();
    let lock = patient.store_folder().join("partial").join(lock);
    let lock = std::fs::File::options().write(true).open(lock).unwrap();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        lock.set_modified(std::time::SystemTime::now()).unwrap();
        assert!(!second.is_finished(), "after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    first.abort();
    let (image, _other) = second.await.unwrap();
    assert!(std::fs::read(image.unwrap().path).unwrap() == noise(LENGTH));
}

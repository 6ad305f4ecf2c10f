//! Leases as the test driver can make them.

use std::io::Write;

use see_core::ledger::{Ledger, Record};
use see_core::{Allocation, ImageProgress, Stop};

use super::*;

/// Leases of two environments on one content, in libvirt's test driver: it makes volumes, and takes no upload.
async fn two_leases(digest: &str) -> [Lease; 2] {
    let limit = Duration::from_secs(30);
    let connection = Connection::open("test:///default", limit).await.unwrap();
    [(); 2].map(|()| Lease {
        folder: Folder {
            connection: connection.clone(),
            path: format!("/there/see-images-{}", &digest[..8]),
        },
        digest: digest.to_owned(),
        owner: Identifier::random(),
        patience: Duration::from_millis(300),
    })
}

/// An image of this length.
fn content(length: usize) -> Content {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&vec![1; length]).unwrap();
    Content::open(file.path()).unwrap()
}

/// What a lease asks for its image.
async fn image(
    lease: &Lease,
    content: &Content,
    stop: &Stop,
    progress: &ImageProgress,
) -> Result<Uploaded> {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path().join("ledger")).await.unwrap();
    let record: Record = ledger.begin(lease.owner, "test").await.unwrap();
    let allocation = Allocation {
        progress: progress.clone(),
        ..Allocation::new(record, stop.token())
    };
    let site = Site::new(&allocation, "test:///default".to_owned());
    lease.image(content, &site).await
}

async fn create(lease: &Lease, pieces: &[Piece]) {
    for piece in pieces {
        assert!(lease.create(*piece, 4096).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn an_image_goes_with_its_last_lease_whoever_uploaded_it_and_the_folder_with_it() {
    let [one, two] = two_leases(&"a".repeat(64)).await;
    one.take().await.unwrap();
    create(&one, &[Piece::Image(one.owner), Piece::Whole(one.owner)]).await;
    two.take().await.unwrap();
    assert_eq!(one.release(true).await.unwrap(), Collected::Removed);
    assert_eq!(one.release(false).await.unwrap(), Collected::Removed);
    assert_eq!(one.release(false).await.unwrap(), Collected::AlreadyGone);
    let image = [Piece::Image(one.owner), Piece::Whole(one.owner)];
    let left = two.names().await.unwrap();
    assert!(image.iter().all(|piece| left.contains(piece)), "{left:?}");
    assert_eq!(two.release(false).await.unwrap(), Collected::Removed);
    assert!(two.folder.pool().await.unwrap().is_none());
}

#[tokio::test]
async fn an_image_stays_for_one_who_took_a_lease_while_another_removed_its_mark() {
    let [one, two] = two_leases(&"b".repeat(64)).await;
    one.take().await.unwrap();
    create(&one, &[Piece::Image(one.owner)]).await;
    // Its removal got this far: the lease and the mark are gone. The other had seen the mark.
    one.delete(Piece::Lease(one.owner)).await.unwrap();
    two.take().await.unwrap();
    // Cut off, and begun again by a collection.
    for _ in 0..2 {
        one.clear().await.unwrap();
        one.release(false).await.unwrap();
        let left = two.names().await.unwrap();
        assert!(left.contains(&Piece::Image(one.owner)), "{left:?}");
    }
    assert_eq!(one.release(true).await.unwrap(), Collected::AlreadyGone);
    two.release(false).await.unwrap();
    assert!(two.folder.pool().await.unwrap().is_none());
}

#[tokio::test]
async fn an_upload_that_stands_still_is_taken_for_dead_and_left_to_its_owner() {
    let digest = "c".repeat(64);
    let [dead, next] = two_leases(&digest).await;
    dead.take().await.unwrap();
    create(&dead, &[Piece::Claim, Piece::Image(dead.owner)]).await;
    next.take().await.unwrap();
    // It gets to its own upload, of which the test driver knows nothing.
    let error = image(&next, &content(4096), &Stop::new(), &ImageProgress::new()).await;
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    next.release(false).await.unwrap();
    let left = next.names().await.unwrap();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(dead.release(false).await.unwrap(), Collected::Removed);
    assert!(dead.folder.pool().await.unwrap().is_none());
}

#[tokio::test]
async fn a_wait_for_another_upload_tells_how_far_it_is_at_most_all_and_ends_with_a_stop() {
    let digest = "d".repeat(64);
    let [busy, mut next] = two_leases(&digest).await;
    busy.take().await.unwrap();
    let images = [Piece::Image(busy.owner), Piece::Image(Identifier::random())];
    create(&busy, &[&[Piece::Claim], &images[..]].concat()).await;
    next.take().await.unwrap();
    next.patience = LONGEST;
    let content = content(1);
    let (stop, progress) = (Stop::new(), ImageProgress::new());
    let mut reports = progress.listen();
    let stopping = async {
        let waits = reports.wait_for(|report| report.phase == ImagePhase::Waiting);
        let report = *waits.await.unwrap();
        stop.stop();
        report
    };
    let both = async { tokio::join!(image(&next, &content, &stop, &progress), stopping) };
    let ended = tokio::time::timeout(Duration::from_secs(30), both).await;
    let (image, report) = ended.unwrap();
    assert_eq!((report.done, report.total), (1, Some(1)));
    let error = image.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped, "{error:?}");
}

#[tokio::test]
async fn a_dry_run_starts_no_pool_and_counts_the_lease_in_it_as_there() {
    let [one, _] = two_leases(&"e".repeat(64)).await;
    one.take().await.unwrap();
    let pool = one.folder.pool().await.unwrap().unwrap();
    pool.destroy().await.unwrap();
    assert_eq!(one.release(true).await.unwrap(), Collected::Removed);
    assert!(!pool.is_active().await.unwrap());
    // A collection starts it.
    one.release(false).await.unwrap();
    assert!(one.folder.pool().await.unwrap().is_none());
}

#[tokio::test]
async fn a_folder_with_a_strangers_file_is_refused_each_time() {
    let [one, two] = two_leases(&"f".repeat(64)).await;
    one.take().await.unwrap();
    let pool = one.folder.pool().await.unwrap().unwrap();
    let stranger = "<volume><name>thesis</name><capacity>1</capacity></volume>";
    let stranger = pool.create_volume(stranger).await.unwrap();
    for _ in 0..2 {
        let refused = two.take().await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::AlreadyExists, "{refused:?}");
        assert!(refused.to_string().contains("thesis"), "{refused}");
    }
    stranger.delete().await.unwrap();
    one.release(false).await.unwrap();
    assert!(one.folder.pool().await.unwrap().is_none());
}

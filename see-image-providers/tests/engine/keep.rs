//! What is in the store: given out, copied, kept, and removed in time.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;
use std::time::Duration;

use see_core::ErrorKind;
use see_core::config::Size;
use see_image_providers::cache::{Algorithm, Store};
use see_image_providers::testing::{FaultServer, Resource, noise};

use crate::support::{Shelf, Web, digest, files};

async fn server_with(path: &str, length: usize) -> (FaultServer, Web) {
    let server = FaultServer::start().await;
    server.put(path, Resource::new(noise(length)).entity_tag("one"));
    let origin = Web::new(server.url(path));
    (server, origin)
}

#[tokio::test]
async fn a_complete_image_serves_while_its_server_is_away() {
    let (server, origin) = server_with("/image", 100_000).await;
    let mut shelf = Shelf::new();
    let image = shelf.get(&origin).await.unwrap();
    drop(server);
    let log = tempfile::NamedTempFile::new().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_writer(Arc::new(log.reopen().unwrap()))
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let tried_again = || {
        let told = std::fs::read_to_string(log.path()).unwrap();
        told.matches("no answer came").count()
    };
    assert_eq!(shelf.get(&origin).await.unwrap().path, image.path);
    assert_eq!(tried_again(), 0, "something serves");
    shelf.configuration.offline = Some(false);
    let error = shelf.get(&origin).await.unwrap_err();
    assert_ne!(tried_again(), 0, "nothing serves");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(
        error.to_string().contains("whether the server runs"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_that_refuses_is_tried_again_where_no_image_serves() {
    let (server, origin) = server_with("/image", 100_000).await;
    let mut shelf = Shelf::new();
    shelf.get(&origin).await.unwrap();
    drop(server);
    let pauses = async |shelf: &Shelf| {
        let begun = std::time::Instant::now();
        let error = shelf.get(&origin).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(begun.elapsed() >= Duration::from_millis(250 + 500));
    };
    shelf.delivery.digests = vec![digest(Algorithm::Sha512, &noise(100_000))];
    pauses(&shelf).await;
    shelf.delivery.digests.clear();
    let stored = shelf.store().list().unwrap().remove(0);
    shelf.store().remove_in_use(&stored.digest).unwrap();
    pauses(&shelf).await;
}

#[tokio::test]
async fn an_image_in_the_store_is_read_only_to_all_who_get_there_by_a_link() {
    let (_server, origin) = server_with("/image", 100_000).await;
    let shelf = Shelf::new();
    let image = shelf.get(&origin).await.unwrap();
    let found = std::fs::metadata(&image.path).unwrap();
    assert_eq!(found.permissions().mode() & 0o7777, 0o444);
}

#[tokio::test]
async fn an_older_image_that_a_pin_does_not_cover_serves_nobody() {
    let (server, origin) = server_with("/image", 100_000).await;
    let mut shelf = Shelf::new();
    shelf.get(&origin).await.unwrap();
    drop(server);
    // Another one was computed of the bytes when they came.
    shelf.delivery.digests = vec![digest(Algorithm::Sha512, &noise(100_000))];
    let error = shelf.get(&origin).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn a_copy_at_its_path_serves_while_the_server_is_away_and_the_store_lost_its_own() {
    let (server, origin) = server_with("/image", 100_000).await;
    let mut shelf = Shelf::new();
    shelf.delivery.path = Some(shelf.folder.path().join("copy.img"));
    let image = shelf.get(&origin).await.unwrap();
    drop(server);
    let stored = shelf.store().list().unwrap();
    shelf.store().remove_in_use(&stored[0].digest).unwrap();
    let again = shelf.get(&origin).await.unwrap();
    assert_eq!(again.path, image.path);
    assert!(std::fs::read(&again.path).unwrap() == noise(100_000));
}

#[tokio::test]
async fn a_promised_digest_finds_the_image_wherever_it_came_from() {
    let (server, _) = server_with("/image", 100_000).await;
    server.put("/again", Resource::new(noise(100_000)).entity_tag("other"));
    let promised = digest(Algorithm::Sha256, &noise(100_000));
    let shelf = Shelf::new();
    for path in ["/image", "/again"] {
        let origin = Web::new(server.url(path)).promising(promised.clone());
        shelf.get(&origin).await.unwrap();
    }
    assert_eq!(server.sent(), 100_000);
    let stored = shelf.store().list().unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(
        stored[0].origins,
        [server.url("/image"), server.url("/again")]
    );
}

#[tokio::test]
async fn a_pinned_digest_that_is_another_is_told_without_a_download() {
    let (server, origin) = server_with("/image", 100_000).await;
    let mut shelf = Shelf::new();
    shelf.get(&origin).await.unwrap();
    shelf.delivery.digests = vec![digest(Algorithm::Sha256, b"another")];
    let error = shelf.get(&origin).await.unwrap_err();
    assert!(
        error.to_string().contains("not the one that was promised"),
        "{error}"
    );
    assert_eq!(server.sent(), 100_000);
}

#[tokio::test]
async fn a_folder_as_path_gets_the_image_under_its_name_and_a_file_is_replaced() {
    let (server, origin) = server_with("/..%2f/image.raw", 100_000).await;
    let mut shelf = Shelf::new();
    let folder = shelf.folder.path().join("images");
    std::fs::create_dir(&folder).unwrap();
    shelf.delivery.path = Some(folder.clone());
    let image = shelf.get(&origin).await.unwrap();
    assert_eq!(image.path, folder.join("image.raw"));
    assert!(std::fs::read(&image.path).unwrap() == noise(100_000));
    assert_eq!(files(&folder), ["image.raw"]);
    // Another copy is made only of another image.
    let before = std::fs::metadata(&image.path).unwrap().modified().unwrap();
    shelf.get(&origin).await.unwrap();
    assert_eq!(
        std::fs::metadata(&image.path).unwrap().modified().unwrap(),
        before
    );
    // A file is replaced when the remote is newer, and when somebody changed it.
    shelf.delivery.path = Some(image.path.clone());
    std::fs::write(&image.path, vec![7; 100_000]).unwrap();
    shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(100_000));
    server.put(
        "/..%2f/image.raw",
        Resource::new(noise(50_000)).entity_tag("two"),
    );
    shelf.get(&origin).await.unwrap();
    assert!(std::fs::read(&image.path).unwrap() == noise(50_000));
    assert_eq!(files(&folder), ["image.raw"]);
}

#[tokio::test]
async fn a_link_at_the_path_is_replaced_and_not_followed() {
    let (_server, origin) = server_with("/image", 100_000).await;
    let mut shelf = Shelf::new();
    let victim = shelf.folder.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let link = shelf.folder.path().join("image.raw");
    symlink(&victim, &link).unwrap();
    shelf.delivery.path = Some(link.clone());
    shelf.get(&origin).await.unwrap();
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
    assert!(!link.is_symlink());
}

#[tokio::test]
async fn images_leave_the_store_least_recently_used_first_and_never_while_used() {
    let server = FaultServer::start().await;
    let mut shelf = Shelf::new();
    let mut paths = Vec::new();
    for index in 1..=3_usize {
        let name = format!("/{index}");
        server.put(
            &name,
            Resource::new(noise(100_000 + index)).entity_tag(&name),
        );
        let image = shelf.get(&Web::new(server.url(&name))).await.unwrap();
        paths.push(image.path);
        // Times that differ, whatever the clock's step.
        let before = std::time::SystemTime::now() - Duration::from_secs(1000 - index as u64);
        let record = std::fs::File::open(format!("{}.json", paths[index - 1].display())).unwrap();
        record.set_modified(before).unwrap();
    }
    // Every environment is alive still: nothing may go.
    let collected = shelf.store().collect(Some(1)).unwrap();
    assert_eq!((collected.images.len(), collected.in_use), (0, 300_006));
    let error = shelf
        .store()
        .remove(&shelf.store().list().unwrap()[0].digest)
        .unwrap_err();
    assert!(
        error.to_string().contains("used by an environment"),
        "{error}"
    );
    // The first and the second are not used any more; the first was asked for last.
    shelf.get(&Web::new(server.url("/1"))).await.unwrap();
    shelf.end_leases_of(&paths[0]);
    shelf.end_leases_of(&paths[1]);
    shelf.configuration.limit = Some(Size(310_000));
    server.put("/4", Resource::new(noise(100_004)).entity_tag("4"));
    shelf.get(&Web::new(server.url("/4"))).await.unwrap();
    let left: Vec<bool> = paths.iter().map(|path| path.exists()).collect();
    assert_eq!(left, [true, false, true]);
    let collected = shelf.store().collect(Some(0)).unwrap();
    assert_eq!(collected.images.len(), 1, "the first");
    assert_eq!(collected.left, collected.in_use);
    assert!(!paths[0].exists() && paths[2].exists());
}

#[tokio::test]
async fn an_image_that_changed_in_the_store_is_found() {
    let (_server, origin) = server_with("/image", 3_000_000).await;
    let shelf = Shelf::new();
    let image = shelf.get(&origin).await.unwrap();
    let store = shelf.store();
    let digest = store.list().unwrap()[0].digest.clone();
    let mut heard = 0;
    let mut progress = |bytes| {
        heard = bytes;
        true
    };
    store.verify(&digest, &mut progress).unwrap();
    assert_eq!(heard, 3_000_000);
    let mut bytes = std::fs::read(&image.path).unwrap();
    bytes[7] ^= 1;
    std::fs::set_permissions(&image.path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(&image.path, bytes).unwrap();
    let error = store.verify(&digest, &mut |_| true).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("expected {digest}, found sha256:")),
        "{error}"
    );
    let error = store.verify(&digest, &mut |_| false).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Stopped);
}

#[tokio::test]
async fn an_image_larger_than_allowed_or_than_the_disk_is_refused_before_it_comes() {
    let (server, origin) = server_with("/image", 3_000_000).await;
    let mut shelf = Shelf::new();
    shelf.delivery.max_size = Some(1_000_000);
    let error = shelf.get(&origin).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(
        error.to_string().contains("at most 1000000B are allowed"),
        "{error}"
    );
    assert!(server.sent() < 3_000_000);
    let endless = see_image_providers::testing::Fault::ContentLength(1 << 60);
    server.put(
        "/endless",
        Resource::new(noise(10)).announcing(1 << 60).always(endless),
    );
    let error = Shelf::new()
        .get(&Web::new(server.url("/endless")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(
        error.to_string().contains("has 1048576TiB or more"),
        "{error}"
    );
    assert!(
        server
            .seen()
            .iter()
            .all(|seen| seen.method == "HEAD" || seen.target == "/image")
    );
}

#[tokio::test]
async fn a_link_planted_in_the_store_is_refused_and_its_target_untouched() {
    for what in ["partial", "images", "store"] {
        let (_server, origin) = server_with("/image", 100_000).await;
        let shelf = Shelf::new();
        let outside = shelf.folder.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::set_permissions(&outside, std::fs::Permissions::from_mode(0o700)).unwrap();
        let link = if what == "store" {
            shelf.store_folder()
        } else {
            drop(Store::open(&shelf.store_folder()).unwrap());
            let link = shelf.store_folder().join(what);
            std::fs::remove_dir(&link).unwrap();
            link
        };
        symlink(&outside, &link).unwrap();
        let error = shelf.get(&origin).await.unwrap_err();
        assert!(
            error.to_string().contains("found a link"),
            "{what}: {error}"
        );
        assert!(files(&outside).is_empty());
    }
    // The same for the file that is about to be written.
    let (_server, origin) = server_with("/image", 100_000).await;
    let shelf = Shelf::new();
    shelf.get(&origin).await.unwrap();
    let stored = shelf.store().list().unwrap().remove(0);
    shelf.end_leases_of(&stored.path);
    shelf.store().remove(&stored.digest).unwrap();
    let victim = shelf.folder.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let key = files(&shelf.store_folder().join("origins")).remove(0);
    let key = key.strip_suffix(".json").unwrap();
    symlink(&victim, shelf.store_folder().join("partial").join(key)).unwrap();
    let error = shelf.get(&origin).await.unwrap_err();
    assert!(error.chain().contains("symbolic links"), "{error}");
    assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
}

#[tokio::test]
async fn a_store_that_others_can_reach_is_refused() {
    let (_server, origin) = server_with("/image", 100_000).await;
    let shelf = Shelf::new();
    drop(shelf.store());
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(shelf.store_folder(), open).unwrap();
    let error = shelf.get(&origin).await.unwrap_err();
    assert!(error.to_string().contains("mode 0755"), "{error}");
}

#[tokio::test]
async fn a_download_that_nobody_continued_is_taken_away() {
    let shelf = Shelf::new();
    let partial = shelf.store().folder().join("partial");
    let key = "ab".repeat(32);
    for (name, age) in [(&key, 8), (&"cd".repeat(32), 1)] {
        let file = std::fs::File::create(partial.join(name)).unwrap();
        file.set_len(1000).unwrap();
        let time = std::time::SystemTime::now() - Duration::from_secs(age * 24 * 60 * 60);
        file.set_modified(time).unwrap();
    }
    let collected = shelf.store().collect(None).unwrap();
    assert_eq!((collected.partials, collected.partial_bytes), (1, 1000));
    assert_eq!(shelf.partials(), ["cd".repeat(32)]);
}

#[tokio::test]
async fn what_killed_processes_left_is_collected_and_what_others_write_is_not() {
    let (_server, origin) = server_with("/image", 100_000).await;
    let shelf = Shelf::new();
    shelf.get(&origin).await.unwrap();
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(2 * 60 * 60);
    for folder in ["origins", "copies", "partial"] {
        let folder = shelf.store_folder().join(folder);
        for (name, is_old) in [(".a.json.1", true), (".b.json.2", false)] {
            let file = std::fs::File::create(folder.join(name)).unwrap();
            if is_old {
                file.set_modified(long_ago).unwrap();
            }
        }
    }
    shelf.store().collect(None).unwrap();
    for folder in ["origins", "copies", "partial"] {
        let left = files(&shelf.store_folder().join(folder));
        assert!(!left.contains(&".a.json.1".to_owned()), "{left:?}");
        assert!(left.contains(&".b.json.2".to_owned()), "{left:?}");
    }
}

#[tokio::test]
async fn a_record_that_leads_to_no_image_any_more_is_collected_and_another_is_not() {
    let (server, origin) = server_with("/image", 100_000).await;
    let shelf = Shelf::new();
    shelf.get(&origin).await.unwrap();
    let folder = shelf.store_folder().join("origins");
    assert_eq!(files(&folder).len(), 1);
    // As addresses that are signed anew for each run do.
    for number in 0..20 {
        let signed = format!("/image?signature={number}");
        let promised = digest(Algorithm::Sha256, &noise(100_000));
        let origin = Web::new(server.url(&signed)).promising(promised);
        shelf.get(&origin).await.unwrap();
    }
    shelf.store().collect(None).unwrap();
    assert_eq!(files(&folder).len(), 16);
    let stored = shelf.store().list().unwrap().remove(0);
    shelf.end_leases_of(&stored.path);
    shelf.store().remove(&stored.digest).unwrap();
    shelf.store().collect(None).unwrap();
    assert_eq!(files(&folder), [""; 0]);
}

#[tokio::test]
async fn the_record_of_a_copy_goes_with_the_copy() {
    let (_server, origin) = server_with("/image", 100_000).await;
    let mut shelf = Shelf::new();
    let folder = shelf.folder.path().join("disk");
    std::fs::create_dir(&folder).unwrap();
    // No UTF-8, as paths need not be.
    let path = folder.join(OsStr::from_bytes(b"copy-\xff.img"));
    shelf.delivery.path = Some(path.clone());
    shelf.get(&origin).await.unwrap();
    let records =
        || ["copies", "origins"].map(|name| files(&shelf.store_folder().join(name)).len());
    let stored = shelf.store().list().unwrap().remove(0);
    shelf.end_leases_of(&stored.path);
    shelf.store().remove(&stored.digest).unwrap();
    shelf.store().collect(None).unwrap();
    assert_eq!(records(), [1, 1]);
    // As while its disk is not mounted.
    let away = shelf.folder.path().join("away");
    std::fs::rename(&folder, &away).unwrap();
    shelf.store().collect(None).unwrap();
    assert_eq!(records(), [1, 1]);
    std::fs::rename(&away, &folder).unwrap();
    std::fs::remove_file(path).unwrap();
    shelf.store().collect(None).unwrap();
    assert_eq!(records(), [0, 0]);
}

#[tokio::test]
async fn every_download_that_broke_off_can_be_collected_at_once() {
    let server = FaultServer::start().await;
    let cut = see_image_providers::testing::Fault::CutAfter(50_000);
    let resource = Resource::new(noise(100_000))
        .entity_tag("one")
        .without_ranges();
    server.put("/image", resource.always(cut));
    let mut shelf = Shelf::new();
    shelf.configuration.patience = Some(see_core::config::DurationValue(Duration::from_secs(1)));
    shelf
        .get(&Web::new(server.url("/image")))
        .await
        .unwrap_err();
    assert_eq!(shelf.store().collect(None).unwrap().partials, 0);
    assert_eq!(shelf.store().collect_partial().unwrap().partials, 1);
    assert_eq!(shelf.partials(), [""; 0]);
}

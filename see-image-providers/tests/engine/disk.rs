//! Disks that are full or read-only: small ones, in a mount namespace of the test's own.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use see_core::ErrorKind;
use see_image_providers::cache::Unpack;
use see_image_providers::testing::{Fault, FaultServer, Resource, noise};

use crate::support::{Shelf, Web, files};

/// Says to the test that it runs on a disk of its own, and where that is.
const DISK: &str = "SEE_TEST_DISK";

/// The folder of a disk of 4 MiB; `None` after the test, run again there, was seen to pass.
fn disk(test: &str) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os(DISK) {
        return Some(disk.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let is_root = rustix::process::geteuid().is_root();
    let mut command = Command::new("unshare");
    command.arg("--mount");
    if !is_root {
        command.args(["--user", "--map-root-user"]);
    }
    let script = r#"mount -t tmpfs -o size=4m,mode=700 none "$SEE_TEST_DISK" && exec "$0" "$@""#;
    let program = std::env::current_exe().unwrap();
    command.args(["sh", "-c", script]).arg(program);
    command
        .args(["--exact", test, "--nocapture"])
        .env(DISK, folder.path());
    let output = command.output().expect("unshare is installed");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(said.contains("1 passed"), "{said}");
    None
}

#[tokio::test]
async fn an_image_that_the_disk_has_no_room_for_is_refused_and_nothing_of_it_is_left() {
    let test = "disk::an_image_that_the_disk_has_no_room_for_is_refused_and_nothing_of_it_is_left";
    let Some(disk) = disk(test) else {
        return;
    };
    let server = FaultServer::start().await;
    let resource = Resource::new(noise(6 << 20)).entity_tag("one");
    // Nobody knows before how long it will be: it leaves a part of the disk to others.
    server.put("/image", resource.clone().fault(Fault::NoLength));
    let mut shelf = Shelf::at(disk.join("store"));
    for unpack in [Unpack::Never, Unpack::Auto] {
        shelf.delivery.unpack = unpack;
        server.put("/image", resource.clone().fault(Fault::NoLength));
        let mut origin = Web::new(server.url("/image"));
        origin.forgets_size = true;
        let error = shelf.get(&origin).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert!(error.to_string().contains("has room for"), "{error}");
        assert_eq!(shelf.partials(), [""; 0]);
    }
    // A length that is known is looked at before.
    server.put("/known", resource);
    shelf.configuration.offline = Some(false);
    let sent = server.sent();
    let error = shelf
        .get(&Web::new(server.url("/known")))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(
        error.to_string().contains("the image has 6MiB or more"),
        "{error}"
    );
    assert_eq!(server.sent(), sent);
}

#[tokio::test]
async fn a_disk_that_others_fill_meanwhile_gets_back_what_came() {
    let Some(disk) = disk("disk::a_disk_that_others_fill_meanwhile_gets_back_what_came") else {
        return;
    };
    let server = FaultServer::start().await;
    let resource = Resource::new(noise(3 << 20)).entity_tag("one");
    let slowly = Fault::Trickle(32 << 10, Duration::from_millis(20));
    server.put("/image", resource.always(slowly));
    let mut shelf = Shelf::at(disk.join("store"));
    shelf.configuration.streams = Some(1);
    let filling = async {
        shelf.until_partial_has(500_000).await;
        let mut others = std::fs::File::create(disk.join("others")).unwrap();
        while std::io::Write::write(&mut others, &[7; 65536]).is_ok() {}
    };
    let origin = Web::new(server.url("/image"));
    let (got, ()) = tokio::join!(shelf.get(&origin), filling);
    let error = got.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error:?}");
    assert!(error.to_string().contains("is full: make room"), "{error}");
    assert_eq!(shelf.partials(), [""; 0]);
}

#[tokio::test]
async fn a_read_only_store_gives_out_what_it_has_and_refuses_the_rest() {
    let test = "disk::a_read_only_store_gives_out_what_it_has_and_refuses_the_rest";
    let Some(disk) = disk(test) else {
        return;
    };
    let server = FaultServer::start().await;
    server.put("/image", Resource::new(noise(100_000)).entity_tag("one"));
    server.put("/other", Resource::new(noise(200_000)).entity_tag("two"));
    let shelf = Shelf::at(disk.join("store"));
    let image = shelf.get(&Web::new(server.url("/image"))).await.unwrap();
    let remount = ["-o", "remount,ro", disk.to_str().unwrap()];
    assert!(
        Command::new("mount")
            .args(remount)
            .status()
            .unwrap()
            .success()
    );
    let again = shelf.get(&Web::new(server.url("/image"))).await.unwrap();
    assert_eq!(again.path, image.path);
    let error = shelf
        .get(&Web::new(server.url("/other")))
        .await
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("SEE_IMAGE_STORE, chooses another place"),
        "{text}"
    );
    assert_eq!(
        files(&shelf.store_folder().join("partial")),
        Vec::<String>::new()
    );
}

//! Files of the guest, anywhere in it.

#[expect(dead_code, reason = "each test file uses a part of it")]
mod support;

use see_agent::protocol::{FailureCode, FileKind, Upload};
use see_hooks_std::client::{Client, ClientError};
use std::path::Path;
use support::{PATIENCE, agent};
use tempfile::TempDir;

async fn client(test: &str) -> (Client, support::Folder, TempDir) {
    let (stream, folder) = agent(test);
    let client = Client::connect(stream, b"", PATIENCE).await;
    let elsewhere = TempDir::new().expect("a folder");
    (client.expect("a session"), folder, elsewhere)
}

fn bytes(path: &Path) -> Vec<u8> {
    path.as_os_str().as_encoded_bytes().to_vec()
}

fn code(refused: Result<impl Sized, ClientError>) -> Option<FailureCode> {
    match refused {
        Err(ClientError::Refused { code, .. }) => Some(code),
        _ => None,
    }
}

#[tokio::test]
async fn a_file_goes_to_any_path_and_comes_back_from_there() {
    let (client, folder, elsewhere) = client("any-path").await;
    let path = elsewhere.path().join("a/b");
    let made = client.make_folder(bytes(&path), PATIENCE).await;
    made.expect("made");
    let path = path.join("file");
    let upload = |name: &Path, size| Upload {
        name: bytes(name),
        mode: 0o640,
        size,
    };
    for content in [&b"first"[..], b"second one"] {
        let stored = client.upload(upload(&path, content.len() as u64), content, PATIENCE);
        assert_eq!(stored.await.expect("stored"), bytes(&path));
        let mut back = Vec::new();
        let fetched = client.download(bytes(&path), u64::MAX, &mut back, PATIENCE);
        fetched.await.expect("fetched");
        assert_eq!(back, content);
    }
    let found = client.stat(bytes(&path), PATIENCE).await.expect("found");
    assert_eq!(
        (found.kind, found.size, found.mode),
        (FileKind::File, 10, 0o640)
    );
    assert!(!found.modified.is_zero());
    assert!(folder.names().is_empty(), "{:?}", folder.names());
    // Nothing is left of an upload to a place that cannot be had.
    let missing = elsewhere.path().join("no/such");
    let refused = client
        .upload(upload(&missing, 1), &b"x"[..], PATIENCE)
        .await;
    assert_eq!(code(refused), Some(FailureCode::NotFound));
    let a_folder = elsewhere.path().join("a");
    let refused = client
        .upload(upload(&a_folder, 1), &b"x"[..], PATIENCE)
        .await;
    assert_eq!(code(refused), Some(FailureCode::BadRequest));
}

#[tokio::test]
async fn a_folder_is_listed_with_what_each_entry_is() {
    let (client, _folder, elsewhere) = client("list").await;
    let path = elsewhere.path();
    std::fs::create_dir(path.join("folder")).expect("made");
    std::os::unix::fs::symlink("/nowhere", path.join("link")).expect("made");
    std::os::unix::net::UnixListener::bind(path.join("socket")).expect("made");
    // More than fit a message.
    for number in 0..1000 {
        std::fs::write(path.join(format!("file {number}")), "x").expect("made");
    }
    let (all, truncated) = client.list(bytes(path), PATIENCE).await.expect("a list");
    assert!(!truncated);
    assert_eq!(all.len(), 1003);
    let kind = |name: &str| {
        let found = all.iter().find(|file| file.name == name.as_bytes());
        found.expect("it is listed").kind
    };
    assert_eq!(kind("folder"), FileKind::Folder);
    assert_eq!(kind("link"), FileKind::Link);
    assert_eq!(kind("socket"), FileKind::Other);
    assert_eq!(kind("file 999"), FileKind::File);
    let refused = client.list(bytes(&path.join("file 1")), PATIENCE).await;
    assert_eq!(code(refused), Some(FailureCode::Io));
    let relative = client.list("etc", PATIENCE).await;
    assert_eq!(code(relative), Some(FailureCode::BadRequest));
}

#[tokio::test]
async fn what_is_removed_is_gone_and_what_its_links_lead_to_stays() {
    let (client, _folder, elsewhere) = client("remove").await;
    let kept = elsewhere.path().join("kept");
    std::fs::create_dir(&kept).expect("made");
    std::fs::write(kept.join("file"), "x").expect("made");
    let gone = elsewhere.path().join("gone");
    std::fs::create_dir_all(gone.join("deep")).expect("made");
    std::os::unix::fs::symlink(&kept, gone.join("deep/link")).expect("made");
    let link = elsewhere.path().join("link");
    std::os::unix::fs::symlink(&kept, &link).expect("made");
    for path in [&gone, &link] {
        client.remove(bytes(path), PATIENCE).await.expect("removed");
        let again = client.remove(bytes(path), PATIENCE).await;
        assert_eq!(code(again), Some(FailureCode::NotFound));
    }
    assert!(kept.join("file").exists());
    let looked = client.stat(bytes(&gone), PATIENCE).await;
    assert_eq!(code(looked), Some(FailureCode::NotFound));
}

//! Images on a web server: the provider `http` and a real nginx.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use see_core::{Error, ErrorKind};
use see_tests::services::Nginx;
use serde_json::{Value, json};

use crate::digests::sum;
use crate::support::{Desk, PULL, User};

/// Bytes that no reader takes for another format than raw.
fn content(of: u8) -> Vec<u8> {
    let mut bytes = vec![of; 70_000];
    bytes[..4].copy_from_slice(&[1, 2, 3, of]);
    bytes
}

fn section(url: &str, configuration: &Value) -> Value {
    json!({ "provider": "http", "uri": url, "provider_configuration": configuration })
}

/// How often bytes of an image were sent.
fn sent(nginx: &Nginx, path: &str) -> usize {
    let log = nginx.log();
    let of_path = log.iter().filter(|request| request.path == path);
    of_path.filter(|request| request.sent > 1000).count()
}

fn says(error: &Error, kind: ErrorKind, parts: &[&str]) {
    let line = error.chain();
    assert_eq!(error.kind(), kind, "{line}");
    assert!(error.advice_text().is_some(), "what to do? {line}");
    for part in parts {
        assert!(line.contains(part), "{part:?} in {line}");
    }
    assert!(!line.contains("secret"), "{line}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the target folder is UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_fetched_once_and_again_when_it_changed() {
    let nginx = Nginx::start();
    let desk = Desk::new();
    nginx.put("guest.img", &content(1));
    let image = section(&nginx.url("guest.img"), &json!({}));
    for _ in 0..2 {
        let got = desk.pull(&image).await.unwrap();
        assert_eq!(std::fs::read(got.path).unwrap(), content(1));
    }
    nginx.logged(3);
    assert_eq!(sent(&nginx, "/guest.img"), 1);
    // Of another length, since nginx's tags are made of whole seconds and lengths.
    let other = [content(2), vec![0]].concat();
    nginx.put("guest.img", &other);
    let got = desk.pull(&image).await.unwrap();
    assert_eq!(std::fs::read(got.path).unwrap(), other);
    // Without any tag it cannot be known: a digest that is pinned tells then, and asks nobody for what is there.
    let plain = nginx.url("plain/guest.img");
    let pinned = section(&plain, &json!({ "checksum": sum(&other) }));
    for _ in 0..2 {
        desk.pull(&pinned).await.unwrap();
    }
    for _ in 0..2 {
        desk.pull(&section(&plain, &json!({}))).await.unwrap();
    }
    nginx.logged(9);
    assert_eq!(sent(&nginx, "/plain/guest.img"), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_the_same_length_is_fetched_again_when_its_date_is_another_one() {
    let nginx = Nginx::start();
    let desk = Desk::new();
    let day = |number: u64| UNIX_EPOCH + Duration::from_secs(number * 86_400);
    let image = section(&nginx.url("dated/guest.img"), &json!({}));
    // One that is older than what was there before is another one, too.
    for (of, day) in [(1, day(20_000)), (2, day(20_001)), (3, day(10_000))] {
        nginx.put_dated("guest.img", &content(of), day);
        for _ in 0..2 {
            let got = desk.pull(&image).await.unwrap();
            assert!(std::fs::read(got.path).unwrap() == content(of), "{of}");
        }
    }
    nginx.logged(9);
    assert_eq!(sent(&nginx, "/dated/guest.img"), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sums_beside_an_image_decide_whether_it_is_the_right_one() {
    let nginx = Nginx::start();
    let desk = Desk::new();
    nginx.put("my guest.img", &content(1));
    let url = nginx.url("my%20guest.img");
    let with_sums = section(&url, &json!({ "checksums": true }));
    let error = desk.pull(&with_sums).await.unwrap_err();
    says(
        &error,
        ErrorKind::NotFound,
        &["neither SHA256SUMS nor SHA512SUMS"],
    );
    let hex = sum(&content(1)).replace("sha256:", "");
    let other = "0".repeat(64);
    nginx.put(
        "SHA256SUMS",
        format!("{hex}  guest.img\n{hex}  my guest.img.old\n").as_bytes(),
    );
    let error = desk.pull(&with_sums).await.unwrap_err();
    says(
        &error,
        ErrorKind::NotFound,
        &["`my guest.img`", "it lists guest.img"],
    );
    nginx.put("SHA256SUMS", format!("{other} *my guest.img\n").as_bytes());
    let error = desk.pull(&with_sums).await.unwrap_err();
    for digest in [&other, &hex] {
        assert!(error.chain().contains(digest), "{}", error.chain());
    }
    nginx.put(
        "sums.txt",
        format!("SHA256 (my guest.img) = {hex}\n").as_bytes(),
    );
    let named = section(&url, &json!({ "checksums": "sums.txt" }));
    let got = desk.pull(&named).await.unwrap();
    assert_eq!(std::fs::read(got.path).unwrap(), content(1));
    nginx.put("SHA256SUMS", format!("{hex} *my guest.img\n").as_bytes());
    desk.pull(&with_sums).await.unwrap();
    let pinned = section(&url, &json!({ "checksum": format!("sha256:{other}") }));
    let error = desk.pull(&pinned).await.unwrap_err();
    assert!(error.chain().contains(&hex), "{}", error.chain());
    let weak = section(
        &url,
        &json!({ "checksum": "md5:900150983cd24fb0d6963f7d28e17f72" }),
    );
    let error = desk.source(&weak).unwrap_err();
    says(
        &error,
        ErrorKind::Configuration,
        &["anyone can forge", "run.json:1:"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_is_told_to_the_images_own_server_alone() {
    let nginx = Nginx::start();
    let desk = Desk::new();
    nginx.put("guest.img", &content(1));
    let (name, password) = Nginx::READER;
    let auth = json!({ "auth": { "username": name, "password": password } });
    let error = desk
        .pull(&section(&nginx.url("private/guest.img"), &json!({})))
        .await;
    let error = error.unwrap_err();
    says(
        &error,
        ErrorKind::PermissionDenied,
        &["401", "`auth.username`"],
    );
    let wrong = json!({ "auth": { "username": name, "password": "another secret" } });
    let error = desk
        .pull(&section(&nginx.url("private/guest.img"), &wrong))
        .await;
    let error = error.unwrap_err();
    says(
        &error,
        ErrorKind::PermissionDenied,
        &["does not accept the credentials"],
    );
    // In the address, and along a redirect to the same server.
    let inside = nginx
        .url("private/guest.img")
        .replace("//", &format!("//{name}:{password}@"));
    desk.pull(&section(&inside, &json!({}))).await.unwrap();
    let moved = nginx.url("moved/private/guest.img");
    desk.pull(&section(&moved, &auth)).await.unwrap();
    // Another name is another server.
    let away = nginx.url("away/private/guest.img");
    let error = desk.pull(&section(&away, &auth)).await.unwrap_err();
    says(
        &error,
        ErrorKind::PermissionDenied,
        &["sent on to http://localhost:"],
    );
    desk.pull(&section(&nginx.url("away/guest.img"), &auth))
        .await
        .unwrap();
    let log = nginx.logged(14);
    // Each time that credentials are refused may count.
    let refused = |request: &&see_tests::services::Request| {
        request.status == 401 && request.authorization.is_some()
    };
    assert_eq!(log.iter().filter(refused).count(), 1, "{log:?}");
    let (away, own): (Vec<_>, Vec<_>) = log
        .iter()
        .partition(|request| request.host.starts_with("localhost"));
    assert!(away.len() >= 3 && own.len() >= 8, "{log:?}");
    assert!(
        away.iter().all(|request| request.authorization.is_none()),
        "{log:?}"
    );
    assert!(
        own.iter()
            .filter(|request| request.authorization.is_some())
            .count()
            >= 6
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_believed_only_by_its_certificate_unless_insecure_says_otherwise() {
    let nginx = Nginx::start();
    let desk = Desk::new();
    nginx.put("guest.img", &content(1));
    let url = nginx.secure_url("guest.img");
    // python-see verified nothing until it was given an authority.
    let error = desk.pull(&section(&url, &json!({}))).await.unwrap_err();
    says(&error, ErrorKind::Unavailable, &["certificate", "`cacert`"]);
    let other = Nginx::start();
    let wrong = json!({ "tls": { "cacert": text(&other.authority().file()) } });
    let error = desk.pull(&section(&url, &wrong)).await.unwrap_err();
    says(&error, ErrorKind::Unavailable, &["certificate"]);
    assert_eq!(sent(&nginx, "/guest.img"), 0);
    let authority = nginx.authority();
    let right = json!({ "tls": { "cacert": text(&authority.file()) } });
    desk.pull(&section(&url, &right)).await.unwrap();
    let insecure = json!({ "session": { "insecure": true } });
    desk.pull(&section(&url, &insecure)).await.unwrap();
    let known = json!({ "tls": {
        "cacert": text(&authority.file()), "cert": text(&authority.client()),
    } });
    let mutual = nginx.mutual_url("guest.img");
    desk.pull(&section(&mutual, &known)).await.unwrap();
    let stranger = Desk::new().pull(&section(&mutual, &right)).await;
    says(
        &stranger.unwrap_err(),
        ErrorKind::PermissionDenied,
        &["400", "`tls.cert`"],
    );
    let down = desk
        .pull(&section(&nginx.secure_url("away/guest.img"), &right))
        .await;
    says(
        &down.unwrap_err(),
        ErrorKind::Unsupported,
        &["not encrypted"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_certificate_is_shown_to_the_images_own_server_and_not_to_that_of_the_checksums()
{
    let nginx = Nginx::start();
    let desk = Desk::new();
    nginx.put("guest.img", &content(1));
    let hex = sum(&content(1)).replace("sha256:", "");
    nginx.put("SHA256SUMS", format!("{hex}  guest.img\n").as_bytes());
    let authority = nginx.authority();
    let tls = json!({ "cacert": authority.file(), "cert": authority.client() });
    // One that asks for a certificate would be shown ours, and let us in.
    let elsewhere = json!({ "checksums": nginx.mutual_url("SHA256SUMS"), "tls": tls });
    let error = desk
        .pull(&section(&nginx.secure_url("guest.img"), &elsewhere))
        .await;
    says(&error.unwrap_err(), ErrorKind::PermissionDenied, &["400"]);
    let own = json!({ "checksums": nginx.mutual_url("SHA256SUMS"), "tls": tls });
    desk.pull(&section(&nginx.mutual_url("guest.img"), &own))
        .await
        .unwrap();
}

#[test]
fn a_copy_at_a_path_has_the_rights_that_the_umask_leaves() {
    let nginx = Nginx::start();
    nginx.put("guest.img", &content(1));
    for (umask, mode) in [
        ("022", 0o644),
        ("027", 0o640),
        ("077", 0o600),
        ("000", 0o644),
    ] {
        let user = User::of(&section(
            &nginx.url("guest.img"),
            &json!({ "path": "copy.img" }),
        ));
        let pull = user.pull();
        let mut strict = std::process::Command::new("sh");
        strict
            .args(["-c", &format!("umask {umask} && exec \"$0\" \"$@\"")])
            .arg(pull.get_program())
            .args(pull.get_args());
        user.home().furnish(&mut strict);
        strict.env("SEE_IMAGE_STORE", user.store());
        let outcome = see_tests::finish(see_tests::spawn(&mut strict), PULL);
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        let copy = std::fs::metadata(user.home().path("copy.img")).expect("it was made");
        let found = std::os::unix::fs::PermissionsExt::mode(&copy.permissions());
        assert_eq!(found & 0o777, mode, "{umask}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_says_what_it_is() {
    let nginx = Nginx::start();
    let desk = Desk::new();
    let page = format!(
        "<!DOCTYPE html>\n<html><body>{}</body></html>\n",
        "moved ".repeat(200)
    );
    nginx.put("guest.img", page.as_bytes());
    let error = desk
        .pull(&section(&nginx.url("guest.img"), &json!({})))
        .await
        .unwrap_err();
    assert!(error.chain().contains("HTML"), "{}", error.chain());
    let error = desk
        .pull(&section(&nginx.url("missing.img"), &json!({})))
        .await
        .unwrap_err();
    says(&error, ErrorKind::NotFound, &["404", "/missing.img"]);
    let error = desk
        .pull(&section(&nginx.url("round/guest.img"), &json!({})))
        .await
        .unwrap_err();
    says(&error, ErrorKind::Unavailable, &["on and on"]);
    let error = desk
        .pull(&section(&nginx.url("busy/guest.img"), &json!({})))
        .await
        .unwrap_err();
    says(&error, ErrorKind::Unavailable, &["503", "try again later"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_head_is_asked_for_the_first_byte() {
    let nginx = Nginx::start();
    let desk = Desk::new();
    nginx.put("guest.img", &content(1));
    let image = section(&nginx.url("headless/guest.img"), &json!({}));
    for _ in 0..2 {
        let got = desk.pull(&image).await.unwrap();
        assert_eq!(std::fs::read(got.path).unwrap(), content(1));
    }
    let log = nginx.logged(5);
    let first = Some("bytes=0-0");
    let asked = log
        .iter()
        .filter(|request| request.range.as_deref() == first);
    assert_eq!(asked.count(), 2, "{log:?}");
    assert_eq!(sent(&nginx, "/headless/guest.img"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_names_of_python_sees_keys_serve() {
    let nginx = Nginx::start();
    let desk = Desk::new();
    nginx.put("guest.img", &content(1));
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("images");
    std::fs::create_dir(&folder).unwrap();
    let got = desk
        .pull(
            &json!({ "provider": "https", "name": "guest.img", "provider_configuration": {
            "url": nginx.url(""), "target_path": text(&folder),
        } }),
        )
        .await;
    let got = got.unwrap();
    assert_eq!(got.path, folder.join("guest.img"));
    assert_eq!(std::fs::read(got.path).unwrap(), content(1));
}

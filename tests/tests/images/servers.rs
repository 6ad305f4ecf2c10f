//! The servers that the other tests rely on are what they are taken for.

use std::time::Duration;

use see_tests::services::{self, Glance, Nginx, Signal, Swift};
use see_tests::{finish, spawn};
use std::process::Command;

/// A page of curl's: status, and the body in a file.
fn fetched(url: &str, more: &[&str]) -> (String, Vec<u8>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let body = folder.path().join("body");
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--max-time",
        "30",
        "--write-out",
        "%{http_code}",
    ])
    .arg("--output")
    .arg(&body)
    .args(more)
    .arg(url);
    let outcome = finish(spawn(&mut curl), Duration::from_secs(60));
    (outcome.stdout, std::fs::read(body).unwrap_or_default())
}

#[test]
fn nginx_serves_what_is_awkward_and_logs_each_request() {
    let nginx = Nginx::start();
    nginx.put("guest.img", b"content");
    let authority = nginx.authority().file();
    let authority = authority.to_str().expect("the target folder is UTF-8");
    let whole = |body: &[u8]| body == b"content";
    for path in ["guest.img", "slow/guest.img", "plain/guest.img"] {
        let (status, body) = fetched(&nginx.url(path), &[]);
        assert!(status == "200" && whole(&body), "{path}: {status}");
    }
    let range = ["--range", "2-3"];
    assert_eq!(fetched(&nginx.url("guest.img"), &range).0, "206");
    assert_eq!(fetched(&nginx.url("whole/guest.img"), &range).0, "200");
    let beyond = ["--range", "70-"];
    assert_eq!(fetched(&nginx.url("guest.img"), &beyond).0, "416");
    assert_eq!(fetched(&nginx.url("private/guest.img"), &[]).0, "401");
    let (name, password) = Nginx::READER;
    let user = ["--user", &format!("{name}:{password}")];
    assert_eq!(fetched(&nginx.url("private/guest.img"), &user).0, "200");
    assert_eq!(fetched(&nginx.url("busy/guest.img"), &[]).0, "503");
    let (status, body) = fetched(&nginx.url("away/guest.img"), &["--location"]);
    assert!(status == "200" && whole(&body), "{status}");
    let secure = nginx.secure_url("guest.img");
    assert_eq!(fetched(&secure, &[]).0, "000");
    assert_eq!(fetched(&secure, &["--cacert", authority]).0, "200");
    let mutual = nginx.mutual_url("guest.img");
    assert_eq!(fetched(&mutual, &["--cacert", authority]).0, "400");
    let client = nginx.authority().client();
    let client = client.to_str().expect("the target folder is UTF-8");
    let known = ["--cacert", authority, "--cert", client];
    assert_eq!(fetched(&mutual, &known).0, "200");
    let log = nginx.logged(14);
    let ranged = log.iter().find(|request| request.status == 206);
    let ranged = ranged.expect("it was asked for");
    assert_eq!(
        (ranged.sent, ranged.range.as_deref()),
        (2, Some("bytes=2-3"))
    );
    let away = log
        .iter()
        .rfind(|request| request.host.starts_with("localhost"));
    assert_eq!(away.map(|request| request.status), Some(200));
}

#[test]
fn nginx_that_was_killed_refuses_and_serves_again_on_its_port() {
    let nginx = Nginx::start();
    nginx.put("guest.img", b"content");
    let url = nginx.url("guest.img");
    for signal in [Signal::KILL, Signal::TERM] {
        assert_eq!(fetched(&url, &[]).0, "200");
        nginx.stop(signal);
        assert_eq!(fetched(&url, &[]).0, "000");
        nginx.again();
    }
    assert_eq!(fetched(&url, &[]).1, b"content");
}

#[test]
fn glance_gives_an_image_to_its_project_over_both_addresses() {
    let glance = services::glance().shared();
    let id = glance.upload("the content of a fixture", b"content");
    let shown = glance.show(&id);
    assert_eq!(shown["status"], "active");
    assert_eq!(shown["os_hash_algo"], "sha512");
    let token = format!("X-Auth-Token: {}", glance.token(Glance::USER));
    let authority = glance.authority().file();
    let authority = authority.to_str().expect("the target folder is UTF-8");
    for url in [glance.image_url(), glance.secure_image_url()] {
        let url = format!("{url}/v2/images/{id}/file");
        let known = ["--cacert", authority, "--header", &token];
        assert_eq!(
            fetched(&url, &known),
            ("200".to_owned(), b"content".to_vec())
        );
    }
    glance.deactivate(&id);
    assert_eq!(glance.show(&id)["status"], "deactivated");
    glance.reactivate(&id);
    glance.delete(&id);
    let path = format!("/v2/images/{id}");
    assert_eq!(glance.call("GET", &path, None).status, 404);
}

#[test]
fn a_revoked_token_and_a_wrong_one_are_the_same_to_glance() {
    let glance = services::glance().shared();
    let token = glance.token(Glance::USER);
    let url = format!("{}/v2/images", glance.image_url());
    let header = format!("X-Auth-Token: {token}");
    assert_eq!(fetched(&url, &["--header", &header]).0, "200");
    glance.revoke(&token);
    for header in [header.as_str(), "X-Auth-Token: wrong"] {
        assert_eq!(fetched(&url, &["--header", header]).0, "401");
    }
}

#[test]
fn swift_keeps_versions_and_joins_parts() {
    let swift = services::swift().shared();
    swift.bucket("fixture");
    swift.keep_versions("fixture");
    let first = swift.put("fixture", "guest.img", b"first");
    let second = swift.put("fixture", "guest.img", b"second");
    assert!(first.is_some() && first != second, "{first:?} {second:?}");
    let path = format!("fixture/guest.img?versionId={}", first.expect("checked"));
    assert_eq!(swift.call("GET", &path, &[]).ok().body, b"first");
    let part = vec![7; 5 << 20];
    let etag = swift.put_parts("fixture", "parts.img", &[&part, b"rest"]);
    assert!(etag.ends_with("-2"), "{etag}");
    let whole = swift.call("GET", "fixture/parts.img", &[]).ok();
    assert_eq!(whole.body.len(), part.len() + 4);
    let ranged = [("Range", "bytes=1-3")];
    let ranged = swift.call("GET", "fixture/guest.img", &ranged).ok();
    assert_eq!((ranged.status, ranged.body), (206, b"eco".to_vec()));
    let (key, secret) = (Swift::KEY, Swift::SECRET);
    assert!(!swift.log().contains(secret), "{key}");
}

//! Which image is found, and what is said where none is.

use see_core::ErrorKind;
use serde_json::json;

use super::cloud::{Server, found, glance, id, image, keystone, usual};
use crate::cache::{Algorithm, Origin as _};

#[tokio::test]
async fn the_newest_active_image_of_a_name_is_the_one_that_was_made_last() {
    let mut touched = image(1, "guest", "active", "2026-01-01T10:00:00Z");
    touched["updated_at"] = json!("2026-09-01T10:00:00Z");
    let server = glance(vec![
        touched,
        image(2, "guest", "active", "2026-01-02T10:00:00Z"),
        image(3, "guest", "active", "2026-01-02T10:30:00Z"),
        image(4, "guest", "queued", "2026-05-01T10:00:00Z"),
        image(5, "GUEST", "active", "2026-05-01T10:00:00Z"),
    ]);
    let provider = usual(&keystone(server.url("/v2/")), "guest");
    let object = found(&provider).await.unwrap();
    assert_eq!(object.name, id(3));
    assert_eq!(server.seen().len(), 1, "one request is enough");
    assert_eq!(object.size, Some(7));
    let algorithms: Vec<Algorithm> = object.digests.iter().map(|one| one.algorithm()).collect();
    assert_eq!(algorithms, [Algorithm::Sha512, Algorithm::Md5]);
}

#[tokio::test]
async fn an_image_is_found_by_its_id_and_a_name_that_looks_like_one() {
    let server = glance(vec![
        image(1, "guest", "active", "2026-01-01T10:00:00Z"),
        image(2, &id(9), "active", "2026-01-01T10:00:00Z"),
    ]);
    let keystone = keystone(server.url(""));
    assert_eq!(found(&usual(&keystone, &id(1))).await.unwrap().name, id(1));
    assert_eq!(found(&usual(&keystone, &id(9))).await.unwrap().name, id(2));
}

#[tokio::test]
async fn an_image_without_data_is_told_by_its_status_before_anything_is_downloaded() {
    for (status, part) in [
        ("queued", "has no data yet"),
        ("saving", "is being uploaded"),
        ("deactivated", "is deactivated"),
        ("pending_delete", "is deleted"),
        ("killed", "upload of the image failed"),
        ("new\u{1b}status", "status in which it cannot be downloaded"),
    ] {
        let server = glance(vec![image(1, "guest", status, "2026-01-01T10:00:00Z")]);
        let keystone = keystone(server.url(""));
        for name in ["guest", &id(1)] {
            let provider = usual(&keystone, name);
            let error = found(&provider).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
            assert!(error.to_string().contains(part), "{name}: {error}");
            assert!(!error.to_string().contains('\u{1b}'), "{error}");
            assert!(provider.origin.older_serves(&error));
        }
        assert_eq!(server.count(&format!("GET /v2/images/{}/file", id(1))), 0);
    }
}

#[tokio::test]
async fn a_name_that_is_not_there_is_told_with_the_nearest_one() {
    let server = Server::new(|request| {
        let images = match request.line.contains("name=") {
            true => json!([]),
            false => json!([image(1, "debian-13", "active", "2026-01-01T10:00:00Z")]),
        };
        (200, String::new(), json!({"images": images}))
    });
    let error = found(&usual(&keystone(server.url("")), "debain-13"))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("did you mean `debian-13`?"),
        "{error}"
    );
}

#[tokio::test]
async fn the_token_goes_to_no_other_host_by_a_next_link_or_a_redirect() {
    let other = Server::new(|_| (200, String::new(), json!({"images": []})));
    let elsewhere = other.url("/v2/images?marker=1");
    for redirect in [false, true] {
        let elsewhere = elsewhere.clone();
        let server = Server::new(move |_| match redirect {
            true => (302, format!("Location: {elsewhere}\r\n"), json!({})),
            false => {
                let image = image(1, "guest", "active", "2026-01-01T10:00:00Z");
                let page = json!({"images": [image], "next": elsewhere});
                (200, String::new(), page)
            }
        });
        let provider = usual(&keystone(server.url("/image")), "guest");
        match found(&provider).await {
            Ok(object) => assert_eq!(object.name, id(1)),
            Err(error) => assert!(!error.chain().contains("token-1"), "{error:?}"),
        }
        for request in server.seen() {
            let begin = "GET /image/v2/images?";
            assert!(request.line.starts_with(begin), "{}", request.line);
            assert_eq!(request.token.as_deref(), Some("token-1"));
        }
        // Nothing follows the link.
        assert_eq!(other.seen().is_empty(), !redirect);
        assert!(other.seen().iter().all(|request| request.token.is_none()));
    }
}

#[tokio::test]
async fn what_the_server_makes_up_gets_into_no_path() {
    let mut evil = image(1, "guest", "active", "2026-09-01T10:00:00Z");
    evil["id"] = json!("../../etc/passwd");
    let good = image(2, "guest", "active", "2026-01-01T10:00:00Z");
    let server = glance(vec![evil, good]);
    let object = found(&usual(&keystone(server.url("")), "guest"))
        .await
        .unwrap();
    assert_eq!(object.name, id(2));
}

#[tokio::test]
async fn a_busy_service_is_asked_again_and_a_broken_one_is_told() {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    let server =
        Server::new(
            move |_| match asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => (503, "Retry-After: 0\r\n".to_owned(), json!("later")),
                _ => {
                    let image = image(1, "guest", "active", "2026-01-01T10:00:00Z");
                    (200, String::new(), json!({"images": [image]}))
                }
            },
        );
    let provider = usual(&keystone(server.url("")), "guest");
    assert_eq!(found(&provider).await.unwrap().name, id(1));
    for (status, kind) in [
        (503, ErrorKind::Unavailable),
        (403, ErrorKind::PermissionDenied),
    ] {
        let server =
            Server::new(move |_| (status, "Retry-After: 0\r\n".to_owned(), json!("<b>no</b>")));
        let provider = usual(&keystone(server.url("")), "guest");
        let error = found(&provider).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

//! Which image is found, and what is said where none is.

use see_core::{Error, ErrorKind};
use serde_json::json;

use super::cloud::{Server, found, glance, id, image, keystone, usual};
use crate::cache::{Algorithm, Origin as _};

#[tokio::test]
async fn the_newest_active_image_of_a_name_is_the_one_that_was_made_last() {
    let mut touched = image(1, "guest", "active", "2026-01-01T10:00:00Z");
    touched["updated_at"] = json!("2026-09-01T10:00:00Z");
    let server = glance(vec![
        touched,
        // Half an hour before the next one, though its text is the larger.
        image(2, "guest", "active", "2026-01-02T12:00:00+02:00"),
        image(3, "guest", "active", "2026-01-02T10:30:00Z"),
        image(4, "guest", "queued", "2026-05-01T10:00:00Z"),
        image(5, "GUEST", "active", "2026-05-01T10:00:00Z"),
    ]);
    let provider = usual(&keystone(server.url("/v2/")), "guest");
    let object = found(&provider).await.unwrap();
    assert_eq!(object.name, id(3));
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
async fn pages_are_followed_behind_a_path_and_end() {
    let server = Server::new(|request| {
        assert!(
            request.line.starts_with("GET /image/v2/images?"),
            "{}",
            request.line
        );
        let number = match request.line.split_once("marker=") {
            None => 1,
            Some((_, marker)) => marker[..1].parse::<u8>().unwrap() + 1,
        };
        let created = format!("2026-01-0{number}T10:00:00Z");
        let mut page = json!({"images": [image(number, "guest", "active", &created)]});
        if number < 5 {
            // Glance does not know that it stands behind `/image`.
            page["next"] = json!(format!(
                "/v2/images?marker={number}&name=guest&status=active"
            ));
        }
        (200, String::new(), page)
    });
    let provider = usual(&keystone(server.url("/image")), "guest");
    assert_eq!(found(&provider).await.unwrap().name, id(5));
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn a_list_without_end_is_left() {
    for (next, requests) in [("?marker=1", 2), ("?marker=%d", 200)] {
        let number = std::sync::atomic::AtomicUsize::new(0);
        let server = Server::new(move |_| {
            let number = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let next = next.replace("%d", &number.to_string());
            let image = image(1, "guest", "active", "2026-01-01T10:00:00Z");
            (200, String::new(), json!({"images": [image], "next": next}))
        });
        let provider = usual(&keystone(server.url("")), "guest");
        let error = found(&provider).await.unwrap_err();
        assert!(error.to_string().contains("the list of images"), "{error}");
        assert_eq!(server.seen().len(), requests);
    }
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
        let provider = usual(&keystone(server.url("")), "guest");
        let error: Error = found(&provider).await.unwrap_err();
        assert!(!error.chain().contains("token-1"), "{error:?}");
        assert_eq!(server.seen()[0].token.as_deref(), Some("token-1"));
        assert!(other.seen().iter().all(|request| request.token.is_none()));
    }
    // The link was not followed at all.
    assert_eq!(other.count("GET /v2/images?marker=1"), other.seen().len());
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

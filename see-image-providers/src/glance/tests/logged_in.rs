//! Ways to log in, tokens that run out, and what is said where Keystone refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use see_core::{Error, ErrorKind};
use serde_json::{Value, json};

use super::cloud::{
    Server, by_password, found, glance, id, image, keystone, provider, token, usual,
};
use crate::cache::{Object, Origin as _};

fn one_image() -> Vec<Value> {
    vec![image(1, "guest", "active", "2026-01-01T10:00:00Z")]
}

#[tokio::test]
async fn each_way_to_log_in_tells_keystone_what_it_expects() {
    let glance = glance(one_image());
    let default = json!({"id": "default"});
    let ours = json!({"name": "Ours"});
    for (login, identity, scope) in [
        (
            json!({"username": "ali", "password": "open sesame", "project_name": "images"}),
            json!({"methods": ["password"], "password": {"user":
                {"name": "ali", "domain": default, "password": "open sesame"}}}),
            json!({"project": {"name": "images", "domain": default}}),
        ),
        (
            json!({"user_id": "u", "password": "open sesame", "tenant_id": "p"}),
            json!({"methods": ["password"], "password": {"user": {"id": "u", "password": "open sesame"}}}),
            json!({"project": {"id": "p"}}),
        ),
        (
            json!({"username": "ali", "password": "open sesame", "user_domain_name": "Ours",
                   "project_name": "images", "project_domain_id": "default"}),
            json!({"methods": ["password"], "password": {"user":
                {"name": "ali", "domain": ours, "password": "open sesame"}}}),
            json!({"project": {"name": "images", "domain": default}}),
        ),
        (
            json!({"username": "ali", "password": "open sesame", "domain_name": "Ours"}),
            json!({"methods": ["password"], "password": {"user":
                {"name": "ali", "domain": ours, "password": "open sesame"}}}),
            json!({"domain": ours}),
        ),
        (
            json!({"application_credential_id": "c", "application_credential_secret": "open sesame",
                   "project_name": "it has its own"}),
            json!({"methods": ["application_credential"],
                   "application_credential": {"id": "c", "secret": "open sesame"}}),
            Value::Null,
        ),
        (
            json!({"application_credential_name": "c", "username": "ali",
                   "application_credential_secret": "open sesame"}),
            json!({"methods": ["application_credential"], "application_credential":
                {"name": "c", "user": {"name": "ali", "domain": default}, "secret": "open sesame"}}),
            Value::Null,
        ),
        (
            json!({"token": "open sesame", "project_name": "images"}),
            json!({"methods": ["token"], "token": {"id": "open sesame"}}),
            json!({"project": {"name": "images", "domain": default}}),
        ),
        (
            json!({"username": "ali", "password": "open sesame", "system_scope": "all"}),
            json!({"methods": ["password"], "password": {"user":
                {"name": "ali", "domain": default, "password": "open sesame"}}}),
            json!({"system": {"all": true}}),
        ),
    ] {
        let keystone = keystone(glance.url(""));
        for path in ["", "/", "/v3", "/v3/"] {
            let mut login = login.clone();
            login["auth_url"] = json!(keystone.url(path));
            let provider = provider(json!({"os_auth": login}), "guest").unwrap();
            assert_eq!(found(&provider).await.unwrap().name, id(1));
            assert!(!format!("{provider:?}").contains("open sesame"));
            assert!(!provider.origin.identity().contains("open sesame"));
        }
        for request in keystone.seen() {
            assert_eq!(request.body["auth"]["identity"], identity);
            assert_eq!(request.body["auth"]["scope"], scope);
        }
    }
}

#[tokio::test]
async fn a_token_without_a_project_is_confirmed_as_it_is() {
    let glance = glance(one_image());
    let catalog = token(&glance.url(""));
    let keystone = Server::new(move |request| {
        assert_eq!(request.line, "GET /v3/auth/tokens");
        assert_eq!(request.token.as_deref(), Some("given"));
        (200, String::new(), catalog.clone())
    });
    let login = json!({"auth_url": keystone.url(""), "token": "given"});
    let provider = provider(json!({"os_auth": login}), "guest").unwrap();
    assert_eq!(found(&provider).await.unwrap().name, id(1));
    assert_eq!(glance.seen()[0].token.as_deref(), Some("given"));
}

#[tokio::test]
async fn a_glance_that_asks_for_no_login_is_asked_without_one() {
    let glance = Server::new(|request| {
        assert_eq!(request.token, None);
        let image = image(1, "guest", "active", "2026-01-01T10:00:00Z");
        (200, String::new(), json!({"images": [image]}))
    });
    let configuration = json!({"os_auth": {"auth_type": "none"}, "glance_url": glance.url("/v2")});
    let provider = provider(configuration, "guest").unwrap();
    assert_eq!(found(&provider).await.unwrap().name, id(1));
}

/// A Glance that takes the second token and those after it.
fn forgetful() -> Server {
    Server::new(|request| match request.token.as_deref() {
        Some("token-1") => (401, String::new(), json!("expired")),
        _ => {
            let image = image(1, "guest", "active", "2026-01-01T10:00:00Z");
            match request.line.contains('?') {
                true => (200, String::new(), json!({"images": [image]})),
                false => (200, String::new(), image),
            }
        }
    })
}

#[tokio::test]
async fn a_token_that_is_no_longer_taken_is_renewed_once_for_all_who_ask() {
    let glance = forgetful();
    let keystone = keystone(glance.url(""));
    let provider = usual(&keystone, "guest");
    let (one, other) = tokio::join!(found(&provider), found(&provider));
    assert_eq!(one.unwrap(), other.unwrap());
    assert_eq!(keystone.count("POST"), 2);
}

#[tokio::test]
async fn a_download_that_is_refused_goes_on_with_a_new_token() {
    let glance = glance(one_image());
    let keystone = keystone(glance.url(""));
    let provider = usual(&keystone, "guest");
    let object = found(&provider).await.unwrap();
    let request = provider.origin.request(&object, None).await.unwrap();
    assert_eq!(
        request.url().as_str(),
        glance.url(&format!("/v2/images/{}/file", id(1)))
    );
    assert_eq!(request.headers()["X-Auth-Token"], "token-1");
    assert!(!format!("{request:?}").contains("token-1"), "{request:?}");
    assert!(provider.origin.renew().await.unwrap());
    let request = provider.origin.request(&object, None).await.unwrap();
    assert_eq!(request.headers()["X-Auth-Token"], "token-2");
}

#[tokio::test]
async fn an_image_that_is_withdrawn_while_it_downloads_is_told_so() {
    for (status, part) in [
        (Some("deactivated"), "is deactivated"),
        (None, "is deleted"),
    ] {
        let looks = AtomicUsize::new(0);
        let glance = Server::new(move |_| {
            let now = match looks.fetch_add(1, Ordering::SeqCst) {
                0 => Some("active"),
                _ => status,
            };
            match now {
                Some(status) => {
                    let image = image(1, "guest", status, "2026-01-01T10:00:00Z");
                    (200, String::new(), image)
                }
                None => (404, String::new(), json!("gone")),
            }
        });
        let provider = usual(&keystone(glance.url("")), &id(1));
        found(&provider).await.unwrap();
        let error = provider.origin.renew().await.unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_token_that_others_can_read_on_its_way_to_the_catalogs_glance_is_told_of_once() {
    let far = "http://images.example.org:9292";
    let catalog = token(far);
    let tokens = AtomicUsize::new(0);
    let keystone = Server::new(move |_| {
        let number = tokens.fetch_add(1, Ordering::SeqCst);
        let head = format!("X-Subject-Token: token-{number}\r\n");
        (201, head, catalog.clone())
    });
    let log = tempfile::NamedTempFile::new().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(Arc::new(log.reopen().unwrap()))
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let provider = usual(&keystone, "guest");
    let object = Object::new("one", "guest");
    for _ in 0..2 {
        // Made, and not sent.
        let request = provider.origin.request(&object, None).await.unwrap();
        assert!(request.url().as_str().starts_with(far));
        assert!(provider.origin.renew().await.unwrap());
    }
    assert_eq!(keystone.count("POST"), 3);
    let told = std::fs::read_to_string(log.path()).unwrap();
    let warnings: Vec<&str> = told.lines().filter(|line| line.contains("WARN")).collect();
    let [warning] = warnings[..] else {
        panic!("{told}");
    };
    assert!(warning.contains("the token for this server"), "{warning}");
    assert!(warning.contains(far), "{warning}");
}

async fn refused(keystone: &Server, login: Value) -> Error {
    let mut login = login;
    login["auth_url"] = json!(keystone.url("/v3"));
    let provider = provider(json!({"os_auth": login}), "guest").unwrap();
    let error = found(&provider).await.unwrap_err();
    assert!(!error.chain().contains("hush-hush"), "{error:?}");
    error
}

#[tokio::test]
async fn a_wrong_password_is_sent_once_since_each_time_counts_towards_a_lock() {
    let keystone = Server::new(|_| {
        (
            401,
            String::new(),
            json!({"error": {"message": "requires authentication"}}),
        )
    });
    let login = json!({"username": "ali", "password": "hush-hush", "project_name": "theirs"});
    let error = refused(&keystone, login).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    for part in ["check username, password", "the project `theirs`"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(keystone.count("POST"), 1);
}

#[tokio::test]
async fn an_expired_token_that_cannot_be_renewed_is_told_so() {
    let keystone = Server::new(|_| {
        (
            404,
            String::new(),
            json!({"error": {"message": "no token"}}),
        )
    });
    let error = refused(&keystone, json!({"token": "hush-hush"})).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(error.to_string().contains("cannot be renewed"), "{error}");
    assert_eq!(error.place().unwrap().key, "provider_configuration.os_auth");
}

#[tokio::test]
async fn an_address_without_keystone_is_told_so() {
    let login = || json!({"username": "ali", "password": "hush-hush", "project_id": "p"});
    for (status, body) in [
        (404, json!("<html>nothing here</html>")),
        (201, json!("<html>welcome</html>")),
        (201, json!({"token": 7})),
    ] {
        let server =
            Server::new(move |_| (status, "X-Subject-Token: t\r\n".to_owned(), body.clone()));
        let error = refused(&server, login()).await;
        let text = error.to_string();
        assert!(text.contains("address"), "{text}");
    }
    let error = refused(&Server::new(|_| (201, String::new(), json!({}))), login()).await;
    assert!(error.to_string().contains("X-Subject-Token"), "{error}");
}

#[tokio::test]
async fn what_keystone_repeats_of_the_secret_is_left_out() {
    let keystone = Server::new(|request| {
        let message = format!("bad value in {}", request.body);
        (400, String::new(), json!({"error": {"message": message}}))
    });
    let login = json!({"username": "ali", "password": "hush-hush", "project_id": "p"});
    let error = refused(&keystone, login).await;
    assert!(error.to_string().contains("left out"), "{error}");
}

#[tokio::test]
async fn a_login_without_a_project_is_told_what_it_lacks() {
    let keystone = Server::new(|_| {
        let token = json!({"token": {"expires_at": "2026-01-01T10:00:00Z"}});
        (201, "X-Subject-Token: t\r\n".to_owned(), token)
    });
    let error = refused(
        &keystone,
        json!({"username": "ali", "password": "hush-hush"}),
    )
    .await;
    assert!(error.to_string().contains("give project_name"), "{error}");
}

#[tokio::test]
async fn a_region_that_is_not_there_is_told_with_those_that_are() {
    let keystone = keystone("http://127.0.0.1:1".to_owned());
    let configuration = json!({"os_auth": by_password(&keystone), "region": "There"});
    let provider = provider(configuration, "guest").unwrap();
    let error = found(&provider).await.unwrap_err();
    assert!(error.to_string().contains("`Here`"), "{error}");
    assert_eq!(error.place().unwrap().key, "provider_configuration.region");
    assert!(!provider.origin.older_serves(&error));
}

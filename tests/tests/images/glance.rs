//! The provider `glance` against a real Keystone and a real Glance.

use see_core::{Error, ErrorKind};
use see_tests::services::{self, Glance};
use serde_json::{Value, json};

use crate::support::Desk;

/// The `os_auth` of the ordinary user.
fn by_password(glance: &Glance) -> Value {
    let user = Glance::USER;
    json!({ "auth_url": glance.identity_url(), "username": user.name, "password": user.password,
        "project_name": user.project, "user_domain_name": "Default",
        "project_domain_name": "Default" })
}

fn section(name: &str, configuration: Value) -> Value {
    json!({ "provider": "glance", "name": name, "provider_configuration": configuration })
}

async fn refused(section: &Value, kind: ErrorKind, parts: &[&str]) -> Error {
    let error = Desk::new().pull(section).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_refused_is_told_why() {
    let glance = services::glance().shared();
    let with = |changes: Value| {
        let mut login = by_password(&glance);
        for (key, value) in changes.as_object().into_iter().flatten() {
            login[key] = value.clone();
        }
        section("any", json!({ "os_auth": login }))
    };
    let denied = ErrorKind::PermissionDenied;
    let password = with(json!({ "password": "not-the-password" }));
    let error = refused(
        &password,
        denied,
        &["refuses the user `tester`", "check username"],
    )
    .await;
    assert!(!error.chain().contains("not-the-password"), "{error:?}");
    let project = with(json!({ "project_name": "admin" }));
    refused(
        &project,
        denied,
        &["project `admin`", "none of theirs", "`images`"],
    )
    .await;
    let domain = with(json!({ "user_domain_name": "Elsewhere" }));
    refused(&domain, denied, &["the domain `Elsewhere`"]).await;
    let wrong = ErrorKind::Configuration;
    let old = with(json!({ "auth_url": glance.identity_url().replace("/v3", "/v2.0") }));
    let fix = format!("use {};", glance.identity_url());
    refused(&old, wrong, &[&fix, "user_domain_name"]).await;
    let elsewhere = with(json!({ "auth_url": format!("{}/identity", glance.image_url()) }));
    let error = Desk::new().pull(&elsewhere).await.unwrap_err();
    assert!(error.to_string().contains("auth_url"), "{error}");
    let region = json!({ "os_auth": by_password(&glance), "region": "RegionTwo" });
    let parts = ["no region `RegionTwo`", "did you mean `RegionOne`?"];
    refused(&section("any", region), wrong, &parts).await;
    let interface = json!({ "os_auth": by_password(&glance), "interface": "admin" });
    let parts = ["no admin address", "`internal`", "`public`"];
    refused(&section("any", interface), wrong, &parts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_revoked_is_told_and_not_renewed() {
    let glance = services::glance().shared();
    let token = glance.token(Glance::USER);
    glance.revoke(&token);
    let login = json!({ "auth_url": glance.identity_url(), "token": token });
    let section = section("any", json!({ "os_auth": login }));
    let parts = ["expired, was revoked", "cannot be renewed"];
    let error = refused(&section, ErrorKind::PermissionDenied, &parts).await;
    assert!(!error.chain().contains(&token), "{error:?}");
}

//! The provider `glance` against a real Keystone and a real Glance.

use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use see_core::config::Configuration;
use see_core::ledger::Ledger;
use see_core::{Error, ErrorKind, Identifier, ImageRequest, ImageSource, Registries, Stop};
use see_tests::services::{self, Glance};
use see_tests::{Dice, Outcome, finish, spawn, until};
use serde_json::{Value, json};

use crate::support::{Desk, PULL, User, pulled_path};

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

/// An image by the usual login.
fn usual(glance: &Glance, name: &str) -> Value {
    section(name, json!({ "os_auth": by_password(glance) }))
}

async fn pulled(section: &Value) -> Vec<u8> {
    content(&Desk::new(), section).await
}

async fn content(desk: &Desk, section: &Value) -> Vec<u8> {
    let image = desk
        .pull(section)
        .await
        .unwrap_or_else(|error| panic!("{section}: {error:?}"));
    std::fs::read(image.path).expect("an image can be read")
}

async fn refused(section: &Value, kind: ErrorKind, parts: &[&str]) -> Error {
    let error = Desk::new().pull(section).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.kind(), kind, "{text}");
    assert!(error.advice_text().is_some(), "what to do? {text}");
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
    error
}

/// An image that is newer than another one to Glance, which counts whole seconds; its identifier.
fn upload_after(glance: &Glance, other: &str, name: &str, content: &[u8]) -> String {
    let made = |id: &str| glance.show(id)["created_at"].clone();
    let mut id = glance.upload(name, content);
    until(
        "a second that is a later one",
        Duration::from_secs(10),
        || {
            let is_later = made(&id) != made(other);
            if !is_later {
                glance.delete(&id);
                id = glance.upload(name, content);
            }
            is_later
        },
    );
    id
}

/// `seectl image pull`, with further variables and without those of whoever runs the tests.
fn by_command(user: &User, variables: &[(&str, &str)]) -> Outcome {
    let mut command = user.pull();
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("OS_")) {
            command.env_remove(name);
        }
    }
    command.envs(variables.iter().copied());
    finish(spawn(&mut command), PULL)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_log_in_gets_the_image() {
    let glance = services::glance().shared();
    let id = glance.upload("for every login", b"\xff\x00by any way");
    let user = Glance::USER;
    let (credential, secret) = glance.application_credential(&id);
    let token = glance.token(user);
    let url = glance.identity_url();
    let unversioned = url.trim_end_matches("/v3").to_owned();
    for login in [
        by_password(&glance),
        json!({ "auth_url": unversioned, "username": user.name, "password": user.password,
            "tenant_name": user.project }),
        json!({ "auth_url": url, "application_credential_id": credential,
            "application_credential_secret": secret }),
        json!({ "auth_url": url, "application_credential_name": id, "username": user.name,
            "application_credential_secret": secret }),
        json!({ "auth_url": url, "token": token }),
        json!({ "auth_url": url, "token": token, "project_name": user.project }),
    ] {
        let section = section(&id, json!({ "os_auth": login }));
        assert_eq!(pulled(&section).await, b"\xff\x00by any way", "{section}");
    }
    // A cloud that has Glance elsewhere than its catalog says.
    let explicit = json!({ "os_auth": by_password(&glance), "region": "Nowhere",
        "glance_url": glance.image_url() });
    assert_eq!(pulled(&section(&id, explicit)).await, b"\xff\x00by any way");
    glance.delete(&id);
}

#[test]
fn the_environment_and_a_file_of_clouds_log_in() {
    let glance = services::glance().shared();
    let id = glance.upload("for every user", b"\xff\x00as openstack does");
    let (url, user) = (glance.identity_url(), Glance::USER);
    let someone = User::of(&section(&id, json!({})));
    let whole = by_command(
        &someone,
        &[
            ("OS_AUTH_URL", &url),
            ("OS_USERNAME", user.name),
            ("OS_PASSWORD", user.password),
            ("OS_PROJECT_NAME", user.project),
            ("OS_USER_DOMAIN_NAME", "Default"),
            ("OS_PROJECT_DOMAIN_ID", "default"),
            ("OS_REGION_NAME", Glance::REGION),
            ("OS_CACERT", ""),
        ],
    );
    assert_eq!(
        std::fs::read(pulled_path(&whole)).expect("it is there"),
        b"\xff\x00as openstack does"
    );

    let someone = User::of(&section(&id, json!({})));
    let clouds = format!(
        "clouds:\n  tests:\n    auth:\n      auth_url: {url}\n      username: {}\n      \
         project_name: {}\n    region_name: {}\n",
        user.name,
        user.project,
        Glance::REGION
    );
    let secure = format!(
        "clouds:\n  tests:\n    auth:\n      password: {}\n",
        user.password
    );
    let folder = someone.home().path("clouds");
    std::fs::create_dir(&folder).expect("the home is writable");
    std::fs::write(folder.join("clouds.yaml"), clouds).expect("the home is writable");
    std::fs::write(folder.join("secure.yaml"), secure).expect("the home is writable");
    let (clouds, secure) = (folder.join("clouds.yaml"), folder.join("secure.yaml"));
    let text = |path: &std::path::Path| path.to_str().expect("the home is UTF-8").to_owned();
    let (clouds, secure) = (text(&clouds), text(&secure));
    let named = [
        ("OS_CLIENT_CONFIG_FILE", clouds.as_str()),
        ("OS_CLIENT_SECURE_FILE", secure.as_str()),
        ("OS_CLOUD", "tests"),
    ];
    let whole = by_command(&someone, &named);
    assert_eq!(
        std::fs::read(pulled_path(&whole)).expect("it is there"),
        b"\xff\x00as openstack does"
    );
    glance.delete(&id);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_images_of_a_name_the_newest_active_one_is_pulled() {
    let glance = services::glance().shared();
    let name = "guest: of several, \"quoted\"";
    // More than one list has.
    let mut ids: Vec<String> = (0..6).map(|_| glance.create(name, &json!({}))).collect();
    let first = glance.upload(name, b"\xff\x00first");
    let second = upload_after(&glance, &first, name, b"\xff\x00second");
    // What is touched is no newer for it.
    let touched = glance.touch(&first);
    assert!(touched["updated_at"].as_str() >= glance.show(&second)["created_at"].as_str());
    let desk = Desk::new();
    let wanted = usual(&glance, name);
    assert_eq!(content(&desk, &wanted).await, b"\xff\x00second");
    // The same again comes from the store; a withdrawn one is not the newest any more.
    assert_eq!(content(&desk, &wanted).await, b"\xff\x00second");
    glance.deactivate(&second);
    assert_eq!(content(&desk, &wanted).await, b"\xff\x00first");
    // None is active any more: what was fetched serves, and who has fetched none is told.
    glance.delete(&first);
    let older = content(&desk, &wanted).await;
    assert_eq!(older, b"\xff\x00first", "what was given last");
    refused(
        &wanted,
        ErrorKind::NotFound,
        &["the image is deactivated", "administrator"],
    )
    .await;
    ids.push(second);
    for id in ids {
        glance.delete(&id);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_had_is_told_with_what_to_do() {
    let glance = services::glance().shared();
    let queued = glance.create("without data", &json!({}));
    for name in ["without data", &queued] {
        refused(
            &usual(&glance, name),
            ErrorKind::NotFound,
            &["no data yet", "upload"],
        )
        .await;
    }
    glance.delete(&queued);
    let withdrawn = glance.upload("withdrawn image", b"\xff\x00withdrawn");
    glance.deactivate(&withdrawn);
    refused(
        &usual(&glance, &withdrawn),
        ErrorKind::NotFound,
        &["deactivated", "administrator"],
    )
    .await;
    refused(
        &usual(&glance, "without drawn image"),
        ErrorKind::NotFound,
        &["no image with the name"],
    )
    .await;
    glance.delete(&withdrawn);
    refused(
        &usual(&glance, &withdrawn),
        ErrorKind::NotFound,
        &["no image with the name or id"],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_glance_sends_is_compared_with_its_strong_hash() {
    let glance = services::glance().shared();
    let whole = glance.upload("a flipped byte", &[3; 5000]);
    glance.flip(&whole, 4321);
    refused(&usual(&glance, &whole), ErrorKind::Guest, &["sha512"]).await;
    glance.delete(&whole);
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
        &[
            "refuses the user `tester`",
            "a role in the project",
            "`admin`",
        ],
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

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_between_two_requests_is_renewed() {
    let glance = services::glance().alone();
    let first = glance.upload("after the token", b"\xff\x00first");
    let store = tempfile::tempdir().expect("a temporary folder");
    let mut wanted = usual(&glance, "after the token");
    wanted["provider_configuration"]["cache"] = json!({ "folder": store.path().join("store") });
    let wanted = Configuration::from_json(wanted);
    let mut registries = Registries::new();
    see_image_providers::register(&mut registries).expect("no name is there twice");
    let source = registries
        .images
        .prepare(&wanted)
        .expect("the section is right");
    // Tokens that are given out now live for seconds, those before and after as long as ever.
    glance.tokens_live(6);
    let before = image(&source).await;
    let token = glance.token(Glance::USER);
    glance.tokens_live(0);
    assert_eq!(before.expect("a new token is taken"), b"\xff\x00first");
    // Whoever logged in before has a token that is at its end by then, too.
    until("the end of a token", Duration::from_secs(60), || {
        !glance.takes(&token)
    });
    glance.delete(&first);
    let second = glance.upload("after the token", b"\xff\x00second");
    let after = image(&source).await;
    assert_eq!(after.expect("the token is renewed"), b"\xff\x00second");
    glance.delete(&second);
}

/// What a provider gives that is asked more than once.
async fn image(source: &ImageSource) -> Result<Vec<u8>, Error> {
    let home = tempfile::tempdir().expect("a temporary folder");
    let ledger = Ledger::open(home.path().join("state")).await?;
    let record = ledger.begin(Identifier::random(), "images").await?;
    let stop = Stop::new();
    let token = stop.token();
    let image = source.image(&ImageRequest::new(&record, &token)).await?;
    Ok(std::fs::read(image.path).expect("an image can be read"))
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_verified_and_their_authority_can_be_named() {
    let glance = services::glance().shared();
    let id = glance.upload("over https", b"\xff\x00encrypted");
    let mut login = by_password(&glance);
    login["auth_url"] = json!(glance.secure_identity_url());
    let with = |session: Value| {
        let configuration =
            json!({ "os_auth": login, "interface": "internal", "session": session });
        section(&id, configuration)
    };
    let right = with(json!({ "cacert": glance.authority().file() }));
    assert_eq!(pulled(&right).await, b"\xff\x00encrypted");
    // python-see verified nothing where no authority was named.
    let parts = ["certificate", "`cacert`"];
    refused(&with(json!({})), ErrorKind::Unavailable, &parts).await;
    let nginx = services::Nginx::start();
    let wrong = with(json!({ "cacert": nginx.authority().file() }));
    refused(&wrong, ErrorKind::Unavailable, &parts).await;
    assert_eq!(
        pulled(&with(json!({ "insecure": true }))).await,
        b"\xff\x00encrypted"
    );
    glance.delete(&id);
}

#[tokio::test(flavor = "multi_thread")]
async fn python_sees_path_gets_the_image_and_a_left_over_part_is_not_in_the_way() {
    let glance = services::glance().shared();
    let id = glance.upload("into a folder", b"\xff\x00delivered");
    let desk = Desk::new();
    let folder = desk.store().with_file_name("images");
    std::fs::create_dir(&folder).expect("the home is writable");
    std::fs::write(folder.join(format!("{id}.part")), "left over").expect("the home is writable");
    let mut wanted = section(
        "into a folder",
        json!({ "target_path": folder, "glance_url": glance.image_url(), "os_auth": by_password(&glance) }),
    );
    wanted["provider"] = json!("see.image_providers.GlanceProvider");
    let image = desk
        .pull(&wanted)
        .await
        .unwrap_or_else(|error| panic!("{error:?}"));
    assert_eq!(image.path, folder.join(&id));
    assert_eq!(
        std::fs::read(&image.path).expect("an image can be read"),
        b"\xff\x00delivered"
    );
    glance.delete(&id);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_image_of_the_name_replaces_the_file_at_python_sees_path_at_one_stroke() {
    let glance = services::glance().shared();
    let mut dice = Dice::of("at one stroke");
    let (old, new) = (dice.bytes(8 << 20), dice.bytes((8 << 20) + 4097));
    let name = "a file at a path";
    let first = glance.upload(name, &old);
    let desk = Desk::new();
    let folder = desk.store().with_file_name("images");
    std::fs::create_dir(&folder).expect("the home is writable");
    let file = folder.join("guest.img");
    std::fs::write(&file, "what was there before").expect("the home is writable");
    let mut wanted = section(
        name,
        json!({ "path": file, "os_auth": by_password(&glance) }),
    );
    wanted["provider"] = json!("see.image_providers.GlanceProvider");
    let pulled = content(&desk, &wanted).await;
    assert!(pulled == old && std::fs::read(&file).expect("it is there") == old);

    let second = upload_after(&glance, &first, name, &new);
    let mut held = std::fs::File::open(&file).expect("it is there");
    let is_over = Arc::new(AtomicBool::new(false));
    let looking = tokio::task::spawn_blocking({
        let (is_over, file) = (Arc::clone(&is_over), file.clone());
        let whole = [old.clone(), new.clone()];
        move || {
            while !is_over.load(Ordering::Relaxed) {
                let found = std::fs::read(&file).expect("there is always one");
                assert!(whole.contains(&found), "{} bytes of it", found.len());
            }
        }
    });
    let pulled = content(&desk, &wanted).await;
    is_over.store(true, Ordering::Relaxed);
    looking.await.expect("the file is whole at every moment");
    assert!(pulled == new && std::fs::read(&file).expect("it is there") == new);
    // Who has the old one open keeps it.
    let mut kept = Vec::new();
    held.read_to_end(&mut kept).expect("it can be read");
    assert!(kept == old, "{} bytes of another one", kept.len());
    let names = std::fs::read_dir(&folder).expect("it is there").count();
    assert_eq!(names, 1, "nothing is left beside it");
    for id in [first, second] {
        glance.delete(&id);
    }
}

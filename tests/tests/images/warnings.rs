//! A person is told without `-v` where others on the way can read what says who asks.

use see_tests::services::{self, Glance, Nginx, Swift};
use see_tests::{finish, spawn};
use serde_json::{Value, json};

use crate::support::{PULL, User};

/// What this host is called, beside what every host calls itself.
const NAMES: &str = "files.test cloud.test images.test s3.test";

/// Pulls an image, and fails unless just these are told of, each with its server.
fn assert_told(section: &Value, expected: &[(&str, &str)]) {
    let outcome = finish(spawn(&mut User::of(section).pull_knowing(NAMES)), PULL);
    assert_eq!(outcome.code, Some(0), "{section}: {outcome:#?}");
    let told = outcome.stderr.lines();
    let told: Vec<&str> = told
        .filter(|line| line.contains("can be read by others on the way"))
        .collect();
    assert_eq!(told.len(), expected.len(), "{section}: {outcome:#?}");
    for (line, (what, server)) in told.iter().zip(expected) {
        let what = format!("{what} for this server");
        assert!(line.contains(&what), "{what}: {line}");
        assert!(line.contains(server), "{server}: {line}");
    }
}

/// An address under another name of this host.
fn named(url: &str, name: &str) -> String {
    assert!(url.contains("127.0.0.1"), "{url}");
    url.replace("127.0.0.1", name)
}

#[test]
fn who_asks_a_web_server_without_https_is_told_of_those_who_can_read_along() {
    let nginx = Nginx::start();
    nginx.put("guest.img", &[7; 4096]);
    let (name, password) = Nginx::READER;
    let section = |url: &str| {
        json!({ "provider": "http", "uri": url, "provider_configuration": {
            "auth": { "username": name, "password": password } } })
    };
    let near = nginx.url("private/guest.img");
    assert_told(&section(&near), &[]);
    let far = named(&near, "files.test");
    let server = named(nginx.url("").trim_end_matches('/'), "files.test");
    assert_told(&section(&far), &[("the credentials", &server)]);
    // Nobody in particular has nothing to hide.
    let public = named(&nginx.url("guest.img"), "files.test");
    assert_told(&json!({ "provider": "http", "uri": public }), &[]);
}

#[test]
fn an_image_without_https_and_without_a_digest_is_told_of_those_who_can_change_it() {
    let nginx = Nginx::start();
    nginx.put("guest.img", &[7; 4096]);
    let far = named(&nginx.url("guest.img"), "files.test");
    let sum = crate::digests::sum(&[7; 4096]);
    for (url, configuration, is_told) in [
        (&far, json!({}), true),
        (&far, json!({ "checksum": sum }), false),
        (&nginx.url("guest.img"), json!({}), false),
    ] {
        let section =
            json!({ "provider": "http", "uri": url, "provider_configuration": configuration });
        let outcome = finish(spawn(&mut User::of(&section).pull_knowing(NAMES)), PULL);
        assert_eq!(outcome.code, Some(0), "{section}: {outcome:#?}");
        let found = outcome
            .stderr
            .contains("can be changed by others on the way");
        assert_eq!(found, is_told, "{section}: {outcome:#?}");
    }
}

#[test]
fn a_login_and_a_token_that_go_without_https_are_told_each() {
    let glance = services::glance().shared();
    let id = glance.upload("in the open", &[7; 4096]);
    let user = Glance::USER;
    let section = |keystone: &str, glance_url: &str| {
        json!({ "provider": "glance", "name": id, "provider_configuration": {
            "endpoint": glance_url, "session": { "cacert": glance.authority().file() },
            "os_auth": { "auth_url": keystone, "username": user.name, "password": user.password,
                "project_name": user.project } } })
    };
    let (keystone, images) = (glance.identity_url(), glance.image_url());
    let (secure_keystone, secure_images) =
        (glance.secure_identity_url(), glance.secure_image_url());
    let far_keystone = named(&keystone, "cloud.test");
    let far_images = named(&images, "images.test");
    let login = ("the login", far_keystone.trim_end_matches("/v3"));
    let token = ("the token", far_images.as_str());
    for (keystone, images, expected) in [
        (&keystone, &images, &[][..]),
        (&secure_keystone, &secure_images, &[]),
        (&secure_keystone, &far_images, &[token]),
        (&far_keystone, &secure_images, &[login]),
        (&far_keystone, &far_images, &[login, token]),
    ] {
        assert_told(&section(keystone, images), expected);
    }
    glance.delete(&id);
}

#[test]
fn signatures_that_go_to_a_bucket_without_https_are_told() {
    let swift = services::swift().shared();
    swift.bucket("warnings");
    swift.put("warnings", "guest.img", &[7; 4096]);
    let section = |endpoint: &str| {
        json!({ "provider": "s3", "name": "guest.img", "provider_configuration": {
            "bucket_name": "warnings", "tls": { "cacert": swift.authority().file() },
            "auth": { "endpoint_url": endpoint, "region_name": Swift::REGION,
                "aws_access_key_id": Swift::KEY, "aws_secret_access_key": Swift::SECRET } } })
    };
    assert_told(&section(&swift.endpoint()), &[]);
    assert_told(&section(&swift.secure_endpoint()), &[]);
    let far = named(&swift.endpoint(), "s3.test");
    assert_told(&section(&far), &[("signatures and session tokens", &far)]);
}

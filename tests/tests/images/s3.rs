//! Images in a bucket: the provider `s3` and a real Swift behind its S3 interface.

use std::path::Path;

use see_core::{Error, ErrorKind};
use see_tests::services::{self, Swift};
use see_tests::{finish, spawn};
use serde_json::{Value, json};

use crate::digests::{md5, sum};
use crate::support::{Desk, PULL, User, pulled_path};

/// Bytes that no reader takes for another format than raw.
fn content(of: u8, size: usize) -> Vec<u8> {
    let mut bytes = vec![of; size];
    bytes[..4].copy_from_slice(&[1, 2, 3, of]);
    bytes
}

fn auth(swift: &Swift) -> Value {
    json!({
        "endpoint_url": swift.endpoint(), "region_name": Swift::REGION,
        "aws_access_key_id": Swift::KEY, "aws_secret_access_key": Swift::SECRET,
    })
}

fn section(swift: &Swift, bucket: &str, key: &str) -> Value {
    json!({ "provider": "s3", "name": key, "provider_configuration": {
        "bucket_name": bucket, "auth": auth(swift),
    } })
}

fn with(mut section: Value, key: &str, value: Value) -> Value {
    section["provider_configuration"][key] = value;
    section
}

fn with_auth(mut section: Value, key: &str, value: Value) -> Value {
    section["provider_configuration"]["auth"][key] = value;
    section
}

async fn bytes(desk: &Desk, section: &Value) -> Vec<u8> {
    let got = desk.pull(section).await;
    let got = got.unwrap_or_else(|error| panic!("{}", error.chain()));
    std::fs::read(got.path).unwrap()
}

fn says(error: &Error, kind: ErrorKind, parts: &[&str]) {
    let line = error.chain();
    assert_eq!(error.kind(), kind, "{line}");
    assert!(error.advice_text().is_some(), "what to do? {line}");
    for part in parts {
        assert!(line.contains(part), "{part:?} in {line}");
    }
    assert!(!line.contains(Swift::SECRET), "{line}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the target folder is UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_uploaded_whole_is_taken_and_fetched_once() {
    let swift = services::swift().shared();
    let desk = Desk::new();
    swift.bucket("whole");
    let image = content(1, 70_000);
    let fetched = || {
        let log = swift.log();
        let of_key = |line: &&str| line.contains("GET /whole/guest.img");
        log.lines().filter(of_key).count()
    };
    // The log has what earlier test programs asked for, too.
    let before = fetched();
    // Each of these breaks a signature that is not made with care.
    for (key, encoded) in [
        ("guest.img", "guest.img"),
        (
            "a b+c/ü~(1)='x'.img",
            "a%20b%2Bc/%C3%BC~%281%29%3D%27x%27.img",
        ),
    ] {
        swift.put("whole", encoded, &image);
        for _ in 0..2 {
            assert_eq!(
                bytes(&desk, &section(&swift, "whole", key)).await,
                image,
                "{key}"
            );
        }
    }
    assert_eq!(fetched() - before, 1, "{}", swift.log());
    let pinned = section(&swift, "whole", "guest.img");
    desk.pull(&with(pinned.clone(), "checksum", json!(sum(&image))))
        .await
        .unwrap();
    let other = format!("sha256:{}", "0".repeat(64));
    let error = desk
        .pull(&with(pinned, "checksum", json!(other)))
        .await
        .unwrap_err();
    assert!(error.chain().contains(&sum(&image)), "{}", error.chain());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_uploaded_in_parts_is_taken() {
    let swift = services::swift().shared();
    let desk = Desk::new();
    swift.bucket("parts");
    let parts = [content(1, 5 << 20), content(2, 1000)];
    let tag = swift.put_parts("parts", "guest.img", &[&parts[0], &parts[1]]);
    assert!(tag.ends_with("-2"), "{tag}");
    assert_eq!(
        bytes(&desk, &section(&swift, "parts", "guest.img")).await,
        parts.concat()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_version_is_taken_unless_another_one_is_pinned() {
    let swift = services::swift().shared();
    let desk = Desk::new();
    swift.bucket("versions");
    swift.keep_versions("versions");
    let [first, second] = [content(1, 5000), content(2, 6000)];
    let old = swift.put("versions", "guest.img", &first).unwrap();
    swift.put("versions", "guest.img.old", &content(9, 5000));
    let image = section(&swift, "versions", "guest.img");
    assert_eq!(bytes(&desk, &image).await, first);
    swift.put("versions", "guest.img", &second);
    assert_eq!(bytes(&desk, &image).await, second);
    let pinned = with(image.clone(), "version_id", json!(old));
    assert_eq!(bytes(&desk, &pinned).await, first);
    let missing = with(image.clone(), "version_id", json!("1234567890.00000"));
    let error = desk.pull(&missing).await.unwrap_err();
    says(
        &error,
        ErrorKind::NotFound,
        &["no version `1234567890.00000`", "`version_id`"],
    );

    swift.delete("versions", "guest.img");
    let fresh = Desk::new();
    let error = fresh.pull(&image).await.unwrap_err();
    says(
        &error,
        ErrorKind::NotFound,
        &["was deleted", "`include_deleted`"],
    );
    let last = with(image.clone(), "include_deleted", json!(true));
    assert_eq!(bytes(&fresh, &last).await, second);
    assert_eq!(bytes(&fresh, &pinned).await, first);
    let never = with(
        section(&swift, "versions", "guest"),
        "include_deleted",
        json!(true),
    );
    let error = fresh.pull(&never).await.unwrap_err();
    says(&error, ErrorKind::NotFound, &["no such object"]);
}

#[test]
fn a_bucket_that_is_a_part_of_the_hosts_name_is_found() {
    let swift = services::swift().shared();
    swift.bucket("as-a-host");
    swift.keep_versions("as-a-host");
    let image = content(1, 5000);
    swift.put("as-a-host", "a%20b%2Bc/guest.img", &image);
    let section = section(&swift, "as-a-host", "a b+c/guest.img");
    let endpoint = swift.endpoint().replace("127.0.0.1", Swift::DOMAIN);
    let section = with_auth(section, "endpoint_url", json!(endpoint));
    // The server itself has no name, so that nothing is asked for in another way.
    let name = format!("as-a-host.{}", Swift::DOMAIN);
    let pull = |section: &Value| {
        let user = User::of(section);
        let outcome = finish(spawn(&mut user.pull_knowing(&name)), PULL);
        assert_eq!(outcome.code, Some(0), "{outcome:#?}");
        std::fs::read(pulled_path(&outcome)).unwrap()
    };
    let section = with(section, "addressing_style", json!("virtual"));
    assert!(pull(&section) == image);
    // Its versions are listed in the same way.
    swift.delete("as-a-host", "a%20b%2Bc/guest.img");
    let last = with(section, "include_deleted", json!(true));
    assert!(pull(&last) == image);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_says_what_to_do() {
    let swift = services::swift().shared();
    let desk = Desk::new();
    swift.bucket("refusals");
    swift.put("refusals", "guest.img", &content(1, 5000));
    let image = section(&swift, "refusals", "guest.img");
    let wrong = with_auth(image.clone(), "aws_secret_access_key", json!("wrong"));
    let error = desk.pull(&wrong).await.unwrap_err();
    let parts = ["signature", "the configuration", "`aws_secret_access_key`"];
    says(&error, ErrorKind::PermissionDenied, &parts);
    let nobody = with_auth(image.clone(), "aws_access_key_id", json!("nobody"));
    let error = desk.pull(&nobody).await.unwrap_err();
    says(&error, ErrorKind::PermissionDenied, &["signature"]);
    let error = desk
        .pull(&section(&swift, "nowhere", "guest.img"))
        .await
        .unwrap_err();
    says(
        &error,
        ErrorKind::NotFound,
        &["no such bucket", "`bucket_name`"],
    );
    let error = desk
        .pull(&section(&swift, "refusals", "guset.img"))
        .await
        .unwrap_err();
    says(
        &error,
        ErrorKind::NotFound,
        &["no such object", "whole key"],
    );
    let mut public = with(image.clone(), "anonymous", json!(true));
    public["provider_configuration"]["auth"] = json!({ "endpoint_url": swift.endpoint() });
    let error = desk.pull(&public).await.unwrap_err();
    says(
        &error,
        ErrorKind::PermissionDenied,
        &["leave out `anonymous`"],
    );
    let error = desk.source(&section(&swift, "refusals", "a/../../other/guest.img"));
    says(&error.unwrap_err(), ErrorKind::Configuration, &["`..`"]);
    let half = json!({ "aws_access_key_id": "half", "endpoint_url": swift.endpoint() });
    let error = desk.source(&with(image, "auth", half)).unwrap_err();
    says(
        &error,
        ErrorKind::Configuration,
        &["`aws_secret_access_key`"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_region_that_the_server_names_is_taken() {
    let swift = services::swift().shared();
    let desk = Desk::new();
    swift.bucket("regions");
    let image = content(1, 5000);
    swift.put("regions", "guest.img", &image);
    let elsewhere = section(&swift, "regions", "guest.img");
    let elsewhere = with_auth(elsewhere, "region_name", json!("eu-west-1"));
    assert_eq!(bytes(&desk, &elsewhere).await, image);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_of_python_see_runs_unchanged() {
    let swift = services::swift().shared();
    let desk = Desk::new();
    swift.bucket("python-see");
    let [first, second] = [content(1, 5000), content(2, 6000)];
    swift.put("python-see", "guest.img", &first);
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("images");
    std::fs::create_dir(&folder).unwrap();
    let into = |path: &Path, key: &str| {
        let mut configuration = json!({ "bucket_name": "python-see", "auth": {
            "aws_access_key_id": Swift::KEY, "aws_secret_access_key": Swift::SECRET,
            "endpoint_url": swift.endpoint(), "use_ssl": false, "verify": false,
        } });
        configuration[key] = json!(text(path));
        json!({
            "provider": "see.image_providers.S3Provider", "name": "guest.img",
            "provider_configuration": configuration,
        })
    };
    // What a python-see that was killed left is in nobody's way.
    let kept = folder.join(md5(&first));
    std::fs::write(folder.join(format!("{}.part", md5(&first))), "broken").unwrap();
    for key in ["path", "target_path"] {
        let got = desk.pull(&into(&folder, key)).await.unwrap();
        assert_eq!(got.path, kept, "a folder gets it under its entity tag");
        assert_eq!(std::fs::read(got.path).unwrap(), first);
    }
    // A file is replaced by a newer object, whatever the zone of this host's clock.
    let file = home.path().join("guest.img");
    std::fs::write(&file, "older").unwrap();
    let got = desk.pull(&into(&file, "path")).await.unwrap();
    assert_eq!(
        (got.path.as_path(), std::fs::read(&file).unwrap()),
        (file.as_path(), first)
    );
    swift.put("python-see", "guest.img", &second);
    desk.pull(&into(&file, "path")).await.unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), second);
}

#[test]
fn credentials_come_from_the_aws_environment() {
    let swift = services::swift().shared();
    swift.bucket("environment");
    let image = content(1, 5000);
    swift.put("environment", "guest.img", &image);
    let section = json!({ "provider": "s3", "name": "guest.img", "provider_configuration": {
        "bucket_name": "environment",
    } });
    let home = tempfile::tempdir().unwrap();
    let [config, keys] = ["config", "credentials"].map(|name| home.path().join(name));
    let [region, key, secret] = [Swift::REGION, Swift::KEY, Swift::SECRET];
    let endpoint = swift.endpoint();
    let profile = format!("[profile lab]\nregion = {region}\nendpoint_url = {endpoint}\n");
    std::fs::write(&config, profile).unwrap();
    let pair = format!("[lab]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n");
    std::fs::write(&keys, pair).unwrap();
    let pull = |variables: &[(&str, &str)]| {
        let user = User::of(&section);
        let mut command = user.pull();
        for name in [
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "AWS_PROFILE",
            "AWS_REGION",
        ] {
            command.env_remove(name);
        }
        command
            .env("AWS_CONFIG_FILE", &config)
            .env("AWS_SHARED_CREDENTIALS_FILE", &keys)
            .envs(variables.iter().copied());
        let outcome = finish(spawn(&mut command), PULL);
        let everything = format!("{outcome:?}");
        assert!(!everything.contains(Swift::SECRET), "{everything}");
        // The store goes with the user.
        (outcome.code == Some(0)).then(|| std::fs::read(pulled_path(&outcome)).unwrap())
    };
    let own = [
        ("AWS_ACCESS_KEY_ID", key),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("AWS_REGION", region),
        ("AWS_ENDPOINT_URL_S3", endpoint.as_str()),
    ];
    assert_eq!(pull(&own).as_ref(), Some(&image), "by variables");
    assert_eq!(
        pull(&[("AWS_PROFILE", "lab")]).as_ref(),
        Some(&image),
        "by a profile"
    );
    assert_eq!(pull(&own[..1]), None, "by half a credential");
    assert_eq!(
        pull(&[("AWS_PROFILE", "missing")]),
        None,
        "by a profile that is not there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_has_to_be_who_the_configuration_or_the_aws_environment_trusts() {
    let swift = services::swift().shared();
    swift.bucket("encrypted");
    let image = content(9, 5_000);
    swift.put("encrypted", "guest.img", &image);
    let plain = section(&swift, "encrypted", "guest.img");
    let secure = with_auth(plain, "endpoint_url", json!(swift.secure_endpoint()));
    let nginx = services::Nginx::start();
    let (right, wrong) = (swift.authority().file(), nginx.authority().file());

    let trusting = with_auth(secure.clone(), "verify", json!(right));
    assert_eq!(bytes(&Desk::new(), &trusting).await, image);
    let trusting = with(secure.clone(), "tls", json!({ "cacert": right }));
    assert_eq!(bytes(&Desk::new(), &trusting).await, image);
    let careless = with_auth(secure.clone(), "verify", json!(false));
    assert_eq!(bytes(&Desk::new(), &careless).await, image);
    for section in [
        secure.clone(),
        with_auth(secure.clone(), "verify", json!(wrong)),
        with(secure.clone(), "tls", json!({ "cacert": wrong })),
    ] {
        let error = Desk::new().pull(&section).await.unwrap_err();
        says(&error, ErrorKind::Unavailable, &["certificate", "cacert"]);
    }

    // The environment's word, and that of the profile.
    let by_environment = |name: &str, value: &Path, section: &Value| {
        let user = User::of(section);
        let mut pull = user.pull();
        // Who runs the tests may have one.
        pull.env_remove("AWS_CA_BUNDLE").env(name, value);
        let outcome = finish(spawn(&mut pull), PULL);
        (user, outcome)
    };
    let (_user, outcome) = by_environment("AWS_CA_BUNDLE", &right, &secure);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let (_user, outcome) = by_environment("AWS_CA_BUNDLE", &wrong, &secure);
    assert_ne!(outcome.code, Some(0), "{outcome:#?}");
    assert!(outcome.stderr.contains("certificate"), "{outcome:#?}");
    // What the configuration says is worth more.
    let (_user, outcome) = by_environment("AWS_CA_BUNDLE", &wrong, &trusting);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
    let home = tempfile::tempdir().expect("a temporary folder");
    let profile = home.path().join("config");
    let text = format!("[default]\nca_bundle = {}\n", text(&right));
    std::fs::write(&profile, text).expect("the folder is writable");
    let (_user, outcome) = by_environment("AWS_CONFIG_FILE", &profile, &secure);
    assert_eq!(outcome.code, Some(0), "{outcome:#?}");
}

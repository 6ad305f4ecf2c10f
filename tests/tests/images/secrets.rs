//! Passwords, keys and tokens stand in no output, no log, no process list and no file of ours, whether the image comes
//! or not.

use std::path::Path;
use std::time::Duration;

use see_tests::services::{self, Glance, Nginx, Swift};
use see_tests::{finish, spawn};
use serde_json::{Value, json};

use crate::support::*;

/// How all tokens of Keystone begin.
const TOKEN: &str = "gAAAA";

/// Pulls with everything logged that can be, and fails where one of the secrets is seen anywhere.
fn assert_untold(section: &Value, succeeds: bool, secrets: &[&str]) {
    let user = User::of(section);
    let mut pull = user.pull();
    pull.arg("-vv").env("SEE_LOG", "trace");
    let child = spawn(&mut pull);
    let mut lines = Vec::new();
    let process = format!("/proc/{}/cmdline", child.id());
    let watching = std::thread::spawn(move || {
        // Until the process is gone, or is one that ended.
        while let Ok(line) = std::fs::read(&process) {
            if line.is_empty() {
                break;
            }
            if !lines.contains(&line) {
                lines.push(line);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        lines
    });
    let outcome = finish(child, PULL);
    assert_eq!(outcome.code == Some(0), succeeds, "{outcome:#?}");
    let lines = watching.join().expect("it does not panic");
    let lines: Vec<u8> = lines.concat();
    let told = [
        ("the output", outcome.stdout.into_bytes()),
        ("the log", outcome.stderr.into_bytes()),
        ("the process list", lines),
        ("the store", contents(&user.store())),
        ("the ledger", contents(&user.home().path("state"))),
    ];
    for (place, text) in told {
        for secret in secrets {
            let seen = text
                .windows(secret.len())
                .position(|part| part == secret.as_bytes());
            if let Some(begin) = seen {
                let around = &text[begin.saturating_sub(120)..(begin + 120).min(text.len())];
                let around = String::from_utf8_lossy(around);
                panic!("`{secret}` stands in {place} of {section}: {around}");
            }
        }
    }
}

/// All files of a folder, with their names.
fn contents(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            all.extend_from_slice(entry.file_name().as_encoded_bytes());
            all.push(b'\n');
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else {
                all.extend(std::fs::read(entry.path()).expect("it is ours"));
            }
        }
    }
    all
}

#[test]
fn the_password_and_the_tokens_of_keystone_are_told_nowhere() {
    let glance = services::glance().shared();
    let id = glance.upload("an image behind a password", &[7; 4096]);
    let user = Glance::USER;
    let section = |password: &str, auth_url: String| {
        json!({ "provider": "glance", "name": id, "provider_configuration": { "os_auth": {
            "auth_url": auth_url, "username": user.name, "password": password,
            "project_name": user.project, "user_domain_name": "Default",
            "project_domain_name": "Default" } } })
    };
    let right = section(user.password, glance.identity_url());
    assert_untold(&right, true, &[user.password, TOKEN]);
    let wrong = "a-wrong-secret-of-keystone";
    let refused = section(wrong, glance.identity_url());
    assert_untold(&refused, false, &[wrong, TOKEN]);
    // Its certificate is not known.
    let distrusted = section(user.password, glance.secure_identity_url());
    assert_untold(&distrusted, false, &[user.password, TOKEN]);
    glance.delete(&id);
}

#[test]
fn the_secret_key_of_s3_is_told_nowhere() {
    let swift = services::swift().shared();
    swift.bucket("secrets");
    swift.put("secrets", "guest.img", &[7; 4096]);
    let section = |secret: &str| {
        json!({ "provider": "s3", "name": "guest.img", "provider_configuration": {
            "bucket_name": "secrets", "auth": { "endpoint_url": swift.endpoint(),
                "region_name": Swift::REGION, "aws_access_key_id": Swift::KEY,
                "aws_secret_access_key": secret } } })
    };
    assert_untold(&section(Swift::SECRET), true, &[Swift::SECRET]);
    let wrong = "a-wrong-secret-of-s3";
    assert_untold(&section(wrong), false, &[wrong]);
}

#[test]
fn the_password_of_a_web_server_is_told_nowhere() {
    let nginx = Nginx::start();
    nginx.put("guest.img", &[7; 4096]);
    let (name, password) = Nginx::READER;
    let plain = nginx.url("private/guest.img");
    let with = |password: &str| plain.replace("//", &format!("//{name}:{password}@"));
    // As it stands in a header.
    let encoded = "cmVhZGVyOnJlYWRlci1zZWNyZXQ";
    let section = json!({ "provider": "http", "uri": with(password) });
    assert_untold(&section, true, &[password, encoded]);
    let section = json!({ "provider": "http", "uri": plain, "provider_configuration": {
        "auth": { "username": name, "password": password } } });
    assert_untold(&section, true, &[password, encoded]);
    let wrong = "a-wrong-secret";
    let section = json!({ "provider": "http", "uri": with(wrong) });
    assert_untold(&section, false, &[wrong]);
}

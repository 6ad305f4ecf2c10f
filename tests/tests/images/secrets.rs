//! Passwords, keys and tokens stand in no output, no log, no process list and no file of ours, whether the image comes
//! or not.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use see_tests::services::{self, Glance, Nginx, Swift};
use see_tests::{Home, Onlooker, Outcome, Sight, finish, guest, spawn};
use serde_json::{Value, json};

use crate::support::*;

/// How all tokens of Keystone begin.
const TOKEN: &str = "gAAAA";
/// nginx's user and password, as they stand in a header.
const ENCODED: &str = "cmVhZGVyOnJlYWRlci1zZWNyZXQ";

/// Pulls with everything logged that can be, and fails where one of the secrets is seen anywhere.
fn assert_untold(section: &Value, succeeds: bool, secrets: &[&str]) {
    assert_untold_around(section, &[], succeeds, secrets);
}

/// The same with further variables in the environment, and none of OpenStack's but these.
fn assert_untold_around(
    section: &Value,
    variables: &[(&str, &str)],
    succeeds: bool,
    secrets: &[&str],
) {
    let user = User::of(section);
    let mut pull = user.pull();
    pull.arg("-vvv").env("SEE_LOG", "trace");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("OS_")) {
            pull.env_remove(name);
        }
    }
    pull.envs(variables.iter().copied());
    let ended = told_by(pull, user.home(), PULL);
    assert_eq!(ended.outcome.code == Some(0), succeeds, "{ended:#?}");
    ended.assert_free(&format!("{section}"), secrets);
}

/// Runs a machine with this image to its good end, with everything logged that can be. The secret is in the environment,
/// where the run file takes it from; nobody but `seectl` gets it, and none of the secrets is seen anywhere.
fn assert_untold_by_a_run(section: &Value, secret: &str, others: &[&str]) {
    let home = Home::new();
    // Whether its guest boots is of no account.
    let run = json!({
        "version": 1,
        "context": { "disk": { "image": section } },
        "hooks": { "configuration": { "results_folder": "results" }, "hooks": [
            { "name": "screen", "configuration": { "screenshot_on_event": ["post_poweron"] } }] },
        "protocol": [{ "step": "poweron" }, { "step": "poweroff" }],
    });
    let file = home.write("run.json", run.to_string());
    let mut run = home.seectl();
    run.args(["run", "--output", "json", "-vvv"])
        .arg(&file)
        .env("TMPDIR", home.runtime())
        .env("SEE_IMAGE_STORE", home.path("store"))
        .env("SEE_LOG", "trace")
        .env(VARIABLE, secret);
    let ended = told_by(run, &home, PULL);
    let result = ended.outcome.result();
    assert_eq!(ended.outcome.code, Some(0), "{result:#?}");
    let emulator = |sight: &Sight| sight.program.to_string_lossy().contains("qemu-system");
    assert!(ended.seen.iter().any(emulator), "{:#?}", ended.seen);
    assert!(home.path("results").exists(), "{:#?}", ended.outcome);
    let secrets: Vec<&str> = [secret].iter().chain(others).copied().collect();
    ended.assert_free(&format!("a run with {section}"), &secrets);
}

/// The variable that holds a secret.
const VARIABLE: &str = "SECRET_OF_A_TEST";

/// What one `seectl` told, and to whom.
#[derive(Debug)]
struct Told {
    outcome: Outcome,
    seen: BTreeSet<Sight>,
    files: Vec<u8>,
}

/// Runs it to its end.
fn told_by(mut command: Command, home: &Home, limit: Duration) -> Told {
    let child = spawn(&mut command);
    let onlooker = Onlooker::of(child.id());
    let outcome = finish(child, limit);
    let seen = onlooker.end();
    assert!(!seen.is_empty(), "nobody was seen: {outcome:#?}");
    // What the user wrote is no telling.
    std::fs::remove_file(home.path("run.json")).expect("the home is writable");
    Told {
        files: contents(home.folder()),
        outcome,
        seen,
    }
}

impl Told {
    /// Fails where a secret was told.
    fn assert_free(&self, what: &str, secrets: &[&str]) {
        let mut places: Vec<(String, &[u8])> = vec![
            ("the output".into(), self.outcome.stdout.as_bytes()),
            ("the log".into(), self.outcome.stderr.as_bytes()),
            ("the files".into(), &self.files),
        ];
        for sight in &self.seen {
            let of = |what: &str| format!("the {what} of {}", sight.program.display());
            places.push((of("arguments"), &sight.arguments));
            // libvirt's embedded driver asks it about the host, and gives it all that the process has.
            if !sight.program.ends_with("dmidecode") {
                places.push((of("environment"), &sight.environment));
            }
        }
        for (place, text) in places {
            for secret in secrets {
                let seen = text
                    .windows(secret.len())
                    .position(|part| part == secret.as_bytes());
                if let Some(begin) = seen {
                    let around = &text[begin.saturating_sub(120)..(begin + 120).min(text.len())];
                    let around = String::from_utf8_lossy(around);
                    panic!("`{secret}` stands in {place} of {what}: {around}");
                }
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
            } else if entry.file_type().is_ok_and(|kind| kind.is_file()) {
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
fn an_application_credential_and_a_token_are_told_nowhere() {
    let glance = services::glance().shared();
    let id = glance.upload("an image behind a credential", &[7; 4096]);
    let (credential, secret) = glance.application_credential(&id);
    let section = |login: Value| {
        let mut login = login;
        login["auth_url"] = json!(glance.identity_url());
        json!({ "provider": "glance", "name": id, "provider_configuration": { "os_auth": login } })
    };
    let with_credential = |secret: &str| {
        section(json!({ "application_credential_id": credential,
            "application_credential_secret": secret }))
    };
    assert_untold(&with_credential(&secret), true, &[&secret, TOKEN]);
    let wrong = "a-wrong-secret-of-a-credential";
    assert_untold(&with_credential(wrong), false, &[wrong, TOKEN]);
    let token = glance.token(Glance::USER);
    let with_token = section(json!({ "token": token }));
    assert_untold(&with_token, true, &[TOKEN]);
    glance.revoke(&token);
    assert_untold(&with_token, false, &[TOKEN]);
    let wrong = section(json!({ "token": "a-wrong-token-of-keystone" }));
    assert_untold(&wrong, false, &["a-wrong-token-of-keystone"]);
    glance.delete(&id);
}

#[test]
fn a_password_from_the_environment_or_a_file_of_clouds_is_told_nowhere() {
    let glance = services::glance().shared();
    let id = glance.upload("an image behind a cloud", &[7; 4096]);
    let (url, user) = (glance.identity_url(), Glance::USER);
    let section = json!({ "provider": "glance", "name": id });
    let wrong = "a-wrong-secret-of-keystone";
    // Beside the home, whose files must not hold it.
    let kept = Home::new();
    for (password, succeeds) in [(user.password, true), (wrong, false)] {
        let variables = [
            ("OS_AUTH_URL", url.as_str()),
            ("OS_USERNAME", user.name),
            ("OS_PASSWORD", password),
            ("OS_PROJECT_NAME", user.project),
        ];
        assert_untold_around(&section, &variables, succeeds, &[password, TOKEN]);
        let clouds = json!({ "clouds": { "tests": { "auth": { "auth_url": url,
            "username": user.name, "password": password, "project_name": user.project } } } });
        let file = kept.write("clouds.yaml", clouds.to_string());
        let file = file.to_str().expect("the home is UTF-8");
        let variables = [("OS_CLIENT_CONFIG_FILE", file), ("OS_CLOUD", "tests")];
        assert_untold_around(&section, &variables, succeeds, &[password, TOKEN]);
        // A list of projects is none, and the place of the mistake is told.
        let broken = clouds.to_string().replace("\"images\"", "[\"images\"]");
        kept.write("clouds.yaml", broken);
        assert_untold_around(&section, &variables, false, &[password]);
    }
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
    let section = json!({ "provider": "http", "uri": with(password) });
    assert_untold(&section, true, &[password, ENCODED]);
    let section = json!({ "provider": "http", "uri": plain, "provider_configuration": {
        "auth": { "username": name, "password": password } } });
    assert_untold(&section, true, &[password, ENCODED]);
    let wrong = "a-wrong-secret";
    let section = json!({ "provider": "http", "uri": with(wrong) });
    assert_untold(&section, false, &[wrong]);
}

#[test]
fn a_run_with_an_image_of_glance_tells_the_password_to_nobody() {
    let glance = services::glance().shared();
    let id = glance.upload_file("a guest behind a password", &guest("guest.qcow2"));
    let user = Glance::USER;
    let section = json!({ "provider": "glance", "name": id, "provider_configuration": { "os_auth": {
        "auth_url": glance.identity_url(), "username": user.name,
        "password": format!("${{env:{VARIABLE}}}"), "project_name": user.project,
        "user_domain_name": "Default", "project_domain_name": "Default" } } });
    assert_untold_by_a_run(&section, user.password, &[TOKEN]);
    glance.delete(&id);
}

#[test]
fn a_run_with_an_image_of_s3_tells_the_secret_key_to_nobody() {
    let swift = services::swift().shared();
    swift.bucket("run-secrets");
    swift.put_file("run-secrets", "guest.qcow2", &guest("guest.qcow2"));
    let section = json!({ "provider": "s3", "name": "guest.qcow2", "provider_configuration": {
        "bucket_name": "run-secrets", "auth": { "endpoint_url": swift.endpoint(),
            "region_name": Swift::REGION, "aws_access_key_id": Swift::KEY,
            "aws_secret_access_key": format!("${{env:{VARIABLE}}}") } } });
    assert_untold_by_a_run(&section, Swift::SECRET, &[]);
}

#[test]
fn a_run_with_an_image_of_a_web_server_tells_the_password_to_nobody() {
    let nginx = Nginx::start();
    let content = std::fs::read(guest("guest.qcow2")).expect("it is built");
    nginx.put("guest.qcow2", &content);
    let (name, password) = Nginx::READER;
    let section = json!({ "provider": "http", "uri": nginx.url("private/guest.qcow2"),
        "provider_configuration": { "auth": { "username": name,
            "password": format!("${{env:{VARIABLE}}}") } } });
    assert_untold_by_a_run(&section, password, &[ENCODED]);
}

#[test]
fn a_program_that_gives_credentials_gets_no_others() {
    let swift = services::swift().shared();
    swift.bucket("programs");
    swift.put("programs", "guest.img", &[7; 4096]);
    let section = json!({ "provider": "s3", "name": "guest.img", "provider_configuration": {
        "bucket_name": "programs", "auth": { "endpoint_url": swift.endpoint(),
            "region_name": Swift::REGION, "profile_name": "lab" } } });
    let user = User::of(&section);
    let home = user.home();
    let given =
        json!({ "Version": 1, "AccessKeyId": Swift::KEY, "SecretAccessKey": Swift::SECRET });
    // Beside the home, whose files must not hold it.
    let kept = Home::new();
    let program = kept.write(
        "give",
        format!(
            "env > {}\necho '{given}'\n",
            kept.path("environment").display()
        ),
    );
    let config = format!(
        "[profile lab]\ncredential_process = sh {}\n",
        program.display()
    );
    let config = home.write("config", config);
    let mut pull = user.pull();
    pull.arg("-vvv")
        .env("SEE_LOG", "trace")
        .env("AWS_CONFIG_FILE", config)
        .env("OF_THE_PROGRAM", "its own")
        .env("AWS_ACCESS_KEY_ID", "another")
        .env("AWS_SECRET_ACCESS_KEY", "another-secret-of-s3")
        .env("AWS_SESSION_TOKEN", "another-token-of-s3")
        .env("OS_PASSWORD", "a-secret-of-openstack")
        .env("OS_APPLICATION_CREDENTIAL_SECRET", "a-secret-of-openstack");
    let ended = told_by(pull, home, PULL);
    assert_eq!(ended.outcome.code, Some(0), "{:#?}", ended.outcome);
    let others = [
        "another-secret-of-s3",
        "another-token-of-s3",
        "a-secret-of-openstack",
    ];
    ended.assert_free("a program's credentials", &[Swift::SECRET]);
    ended.assert_free("a program's credentials", &others);
    let got = std::fs::read_to_string(kept.path("environment")).expect("it was asked");
    assert!(got.contains("OF_THE_PROGRAM=its own"), "{got}");
    assert!(others.iter().all(|other| !got.contains(other)), "{got}");
}

//! Where a login is read, and what is said about mistakes before anything is asked.

use std::path::Path;

use see_core::ErrorKind;
use serde_json::{Value, json};

use super::cloud::{around, found, glance, id, image, keystone, nothing, provider};
use crate::glance::clouds::Surroundings;

fn surroundings(variables: &[(&str, &str)], folders: &[&Path]) -> Surroundings {
    Surroundings {
        variables: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        folders: folders.iter().map(|folder| folder.to_path_buf()).collect(),
        ..nothing()
    }
}

/// What a login was read as, without asking anyone.
fn login(configuration: Value, around_it: Surroundings) -> String {
    let glance = around(configuration, "guest", around_it).unwrap();
    glance.origin.words()
}

fn refused(configuration: Value, around_it: Surroundings) -> String {
    let error = around(configuration, "guest", around_it).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(!error.chain().contains("hush-hush"), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn both_of_python_sees_spellings_configure_it() {
    let server = glance(vec![image(1, "guest", "active", "2026-01-01T10:00:00Z")]);
    let keystone = keystone("http://127.0.0.1:1".to_owned());
    let auth = json!({
        "auth_url": keystone.url("/v3"), "username": "ali", "password": "open sesame",
        "project_name": "images", "user_domain_name": "Default", "project_domain_name": "Default",
    });
    for configuration in [
        json!({"path": "/images", "os_auth": auth, "session": {}, "endpoint": server.url("")}),
        json!({"target_path": "/images", "os_auth": auth, "glance_url": server.url("/v2")}),
    ] {
        let provider = provider(configuration, "guest").unwrap();
        assert_eq!(
            provider.delivery.path.as_deref(),
            Some(Path::new("/images"))
        );
        assert_eq!(found(&provider).await.unwrap().name, id(1));
    }
}

#[test]
fn an_address_of_keystones_second_version_is_answered_with_the_fix() {
    let login = json!({"auth_url": "http://my.keystone:5000/v2.0/", "username": "a",
                       "password": "hush-hush", "project_name": "p"});
    let text = refused(json!({"os_auth": login}), nothing());
    for part in [
        "use http://my.keystone:5000/v3;",
        "user_domain_name",
        "run.json:1:",
        "os_auth",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_is_fetched_without_proof_of_the_server_is_marked_so() {
    let login = json!({"auth_url": "https://a/v3", "token": "hush-hush"});
    let words = |tls: Value| {
        let configuration = json!({"os_auth": login, "tls": tls});
        provider(configuration, "guest").unwrap().origin.words()
    };
    assert_ne!(words(json!({"insecure": true})), words(json!({})));
    assert!(words(json!({"insecure": true})).ends_with("(insecure)"));
}

#[test]
fn what_is_wrong_is_told_before_anything_is_asked() {
    for (configuration, part) in [
        (json!({}), "told no login"),
        (json!({"os_auth": {}}), "`username` is missing"),
        (
            json!({"os_auth": {"username": "a"}}),
            "`password` is missing",
        ),
        (
            json!({"os_auth": {"username": "a", "password": "hush-hush"}}),
            "`auth_url` is missing",
        ),
        (json!({"os_auth": {"pasword": "hush-hush"}}), "`password`"),
        (
            json!({"os_auth": {"auth_type": "v3oidcpassword"}}),
            "expected password, token",
        ),
        (json!({"os_auth": {"auth_type": "none"}}), "give `endpoint`"),
        (
            json!({"os_auth": {"token": "hush-hush", "auth_url": "ftp://there"}}),
            "neither http nor https",
        ),
        (
            json!({"os_auth": {"token": "hush-hush", "auth_url": "http://a:hush-hush@there"}}),
            "with a user or a password",
        ),
        (json!({"os_auth": {}, "cloud": "c"}), "both say who logs in"),
        (json!({"cloud": "c"}), "no clouds.yaml"),
        (
            json!({"os_auth": {"auth_type": "none"}, "endpoint": "nowhere"}),
            "https://cloud.example.org:9292",
        ),
        (json!({"interface": "outer"}), "`public`"),
    ] {
        let text = refused(configuration.clone(), nothing());
        assert!(text.contains(part), "{configuration}: {part}: {text}");
    }
}

#[test]
fn a_pipe_with_the_name_of_a_file_of_clouds_is_not_waited_for() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("clouds.yaml");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let (told, hears) = std::sync::mpsc::channel();
    let path = folder.path().to_owned();
    std::thread::spawn(move || {
        let text = refused(json!({"cloud": "c"}), surroundings(&[], &[&path]));
        told.send(text).unwrap();
    });
    let text = hears.recv_timeout(std::time::Duration::from_secs(20));
    let text = text.expect("nobody writes to the pipe");
    assert!(text.contains("no clouds.yaml"), "{text}");
}

#[test]
fn the_first_file_of_clouds_counts_and_a_secure_one_is_merged() {
    let first = tempfile::tempdir().unwrap();
    let second = tempfile::tempdir().unwrap();
    let write = |folder: &tempfile::TempDir, name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
    };
    write(
        &second,
        "clouds.yaml",
        "clouds: {other: {auth: {auth_url: http://wrong/v3}}}",
    );
    write(
        &second,
        "secure.yaml",
        "clouds:\n  dev:\n    auth:\n      password: 0123e4\n",
    );
    write(
        &second,
        "clouds-public.yaml",
        "public-clouds:\n  shared: {auth: {auth_url: 'http://shared:5000'}, region_name: South}\n",
    );
    write(
        &first,
        "clouds.yml",
        "base: &base\n  project_name: images\n  username: ali\n\
         clouds:\n  dev:\n    profile: shared\n    auth:\n      <<: *base\n      user-domain-name: Default\n\
         \x20   networks: [{name: a}]\n    identity_api_version: 3\n\
         \x20 other: {auth: {auth_url: 'http://other/v3', token: hush-hush}}\n",
    );
    let folders = [first.path(), second.path()];
    let expected = "glance guest in South of the project `images` of the domain with the id `default` at \
                    http://shared:5000/v3/";
    let by_name = login(json!({"cloud": "dev"}), surroundings(&[], &folders));
    assert_eq!(by_name, expected);
    let by_variable = login(json!({}), surroundings(&[("cloud", "dev")], &folders));
    assert_eq!(by_variable, expected);
    // `region` of the configuration comes first.
    let moved = login(
        json!({"cloud": "dev", "region": "North"}),
        surroundings(&[], &folders),
    );
    assert!(moved.contains("in North"), "{moved}");
    let text = refused(json!({}), surroundings(&[], &folders));
    assert!(text.contains("the clouds `dev`, `other`"), "{text}");
    let text = refused(json!({"cloud": "dve"}), surroundings(&[], &folders));
    assert!(text.contains("did you mean `dev`?"), "{text}");
    let text = refused(json!({"cloud": "dev"}), surroundings(&[], &folders[1..]));
    // Only the secret is left of it there.
    assert!(text.contains("is missing"), "{text}");
    let named = second.path().join("clouds.yaml");
    let named = [("client_config_file", named.to_str().unwrap())];
    let text = refused(json!({"cloud": "dev"}), surroundings(&named, &folders));
    assert!(text.contains("is missing"), "{text}");
}

#[test]
fn the_regions_of_a_cloud_are_chosen_from_by_name_and_the_first_is_taken_without() {
    let folder = tempfile::tempdir().unwrap();
    let text = "clouds:\n  dev:\n    auth: {auth_url: 'http://all/v3', username: ali, password: hush-hush,\n\
                \x20          project_name: images}\n    regions:\n    - North\n    - name: South\n      values:\n\
                \x20       auth: {auth_url: 'http://south/v3', password: 0123e4}\n        interface: internal\n";
    std::fs::write(folder.path().join("clouds.yaml"), text).unwrap();
    let around = |variables: &[(&str, &str)]| surroundings(variables, &[folder.path()]);
    let first = login(json!({"cloud": "dev"}), around(&[]));
    assert!(
        first.contains("in North ") && first.ends_with("at http://all/v3/"),
        "{first}"
    );
    let named = login(json!({"cloud": "dev", "region": "South"}), around(&[]));
    assert!(
        named.contains("in South ") && named.ends_with("at http://south/v3/"),
        "{named}"
    );
    let variables = [("cloud", "dev"), ("region_name", "South")];
    assert_eq!(login(json!({}), around(&variables)), named);
    let found = crate::glance::clouds::find(None, None, &around(&variables)).unwrap();
    assert_eq!(found.login.password.unwrap().reveal(), "0123e4");
    assert_eq!(found.interface.as_deref(), Some("internal"));
    let told = refused(json!({"cloud": "dev", "region": "West"}), around(&[]));
    for part in [
        "no region `West`",
        "North, South",
        "provider_configuration.region",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    std::fs::write(
        folder.path().join("clouds.yaml"),
        text.replace("- North", "- 7: x"),
    )
    .unwrap();
    let told = refused(json!({"cloud": "dev"}), around(&[]));
    assert!(told.contains("no file of clouds"), "{told}");
}

#[test]
fn a_password_of_digits_stays_as_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let text = "clouds: {dev: {auth: {auth_url: 'http://a/v3', username: ali, password: 0123e4}}}";
    std::fs::write(folder.path().join("clouds.yaml"), text).unwrap();
    let found =
        crate::glance::clouds::find(None, None, &surroundings(&[], &[folder.path()])).unwrap();
    assert_eq!(found.login.password.unwrap().reveal(), "0123e4");
}

#[test]
fn a_file_of_clouds_that_is_broken_is_told_without_its_secrets() {
    let folder = tempfile::tempdir().unwrap();
    for text in [
        "clouds:\n  dev: {auth: {password: hush-hush, username: [hush-hush",
        "clouds: hush-hush",
        "clouds: {dev: {auth: {username: {a: hush-hush}}}}",
    ] {
        std::fs::write(folder.path().join("clouds.yaml"), text).unwrap();
        let told = refused(json!({"cloud": "dev"}), surroundings(&[], &[folder.path()]));
        assert!(told.contains("clouds.yaml"), "{told}");
        assert!(told.contains("no file of clouds"), "{told}");
    }
}

#[test]
fn the_environment_logs_in_where_the_configuration_says_nothing() {
    let variables = [
        ("auth_url", "http://here:5000"),
        ("tenant_name", "old"),
        ("project_name", "new"),
        ("username", "ali"),
        ("password", "hush-hush"),
        ("region_name", "South"),
        ("identity_api_version", "3"),
        ("interface", "internal"),
    ];
    let words = login(json!({}), surroundings(&variables, &[]));
    assert_eq!(
        words,
        "glance guest in South of the project `new` of the domain with the id `default` at http://here:5000/v3/"
    );
    let mut wrong = variables.to_vec();
    wrong.push(("insecure", "hush-hush"));
    let text = refused(json!({}), surroundings(&wrong, &[]));
    assert!(
        text.contains("OS_") && text.contains("neither true nor false"),
        "{text}"
    );
    let mut wrong = variables.to_vec();
    wrong.push(("cacert", "/no/such/file.pem"));
    let text = refused(json!({}), surroundings(&wrong, &[]));
    assert!(text.contains("/no/such/file.pem"), "{text}");
}

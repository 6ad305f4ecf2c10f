//! Where credentials are found, and what is signed with them.

use std::path::Path;
use std::sync::Arc;

use reqsign_core::StaticEnv;
use reqwest::header::AUTHORIZATION;
use ring::{digest, hmac};

use super::super::profile::Profile;
use super::*;
use crate::testing::{FaultServer, Resource};

fn environment(home: &Path, variables: &[(&str, &str)]) -> StaticEnv {
    let pairs = variables.iter();
    StaticEnv {
        home_dir: Some(home.to_owned()),
        envs: pairs
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn chain_of(profile: Option<&str>, environment: StaticEnv) -> Credentials {
    let read = Profile::read(profile, &environment).unwrap();
    let source = Source::Chain {
        profile: profile.map(str::to_owned),
        role: read.role,
        region: "eu-west-1".to_owned(),
        unsupported: read.unsupported,
        asks_instance: false,
    };
    Credentials::new(source, environment, &TlsConfiguration::default()).unwrap()
}

async fn found(credentials: &Credentials) -> Result<(String, &'static str)> {
    let held = credentials.held().await?;
    Ok((held.credential.access_key_id, held.origin))
}

const OWN: [(&str, &str); 2] = [
    ("AWS_ACCESS_KEY_ID", "of-environment"),
    ("AWS_SECRET_ACCESS_KEY", "hunter2"),
];

#[tokio::test]
async fn each_source_is_looked_at_in_boto3s_order() {
    let home = tempfile::tempdir().unwrap();
    let aws = home.path().join(".aws");
    std::fs::create_dir(&aws).unwrap();
    let given = home.path().join("given.json");
    let program = r#"{"Version": 1, "AccessKeyId": "of-program", "SecretAccessKey": "hunter2"}"#;
    std::fs::write(&given, program).unwrap();
    let keys = |id: &str| format!("aws_access_key_id = {id}\naws_secret_access_key = hunter2\n");
    std::fs::write(
        aws.join("config"),
        format!(
            "[profile lab]\n{}[profile tool]\ncredential_process = cat {}\n",
            keys("of-config"),
            given.display()
        ),
    )
    .unwrap();
    std::fs::write(
        aws.join("credentials"),
        format!("[default]\n{}", keys("of-default")),
    )
    .unwrap();
    let lab = [("AWS_PROFILE", "lab")];
    let both = [OWN[0], OWN[1], lab[0]];
    for (profile, variables, id, origin) in [
        (None, &OWN[..], "of-environment", "the environment"),
        (None, &both[..], "of-environment", "the environment"),
        (None, &lab[..], "of-config", "the AWS profile"),
        (None, &[], "of-default", "the AWS profile"),
        (Some("lab"), &OWN[..], "of-config", "the AWS profile"),
        (
            Some("tool"),
            &[],
            "of-program",
            "the program of the AWS profile",
        ),
    ] {
        let credentials = chain_of(profile, environment(home.path(), variables));
        let found = found(&credentials).await.unwrap();
        assert_eq!(found, (id.to_owned(), origin), "{profile:?} {variables:?}");
        assert!(!format!("{credentials:?}").contains("hunter2"));
    }
}

#[tokio::test]
async fn where_nothing_gives_credentials_all_that_was_looked_at_is_told() {
    let home = tempfile::tempdir().unwrap();
    let error = found(&chain_of(None, environment(home.path(), &[])))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    for part in [
        "`auth.aws_access_key_id`",
        "profiles and its containers",
        "`anonymous`",
    ] {
        assert!(error.to_string().contains(part), "{error}");
    }
    for (half, missing) in [(OWN[0], OWN[1].0), (OWN[1], OWN[0].0)] {
        let credentials = chain_of(None, environment(home.path(), &[half]));
        let error = found(&credentials).await.unwrap_err();
        assert!(
            error.to_string().contains(&format!("{missing} is not")),
            "{error}"
        );
        assert!(!error.chain().contains("hunter2"), "{error}");
    }
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let config = "[default]\ncredential_process = /nowhere/program\n";
    std::fs::write(home.path().join(".aws/config"), config).unwrap();
    let error = found(&chain_of(None, environment(home.path(), &[])))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("the program of the AWS profile"),
        "{error}"
    );
}

#[tokio::test]
async fn a_profile_that_only_amazons_tools_can_follow_is_named_with_its_key_and_what_works_instead()
{
    let home = tempfile::tempdir().unwrap();
    let aws = home.path().join(".aws");
    std::fs::create_dir(&aws).unwrap();
    let pair = "aws_access_key_id = of-profile\naws_secret_access_key = hunter2\n";
    let role = "role_arn = arn:aws:iam::1:role/r\n";
    for (key, lines, file) in [
        ("role_arn", role.to_owned(), "config"),
        ("role_arn", format!("{role}{pair}"), "credentials"),
        (
            "mfa_serial",
            format!("{role}source_profile = lab\nmfa_serial = m\n{pair}"),
            "config",
        ),
        (
            "sso_session",
            "sso_session = work\nsso_account_id = 1\n".to_owned(),
            "config",
        ),
        (
            "login_session",
            "login_session = arn:aws:iam::1:user/u\n".to_owned(),
            "config",
        ),
    ] {
        for name in ["config", "credentials"] {
            std::fs::write(aws.join(name), "").unwrap();
        }
        let section = if file == "config" {
            "profile lab"
        } else {
            "lab"
        };
        std::fs::write(aws.join(file), format!("[{section}]\n{lines}")).unwrap();
        for (named, variables) in [
            (Some("lab"), &OWN[..]),
            (None, &[("AWS_PROFILE", "lab")][..]),
        ] {
            let credentials = chain_of(named, environment(home.path(), variables));
            let error = found(&credentials).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration);
            for part in [
                "`lab`",
                &format!("`{key}`"),
                "export-credentials --profile lab",
                "`auth.aws_access_key_id`",
            ] {
                assert!(error.to_string().contains(part), "{part}: {error}");
            }
            assert!(!error.chain().contains("hunter2"), "{error}");
        }
        // The environment's own come first, as they do in Amazon's tools.
        let both = [OWN[0], OWN[1], ("AWS_PROFILE", "lab")];
        let credentials = chain_of(None, environment(home.path(), &both));
        assert_eq!(found(&credentials).await.unwrap().1, "the environment");
    }
}

/// Amazon's token service: it gives out credentials, and keeps what it was asked.
#[derive(Debug, Clone, Default)]
struct Tokens(Arc<std::sync::Mutex<Vec<http::Request<Bytes>>>>);

impl HttpSend for Tokens {
    async fn http_send(
        &self,
        request: http::Request<Bytes>,
    ) -> reqsign_core::Result<http::Response<Bytes>> {
        let asked = format!("{} {:?}", request.uri(), request.body());
        let way = match asked.contains("AssumeRoleWithWebIdentity") {
            true => "AssumeRoleWithWebIdentity",
            false => "AssumeRole",
        };
        self.0.lock().unwrap().push(request);
        Ok(http::Response::new(Bytes::from(format!(
            "<{way}Response><{way}Result><Credentials><AccessKeyId>ASIAOFROLE0123456789</AccessKeyId>\
             <SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
             <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></{way}Result></{way}Response>"
        ))))
    }
}

#[tokio::test]
async fn a_role_is_assumed_by_whomever_the_profile_names() {
    let home = tempfile::tempdir().unwrap();
    let aws = home.path().join(".aws");
    std::fs::create_dir(&aws).unwrap();
    let token = home.path().join("token");
    std::fs::write(&token, "of-identity").unwrap();
    let role = "arn:aws:iam::123456789012:role/reader";
    let keys = "aws_access_key_id = of-base\naws_secret_access_key = hunter2\n";
    std::fs::write(aws.join("credentials"), format!("[base]\n{keys}")).unwrap();
    for (by, variables, expected) in [
        ("source_profile = base\n".to_owned(), &[][..], "of-base/"),
        (format!("source_profile = lab\n{keys}"), &[], "of-base/"),
        (
            "credential_source = Environment\n".to_owned(),
            &OWN,
            "of-environment/",
        ),
        (
            format!("web_identity_token_file = {}\n", token.display()),
            &[],
            "of-identity",
        ),
    ] {
        let lines = "role_session_name = images\nexternal_id = partner\n";
        let config = format!("[profile lab]\nrole_arn = {role}\n{lines}{by}");
        std::fs::write(aws.join("config"), config).unwrap();
        let tokens = Tokens::default();
        let mut credentials = chain_of(Some("lab"), environment(home.path(), variables));
        credentials.context = credentials.context.with_http_send(tokens.clone());
        let found = found(&credentials).await.unwrap();
        assert_eq!(found, ("ASIAOFROLE0123456789".to_owned(), ROLE), "{by}");
        let asked = tokens.0.lock().unwrap();
        let [asked] = &asked[..] else {
            panic!("{asked:?}");
        };
        assert_eq!(asked.uri().host(), Some("sts.eu-west-1.amazonaws.com"));
        assert_eq!(asked.uri().scheme_str(), Some("https"));
        let whole = format!("{} {:?} {:?}", asked.uri(), asked.headers(), asked.body());
        let signed = asked.headers().get(AUTHORIZATION);
        let signed = signed.map_or("", |value| value.to_str().unwrap());
        assert!(format!("{whole} {signed}").contains(expected), "{whole}");
        for part in ["role%2Freader", "images"] {
            assert!(whole.contains(part), "{part}: {whole}");
        }
        assert!(!whole.contains("hunter2"), "{whole}");
    }
}

#[tokio::test]
async fn a_role_that_cannot_be_assumed_says_whose_credentials_are_missing() {
    let home = tempfile::tempdir().unwrap();
    let aws = home.path().join(".aws");
    std::fs::create_dir(&aws).unwrap();
    let role = "role_arn = arn:aws:iam::123456789012:role/reader\n";
    for (lines, part) in [
        ("source_profile = empty\n", "`empty` gives no credentials"),
        ("credential_source = Elsewhere\n", "`Elsewhere`"),
        ("source_profile = chained\n", "`chained` has `role_arn`"),
    ] {
        let chained = "[profile chained]\nrole_arn = x\nsource_profile = base\n";
        let config = format!("[profile lab]\n{role}{lines}{chained}[profile empty]\n");
        std::fs::write(aws.join("config"), config).unwrap();
        let credentials = chain_of(Some("lab"), environment(home.path(), &[]));
        let error = found(&credentials).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains(part), "{error}");
        assert!(error.advice_text().is_some(), "{error}");
    }
}

#[tokio::test]
async fn a_container_is_asked_where_the_environment_says_so_and_again_on_renewal() {
    let home = tempfile::tempdir().unwrap();
    let server = FaultServer::start().await;
    let give = |id: &str| {
        let answer = format!(
            r#"{{"AccessKeyId": "{id}", "SecretAccessKey": "s", "Token": "t",
                "Expiration": "2099-01-01T00:00:00Z"}}"#
        );
        server.put("/role", Resource::new(answer));
    };
    give("first");
    let url = server.url("/role");
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", "a ticket"),
    ];
    let credentials = chain_of(None, environment(home.path(), &variables));
    for _ in 0..2 {
        let found = found(&credentials).await.unwrap();
        assert_eq!(found, ("first".to_owned(), "the container"));
    }
    assert!(!credentials.renew().await.unwrap(), "they are the same");
    give("second");
    assert!(credentials.renew().await.unwrap());
    assert_eq!(found(&credentials).await.unwrap().0, "second");
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(
        seen.iter()
            .all(|asked| asked.header("authorization") == Some("a ticket"))
    );
    server.remove("/role");
    let error = credentials.renew().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    assert!(
        error
            .to_string()
            .contains("the container gives no credentials"),
        "{error}"
    );
}

/// The signature computed once more, step by step as Amazon describes it.
#[tokio::test]
async fn a_signature_is_the_one_that_amazon_describes() {
    let credentials = Credentials::new(
        Source::Given(Credential {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: Some("a token".to_owned()),
            expires_in: None,
        }),
        StaticEnv::default(),
        &TlsConfiguration::default(),
    )
    .unwrap();
    let url = "https://s3.example.org:9000/b/a%20b%2Bc%C3%BC?versionId=x%2By&versions=";
    let mut request = Request::new(reqwest::Method::GET, Url::parse(url).unwrap());
    credentials.sign(&mut request, "eu-west-1").await.unwrap();
    let header = |name: &str| request.headers()[name].to_str().unwrap().to_owned();
    let date = header("x-amz-date");
    assert_eq!(header("x-amz-security-token"), "a token");
    assert_eq!(request.url().as_str(), url);
    let canonical = format!(
        "GET\n/b/a%20b%2Bc%C3%BC\nversionId=x%2By&versions=\n\
         host:s3.example.org:9000\nx-amz-content-sha256:{EMPTY_STRING_SHA256}\nx-amz-date:{date}\n\
         x-amz-security-token:a token\n\n\
         host;x-amz-content-sha256;x-amz-date;x-amz-security-token\n{EMPTY_STRING_SHA256}"
    );
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let scope = format!("{}/eu-west-1/s3/aws4_request", &date[..8]);
    let hashed = digest::digest(&digest::SHA256, canonical.as_bytes());
    let text = format!(
        "AWS4-HMAC-SHA256\n{date}\n{scope}\n{}",
        hex(hashed.as_ref())
    );
    let mac = |key: &[u8], text: &str| {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
    };
    let secret = b"AWS4wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    let key = ["eu-west-1", "s3", "aws4_request"]
        .iter()
        .fold(mac(secret, &date[..8]), |key, part| mac(&key, part));
    let expected = format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}, \
         SignedHeaders=host;x-amz-content-sha256;x-amz-date;x-amz-security-token, Signature={}",
        hex(&mac(&key, &text))
    );
    assert_eq!(header("authorization"), expected);
    assert!(request.headers()[AUTHORIZATION].is_sensitive());
}

//! What the AWS environment says besides credentials: profiles, regions, endpoints.

use std::path::PathBuf;

use ini::Ini;
use reqsign_core::Env;
use see_core::config::{ConfigPath, Origin, Place};
use see_core::{Error, ErrorKind, Result};

use crate::text::{self, listed};

/// The profile where none is named.
const DEFAULT: &str = "default";
/// The keys of profiles that lead to credentials by ways that only Amazon's own tools know: a person's second factor,
/// sign-ons that are described apart from the profile, the console's login.
const UNSUPPORTED: [&str; 3] = ["mfa_serial", "sso_session", "login_session"];

/// What a profile, or the environment in its place, says of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Profile {
    /// Its name.
    pub(super) name: String,
    /// The region that requests are signed for.
    pub(super) region: Option<String>,
    /// The S3 server.
    pub(super) endpoint: Option<String>,
    /// The authorities that servers' certificates must come from.
    pub(super) authorities: Option<ConfigPath>,
    /// The role that it assumes.
    pub(super) role: Option<Role>,
    /// What it has of the ways to credentials that do not work here.
    pub(super) unsupported: Option<Unsupported>,
}

/// A role, and who assumes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) arn: String,
    pub(super) by: Identity,
    pub(super) session: Option<String>,
    pub(super) external_id: Option<String>,
}

/// Whoever assumes a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// `source_profile`: whom the credentials of that profile are of.
    Profile(String),
    /// `credential_source`: whom the variables, the container or the instance's service say.
    Source(String),
    /// `web_identity_token_file`: whom the token in that file names.
    Token(PathBuf),
}

impl Role {
    /// The role of a profile; `key_of` gives the keys of any profile.
    ///
    /// # Errors
    /// A role that nobody here can assume.
    fn of(
        profile: &str,
        key_of: impl Fn(&str, &str) -> Option<String>,
    ) -> Result<Option<Self>, Unsupported> {
        let of_profile = |key: &str| key_of(profile, key);
        let Some(arn) = of_profile("role_arn") else {
            return Ok(None);
        };
        let refused = |profile: &str, what: &str| Unsupported {
            profile: profile.to_owned(),
            what: what.to_owned(),
        };
        let by = if let Some(file) = of_profile("web_identity_token_file") {
            Identity::Token(file.into())
        } else if let Some(source) = of_profile("source_profile") {
            // A profile may assume its own role with its own keys.
            if source != profile && key_of(&source, "role_arn").is_some() {
                let what = "`role_arn`, which is not supported in a `source_profile`";
                return Err(refused(&source, what));
            }
            Identity::Profile(source)
        } else if let Some(source) = of_profile("credential_source") {
            Identity::Source(source)
        } else {
            let what = "`role_arn`, but none of `source_profile`, `credential_source` and `web_identity_token_file`";
            return Err(refused(profile, what));
        };
        Ok(Some(Self {
            arn,
            by,
            session: of_profile("role_session_name"),
            external_id: of_profile("external_id"),
        }))
    }
}

/// A key of a profile that leads Amazon's own tools to credentials, but not us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unsupported {
    profile: String,
    /// The key, and what is wrong with it.
    what: String,
}

impl Unsupported {
    /// The first such key of a profile, whose keys `of_profile` gives.
    fn among(profile: &str, of_profile: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let key = UNSUPPORTED.into_iter().find(|key| {
            // A profile that says all of the sign-on itself needs no session for it.
            let is_told = *key == "sso_session" && of_profile("sso_start_url").is_some();
            of_profile(key).is_some() && !is_told
        })?;
        Some(Self {
            profile: profile.to_owned(),
            what: format!("`{key}`, which is not supported"),
        })
    }

    /// The error for whoever needs credentials of this profile.
    pub(super) fn refusal(&self) -> Error {
        let Self { profile, what } = self;
        let profile = profile.escape_debug();
        let message = format!("the AWS profile `{profile}` has {what}");
        Error::new(ErrorKind::Configuration, message).advice(format!(
            "select another profile, with `credential_process = aws configure export-credentials \
             --profile {profile}`; or run that and give what it prints as `auth.aws_access_key_id`, \
             `auth.aws_secret_access_key` and `auth.aws_session_token`"
        ))
    }
}

impl Profile {
    /// Reads the profile of this name, or the one that the environment selects.
    ///
    /// The environment's own words win over the profile's, as they do in Amazon's tools.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where a file cannot be read, or no file has the profile that was named.
    pub(super) fn read(named: Option<&str>, environment: &dyn Env) -> Result<Self> {
        let set = |name: &str| environment.var(name).filter(|value| !value.is_empty());
        let chosen = named
            .map(str::to_owned)
            .or_else(|| set("AWS_PROFILE"))
            .or_else(|| set("AWS_DEFAULT_PROFILE"));
        let name = chosen.clone().unwrap_or_else(|| DEFAULT.to_owned());
        let config = Self::file(environment, "AWS_CONFIG_FILE", "config")?;
        let credentials = Self::file(environment, "AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
        let section = |name: &str| match name {
            DEFAULT => DEFAULT.to_owned(),
            _ => format!("profile {name}"),
        };
        let settings_of = |name: &str| config.as_ref()?.1.section(Some(section(name)));
        let keys_of = |name: &str| credentials.as_ref()?.1.section(Some(name));
        let (settings, keys) = (settings_of(&name), keys_of(&name));
        if chosen.is_some() && settings.is_none() && keys.is_none() {
            let message = format!("there is no AWS profile `{}`", name.escape_debug());
            let known = known(config.as_ref(), credentials.as_ref());
            return Err(Error::new(ErrorKind::Configuration, message).advice(known));
        }
        let of_profile = |key: &str| {
            let value = settings.and_then(|section| section.get(key))?;
            (!value.is_empty()).then(|| value.to_owned())
        };
        // Amazon's tools read these in both files.
        let of_either = |name: &str, key: &str| {
            let of = |section: Option<&ini::Properties>| section?.get(key).map(str::to_owned);
            of(settings_of(name)).or_else(|| of(keys_of(name)))
        };
        let (role, refused) = match Role::of(&name, of_either) {
            Ok(role) => (role, None),
            Err(refused) => (None, Some(refused)),
        };
        let services = of_profile("services").map(|name| format!("services {name}"));
        let ignores_endpoints = set("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS")
            .is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let endpoint = if ignores_endpoints {
            None
        } else {
            set("AWS_ENDPOINT_URL_S3")
                .or_else(|| set("AWS_ENDPOINT_URL"))
                .or_else(|| service_endpoint(config.as_ref()?.1.section(Some(services?))?))
                .or_else(|| of_profile("endpoint_url"))
        };
        let bundle = |written: String, key: &str| {
            let (origin, key) = (Origin::Program, key.to_owned());
            ConfigPath::new(written, Place { origin, key })
        };
        Ok(Self {
            authorities: set("AWS_CA_BUNDLE")
                .map(|path| bundle(path, "AWS_CA_BUNDLE"))
                .or_else(|| {
                    Some(bundle(
                        of_profile("ca_bundle")?,
                        "the AWS profile's ca_bundle",
                    ))
                }),
            role,
            unsupported: Unsupported::among(&name, |key| of_either(&name, key)).or(refused),
            region: set("AWS_REGION")
                .or_else(|| set("AWS_DEFAULT_REGION"))
                .or_else(|| of_profile("region")),
            endpoint,
            name,
        })
    }

    /// The file that a variable names, or the usual one where it is there.
    fn file(environment: &dyn Env, variable: &str, usual: &str) -> Result<Option<(PathBuf, Ini)>> {
        let home = environment.home_dir();
        let named = environment.var(variable).filter(|path| !path.is_empty());
        let path = match (named, &home) {
            (Some(path), Some(home)) => match path.strip_prefix("~/") {
                Some(rest) => home.join(rest),
                None => PathBuf::from(path),
            },
            (Some(path), None) => PathBuf::from(path),
            (None, Some(home)) => home.join(".aws").join(usual),
            (None, None) => return Ok(None),
        };
        let refused = |message: &'static str| {
            Error::new(ErrorKind::Configuration, message).subject(path.display())
        };
        let text = match text::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(refused("the AWS configuration cannot be read").caused_by(error));
            }
        };
        // The reason is not shown: it quotes the line, and a key may stand in it.
        match Ini::load_from_str(&text) {
            Ok(ini) => Ok(Some((path, ini))),
            Err(error) => Err(refused("the AWS configuration has a line that is none")
                .advice(format!("see its line {}", error.line))),
        }
    }
}

/// The server of S3 in a section `services`, where each service has its keys beneath its name.
fn service_endpoint(services: &ini::Properties) -> Option<String> {
    let mut service = "";
    for (key, value) in services.iter() {
        match (key, value) {
            (name, "") => service = name,
            ("endpoint_url", url) if service == "s3" => return Some(url.to_owned()),
            _ => {}
        }
    }
    None
}

fn known(config: Option<&(PathBuf, Ini)>, credentials: Option<&(PathBuf, Ini)>) -> String {
    let files: Vec<_> = [config, credentials].into_iter().flatten().collect();
    if files.is_empty() {
        return "there is neither `~/.aws/config` nor `~/.aws/credentials`".to_owned();
    }
    let names = files.iter().flat_map(|(_, ini)| ini.sections().flatten());
    let names = names.map(|name| name.strip_prefix("profile ").unwrap_or(name));
    format!("those that there are: {}", listed(names))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::path::Path;

    use reqsign_core::StaticEnv;

    use super::*;

    fn environment(home: &Path, variables: &[(&str, &str)]) -> StaticEnv {
        StaticEnv {
            home_dir: Some(home.to_owned()),
            envs: variables
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<HashMap<_, _>>(),
        }
    }

    #[test]
    fn the_environment_wins_over_the_profile_and_a_named_profile_has_to_be_there() {
        let home = tempfile::tempdir().unwrap();
        let aws = home.path().join(".aws");
        std::fs::create_dir(&aws).unwrap();
        std::fs::write(
            aws.join("config"),
            "[default]\nregion = eu-west-1\n[profile lab]\nregion=eu-north-1\nendpoint_url = http://127.0.0.1:1\n",
        )
        .unwrap();
        std::fs::write(aws.join("credentials"), "[keys]\naws_access_key_id = a\n").unwrap();
        let read = |named, variables: &[(&str, &str)]| {
            let profile = Profile::read(named, &environment(home.path(), variables))?;
            Ok::<_, Error>((profile.region, profile.endpoint))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(read(None, &[]).unwrap(), (some("eu-west-1"), None));
        let lab = (some("eu-north-1"), some("http://127.0.0.1:1"));
        assert_eq!(read(Some("lab"), &[]).unwrap(), lab);
        assert_eq!(read(None, &[("AWS_PROFILE", "lab")]).unwrap(), lab);
        assert_eq!(read(Some("keys"), &[]).unwrap(), (None, None));
        let all = [
            ("AWS_PROFILE", "lab"),
            ("AWS_DEFAULT_REGION", "us-west-1"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:2"),
            ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:3"),
        ];
        assert_eq!(
            read(None, &all).unwrap(),
            (some("us-west-1"), some("http://127.0.0.1:3"))
        );
        assert_eq!(read(None, &all[..3]).unwrap().1, some("http://127.0.0.1:2"));
        let ignoring = [all[3], ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true")];
        assert_eq!(read(None, &ignoring).unwrap().1, None);
        let error = read(Some("lba"), &[]).unwrap_err();
        assert!(
            error.to_string().contains("`default`, `lab`, `keys`"),
            "{error}"
        );
        let nobody = home.path().join("nobody");
        let error = Profile::read(Some("lab"), &environment(&nobody, &[])).unwrap_err();
        assert!(error.to_string().contains("neither"), "{error}");
        std::fs::write(aws.join("config"), "[default]\nca_bundle = /of/profile\n").unwrap();
        for (variables, path, key) in [
            (&[][..], "/of/profile", "ca_bundle"),
            (&[("AWS_CA_BUNDLE", "/own")][..], "/own", "AWS_CA_BUNDLE"),
        ] {
            let profile = Profile::read(None, &environment(home.path(), variables)).unwrap();
            let authorities = profile.authorities.unwrap();
            assert_eq!(authorities.path(), Path::new(path));
            assert!(authorities.place().to_string().contains(key));
        }
        std::fs::write(
            aws.join("config"),
            "[default]\nservices = ours\nendpoint_url = http://all\n[services ours]\nec2 =\n  endpoint_url = http://ec2\n\
             s3 =\n  endpoint_url = http://s3\ndynamodb =\n  endpoint_url = http://db\n",
        )
        .unwrap();
        assert_eq!(read(None, &[]).unwrap().1, some("http://s3"));
        assert_eq!(
            read(None, &all[2..3]).unwrap().1,
            some("http://127.0.0.1:2")
        );
        let none = Profile::read(None, &environment(&nobody, &[])).unwrap();
        assert_eq!((none.region, none.endpoint), (None, None));
    }

    #[test]
    fn a_broken_file_is_told_without_what_stands_in_it() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("broken");
        std::fs::write(&path, "[default]\naws_secret_access_key hunter2\n[x\n").unwrap();
        let path = path.to_str().unwrap();
        let environment = environment(home.path(), &[("AWS_SHARED_CREDENTIALS_FILE", path)]);
        let error = Profile::read(None, &environment).unwrap_err();
        let line = error.chain();
        assert!(line.contains("broken"), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

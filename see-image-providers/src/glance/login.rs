//! Who logs in to Keystone, how, and for what: read from a configuration, checked, and put into the words of
//! Keystone's third version.

use reqwest::Url;
use see_core::config::Place;
use see_core::{Error, ErrorKind, Result, Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The domain of users and projects where none is said, as OpenStack's own client has it.
const DEFAULT_DOMAIN: &str = "default";

/// What stands under `os_auth`, in `auth` of a `clouds.yaml`, and in the environment as `OS_…`.
///
/// Names are looked up in a domain; where none is given, in the one whose id is `default`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OpenStackLogin {
    /// Keystone's address, such as `https://cloud.example.org:5000/v3`. Of the third version of its interface,
    /// which is also meant where the address names none.
    pub auth_url: Option<String>,
    /// `password`, `token`, `v3applicationcredential` or `none` (a Glance that asks for no login; needs
    /// `endpoint`). By default what the other keys are for.
    #[serde(alias = "auth_plugin")]
    pub auth_type: Option<String>,
    /// The user's name.
    #[serde(alias = "user_name")]
    pub username: Option<String>,
    /// The user's id, instead of name and domain.
    pub user_id: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// The id of the domain that the user is in.
    pub user_domain_id: Option<String>,
    /// The name of the domain that the user is in.
    pub user_domain_name: Option<String>,
    /// The name of the project whose images are meant.
    #[serde(alias = "tenant_name")]
    pub project_name: Option<String>,
    /// The id of the project whose images are meant.
    #[serde(alias = "tenant_id")]
    pub project_id: Option<String>,
    /// The id of the domain that the project is in.
    pub project_domain_id: Option<String>,
    /// The name of the domain that the project is in.
    pub project_domain_name: Option<String>,
    /// The id of the domain of both user and project; without a project, of the domain to be used itself.
    pub domain_id: Option<String>,
    /// The name of the domain of both user and project; without a project, of the domain to be used itself.
    pub domain_name: Option<String>,
    /// The id of the domain of a user or project that has none of its own. `default`.
    #[serde(alias = "default_domain")]
    pub default_domain_id: Option<String>,
    /// The name of the domain of a user or project that has none of its own.
    pub default_domain_name: Option<String>,
    /// The id of an application credential.
    pub application_credential_id: Option<String>,
    /// The name of an application credential, together with its user.
    pub application_credential_name: Option<String>,
    /// The secret of the application credential.
    pub application_credential_secret: Option<Secret>,
    /// A token that Keystone gave out. It cannot be renewed once it has expired.
    #[serde(alias = "auth_token")]
    pub token: Option<Secret>,
    /// The id of a trust to be used.
    pub trust_id: Option<String>,
    /// `all`: the whole cloud instead of a project.
    pub system_scope: Option<String>,
}

/// Where a login was read, for errors about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whence {
    /// In the configuration.
    At(Place),
    /// In a file, or in the environment, in words.
    Said(String),
}

impl Whence {
    /// A mistake in what was read there.
    pub(super) fn wrong(&self, message: impl Into<String>) -> Error {
        match self {
            Self::At(place) => Error::configuration(place.clone(), message.into()),
            Self::Said(words) => {
                Error::new(ErrorKind::Configuration, message.into()).subject(words)
            }
        }
    }
}

/// A login that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Login {
    /// Keystone's address up to and with `v3/`.
    pub(super) url: Url,
    pub(super) method: Method,
    pub(super) scope: Scope,
    pub(super) whence: Whence,
}

/// What proves who logs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Method {
    Password {
        user: Named,
        password: Secret,
    },
    ApplicationCredential {
        credential: Credential,
        secret: Secret,
    },
    Token(Secret),
}

/// An application credential, found by its id or as one of a user's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Credential {
    Id(String),
    Of { name: String, user: Named },
}

/// Something of Keystone's that has an id, and in its domain a name; serialized as Keystone takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(super) enum Named {
    Id { id: String },
    Name { name: String, domain: Domain },
}

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Domain {
    Id(String),
    Name(String),
}

/// For what the login is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// What Keystone itself chooses: the credential's or the token's project, the user's default one.
    Own,
    Project(Named),
    Domain(Domain),
    System,
    Trust(String),
}

impl OpenStackLogin {
    /// The login that this is; `None` for `auth_type` `none`.
    pub(super) fn complete(self, whence: Whence) -> Result<Option<Login>> {
        let method = self.method(&whence)?;
        let Some(method) = method else {
            return Ok(None);
        };
        let Some(address) = &self.auth_url else {
            return Err(whence.wrong("`auth_url` is missing: the address of Keystone"));
        };
        let url =
            keystone(address).map_err(|(message, advice)| whence.wrong(message).advice(advice))?;
        let scope = match method {
            // It is for one project from its beginning, and Keystone refuses to hear of another.
            Method::ApplicationCredential { .. } => Scope::Own,
            _ => self.scope(&whence)?,
        };
        Ok(Some(Login {
            url,
            method,
            scope,
            whence,
        }))
    }

    fn method(&self, whence: &Whence) -> Result<Option<Method>> {
        let kind = match self.auth_type.as_deref() {
            Some(said) => said,
            None if self.application_credential_secret.is_some() => "v3applicationcredential",
            None if self.token.is_some() => "token",
            None => "password",
        };
        let missing = |key: &str| {
            whence
                .wrong(format!("`{key}` is missing"))
                .advice("a login needs auth_url, username, password and project_name; or auth_url, \
                     application_credential_id and application_credential_secret; or auth_url and token")
        };
        match kind {
            "none" => Ok(None),
            "password" | "v3password" => {
                let user = self.user().ok_or_else(|| missing("username"))?;
                let password = self.password.clone().ok_or_else(|| missing("password"))?;
                Ok(Some(Method::Password { user, password }))
            }
            "token" | "v3token" => {
                let token = self.token.clone().ok_or_else(|| missing("token"))?;
                Ok(Some(Method::Token(token)))
            }
            "v3applicationcredential" | "application_credential" => {
                let secret = self.application_credential_secret.clone();
                let secret = secret.ok_or_else(|| missing("application_credential_secret"))?;
                let credential = match (
                    &self.application_credential_id,
                    &self.application_credential_name,
                ) {
                    (Some(id), _) => Credential::Id(id.clone()),
                    (None, Some(name)) => Credential::Of {
                        name: name.clone(),
                        user: self.user().ok_or_else(|| missing("username"))?,
                    },
                    (None, None) => return Err(missing("application_credential_id")),
                };
                Ok(Some(Method::ApplicationCredential { credential, secret }))
            }
            other => Err(whence
                .wrong(format!("found the auth_type `{}`", other.escape_debug()))
                .advice("expected password, token, v3applicationcredential or none")),
        }
    }

    fn scope(&self, whence: &Whence) -> Result<Scope> {
        if let Some(trust) = &self.trust_id {
            return Ok(Scope::Trust(trust.clone()));
        }
        if let Some(id) = &self.project_id {
            return Ok(Scope::Project(Named::Id { id: id.clone() }));
        }
        if let Some(name) = &self.project_name {
            let domain = self.domain(&self.project_domain_id, &self.project_domain_name);
            let name = name.clone();
            return Ok(Scope::Project(Named::Name { name, domain }));
        }
        match self.system_scope.as_deref() {
            None => {}
            Some("all") => return Ok(Scope::System),
            Some(other) => {
                let message = format!("found the system_scope `{}`", other.escape_debug());
                return Err(whence.wrong(message).advice("expected all, or no such key"));
            }
        }
        Ok(match (&self.domain_id, &self.domain_name) {
            (Some(id), _) => Scope::Domain(Domain::Id(id.clone())),
            (None, Some(name)) => Scope::Domain(Domain::Name(name.clone())),
            (None, None) => Scope::Own,
        })
    }

    fn user(&self) -> Option<Named> {
        if let Some(id) = &self.user_id {
            return Some(Named::Id { id: id.clone() });
        }
        let domain = self.domain(&self.user_domain_id, &self.user_domain_name);
        Some(Named::Name {
            name: self.username.clone()?,
            domain,
        })
    }

    fn domain(&self, id: &Option<String>, name: &Option<String>) -> Domain {
        let pairs = [
            (id, name),
            (&self.domain_id, &self.domain_name),
            (&self.default_domain_id, &self.default_domain_name),
        ];
        pairs
            .into_iter()
            .find_map(|(id, name)| match (id, name) {
                (Some(id), _) => Some(Domain::Id(id.clone())),
                (None, Some(name)) => Some(Domain::Name(name.clone())),
                (None, None) => None,
            })
            .unwrap_or_else(|| Domain::Id(DEFAULT_DOMAIN.to_owned()))
    }
}

/// Keystone's address with its version; else what is wrong with it, and what would be right.
fn keystone(address: &str) -> Result<Url, (String, String)> {
    let mut url = super::catalog::address(address).map_err(|found| {
        let advice = "expected one such as https://cloud.example.org:5000/v3";
        (
            format!("the address `auth_url` is {found}"),
            advice.to_owned(),
        )
    })?;
    let path = url.path().trim_end_matches('/').to_owned();
    let (before, last) = path.rsplit_once('/').unwrap_or(("", &path));
    if last == "v3" {
        url.set_path(&format!("{path}/"));
    } else if last.starts_with("v2") {
        url.set_path(&format!("{before}/v3"));
        let message = format!(
            "found `auth_url` with `/{}`, a version of Keystone's interface that no longer exists",
            last.escape_debug()
        );
        let advice = format!(
            "use {url}; users and projects are in domains now: add user_domain_name and \
             project_domain_name where they are not in the domain `{DEFAULT_DOMAIN}`"
        );
        return Err((message, advice));
    } else {
        url.set_path(&format!("{path}/v3/"));
    }
    Ok(url)
}

impl Login {
    /// The body of the request for a token.
    pub(super) fn body(&self) -> Value {
        let identity = match &self.method {
            Method::Password { user, password } => {
                let mut user = json!(user);
                user["password"] = json!(password.reveal());
                json!({"methods": ["password"], "password": {"user": user}})
            }
            Method::ApplicationCredential { credential, secret } => {
                let mut shown = match credential {
                    Credential::Id(id) => json!({"id": id}),
                    Credential::Of { name, user } => json!({"name": name, "user": user}),
                };
                shown["secret"] = json!(secret.reveal());
                json!({"methods": ["application_credential"], "application_credential": shown})
            }
            Method::Token(token) => {
                json!({"methods": ["token"], "token": {"id": token.reveal()}})
            }
        };
        let mut auth = json!({"identity": identity});
        let scope = match &self.scope {
            Scope::Own => return json!({"auth": auth}),
            Scope::Project(project) => json!({"project": project}),
            Scope::Domain(domain) => json!({"domain": domain}),
            Scope::System => json!({"system": {"all": true}}),
            Scope::Trust(id) => json!({"OS-TRUST:trust": {"id": id}}),
        };
        auth["scope"] = scope;
        json!({"auth": auth})
    }

    /// What no message may repeat.
    pub(super) fn secret(&self) -> &Secret {
        match &self.method {
            Method::Password {
                password: secret, ..
            }
            | Method::ApplicationCredential { secret, .. }
            | Method::Token(secret) => secret,
        }
    }

    /// Whose images are meant, in words.
    pub(super) fn subject(&self) -> String {
        match &self.scope {
            Scope::Project(project) => format!("the project {project}"),
            Scope::Domain(domain) => domain.to_string(),
            Scope::System => "the whole cloud".to_owned(),
            Scope::Trust(id) => format!("the trust `{id}`"),
            Scope::Own => self.who(),
        }
    }

    /// Who logs in, in words.
    pub(super) fn who(&self) -> String {
        match &self.method {
            Method::Password { user, .. } => format!("the user {user}"),
            Method::ApplicationCredential { credential, .. } => match credential {
                Credential::Id(id) => format!("the application credential `{id}`"),
                Credential::Of { name, user } => {
                    format!("the application credential `{name}` of the user {user}")
                }
            },
            Method::Token(_) => "the token".to_owned(),
        }
    }
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id { id } => write!(f, "`{id}`"),
            Self::Name { name, domain } => write!(f, "`{name}` of {domain}"),
        }
    }
}

impl std::fmt::Display for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Id(id) => write!(f, "the domain with the id `{id}`"),
            Self::Name(name) => write!(f, "the domain `{name}`"),
        }
    }
}

//! Logging in: a token, and the catalog of services that comes with it.

use reqwest::header::HeaderValue;
use reqwest::{Method, Request, StatusCode, Url};
use see_core::{Error, ErrorKind, Result, Secret};
use serde::Deserialize;
use serde_json::Value;

use super::catalog::Service;
use super::exchange::{Answer, ask};
use super::login::{self, Login, Scope};
use crate::client::Client;

/// A token that Keystone gave out or confirmed.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) secret: Secret,
    pub(super) catalog: Vec<Service>,
    /// Whether it is for a project, a domain or the whole cloud, which have a catalog.
    pub(super) is_scoped: bool,
}

#[derive(Deserialize)]
struct Wrapped {
    token: Body,
}

#[derive(Deserialize)]
struct Body {
    #[serde(default)]
    catalog: Vec<Service>,
    project: Option<Value>,
    domain: Option<Value>,
    system: Option<Value>,
}

/// A header with a secret in it, which nothing prints.
pub(super) fn header(secret: &Secret) -> Result<HeaderValue> {
    let value = HeaderValue::from_str(secret.reveal());
    let mut value = value.map_err(|_| {
        Error::new(
            ErrorKind::Configuration,
            "the token has characters that no token has",
        )
        .advice("a line end at its end, perhaps")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// Logs in.
///
/// # Errors
/// [`ErrorKind::PermissionDenied`] where Keystone refuses, with what is wrong where that can be found out.
pub(super) async fn log_in(client: &Client, login: &Login) -> Result<Token> {
    // A token is confirmed as it is: a new one from it would be good for no longer.
    if let (login::Method::Token(token), Scope::Own) = (&login.method, &login.scope) {
        let answer = ask(client, confirmation(client, login, token)?).await?;
        return match answer.status {
            StatusCode::OK => read(&answer, token.clone()),
            status => Err(refused(login, &answer, status)),
        };
    }
    let body = login.body();
    let answer = ask(client, request(client, login, &body)?).await?;
    match answer.status {
        StatusCode::CREATED => read(&answer, subject_token(&answer)?),
        status => Err(refused(login, &answer, status)),
    }
}

fn request(client: &Client, login: &Login, body: &Value) -> Result<Request> {
    let url = at(login, "auth/tokens")?;
    let request = client.request(Method::POST, url).json(body).build();
    request.map_err(|_| internal())
}

fn confirmation(client: &Client, login: &Login, token: &Secret) -> Result<Request> {
    let request = client
        .request(Method::GET, at(login, "auth/tokens")?)
        .header("X-Auth-Token", header(token)?)
        .header("X-Subject-Token", header(token)?)
        .build();
    request.map_err(|_| internal())
}

fn at(login: &Login, path: &str) -> Result<Url> {
    login.url.join(path).map_err(|_| internal())
}

/// Whatever it is, its words may hold the request's.
fn internal() -> Error {
    Error::new(ErrorKind::Internal, "a request to Keystone cannot be made")
}

fn subject_token(answer: &Answer) -> Result<Secret> {
    let token = answer.headers.get("X-Subject-Token");
    match token.and_then(|token| token.to_str().ok()) {
        Some(token) => Ok(Secret::new(token)),
        None => Err(answer
            .failure(
                ErrorKind::Unavailable,
                "the answer has no token in its header X-Subject-Token",
            )
            .advice("check that `auth_url` is the address of Keystone")),
    }
}

fn read(answer: &Answer, secret: Secret) -> Result<Token> {
    let Wrapped { token } = answer.json("a token of Keystone's")?;
    Ok(Token {
        secret,
        is_scoped: token.project.is_some() || token.domain.is_some() || token.system.is_some(),
        catalog: token.catalog,
    })
}

/// Why Keystone refuses.
fn refused(login: &Login, answer: &Answer, status: StatusCode) -> Error {
    let error = match status {
        StatusCode::UNAUTHORIZED => unauthorized(login, answer),
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::MULTIPLE_CHOICES
            if !matches!(login.method, login::Method::Token(_)) =>
        {
            answer
                .failure(
                    ErrorKind::Configuration,
                    "there is no Keystone of version 3 at `auth_url`",
                )
                .advice("expected an address such as https://cloud.example.org:5000/v3")
        }
        // A token is looked up by asking for it.
        StatusCode::NOT_FOUND => spent(login, answer),
        StatusCode::BAD_REQUEST => answer
            .failure(
                ErrorKind::Configuration,
                "Keystone does not understand the login",
            )
            .advice("check the keys of the login, and the domains of user and project"),
        _ => answer.unexpected("Keystone"),
    };
    without_secret(error, login)
}

/// Keystone says the same about a wrong password, an unknown user and a project that is not the user's. It is not asked
/// a second time to tell them apart: each failure counts towards locking the account.
fn unauthorized(login: &Login, answer: &Answer) -> Error {
    let who = login.who();
    let read_in = match &login.whence {
        login::Whence::At(_) => String::new(),
        login::Whence::Said(words) => format!(" (read in {words})"),
    };
    let refusal = |message: String| answer.failure(ErrorKind::PermissionDenied, &message);
    match &login.method {
        login::Method::Token(_) => spent(login, answer),
        login::Method::ApplicationCredential { .. } => {
            refusal(format!("Keystone refuses {who}{read_in}")).advice(
                "its secret is wrong, or it is expired, deleted, or of another Keystone: \
                 `openstack application credential list` shows it to its user",
            )
        }
        login::Method::Password { .. } => {
            let mut advice = "check username, password and the user's domain".to_owned();
            if login.scope != Scope::Own {
                let scope = login.subject();
                advice.push_str(&format!(", and that the user has a role in {scope}"));
            }
            refusal(format!("Keystone refuses {who}{read_in}")).advice(advice)
        }
    }
}

/// A token that is no longer taken.
fn spent(login: &Login, answer: &Answer) -> Error {
    let error = answer.failure(
        ErrorKind::PermissionDenied,
        "the token has expired, was revoked, or is of another Keystone",
    );
    let error = match &login.whence {
        login::Whence::At(place) => error.at(place.clone()),
        login::Whence::Said(words) => error.during(words.clone()),
    };
    error.advice(
        "a token alone cannot be renewed: get a new one, or log in by a password or an application \
         credential, which are renewed by themselves",
    )
}

/// The error, unless it repeats the secret: Keystone quotes what it does not understand.
fn without_secret(error: Error, login: &Login) -> Error {
    let secret = login.secret().reveal();
    if secret.is_empty() || !error.chain().contains(secret) {
        return error;
    }
    Error::new(error.kind(), "Keystone refuses the login")
        .subject(error.subject_text().unwrap_or_default())
        .advice("what it says repeats the secret and is left out: check the keys of the login")
}

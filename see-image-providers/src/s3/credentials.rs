//! Whose requests to S3 these are, and their signatures.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use reqsign_aws_v4::{
    AssumeRoleCredentialProvider, AssumeRoleWithWebIdentityCredentialProvider, Credential,
    ECSCredentialProvider, EMPTY_STRING_SHA256, EnvCredentialProvider, IMDSv2CredentialProvider,
    ProcessCredentialProvider, ProfileCredentialProvider, RequestSigner, SSOCredentialProvider,
    StaticCredentialProvider,
};
use reqsign_core::{
    CommandExecute, CommandOutput, Context, Env, FileRead, HttpSend, ProvideCredential,
    ProvideCredentialDyn, SignRequest, Signer, SigningCredential,
};
use reqwest::header::{HOST, HeaderName, HeaderValue};
use reqwest::{Request, Url};
use see_core::{Error, ErrorKind, Result};
use tokio::sync::Mutex;

use super::profile::{Identity, Role, Unsupported};
use crate::client::{Client, TlsConfiguration};
use crate::text;

/// The header with the digest of a request's body.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("x-amz-content-sha256");
/// As much as a service that gives out credentials may answer.
const LONGEST_ANSWER: usize = 1024 * 1024;
/// The longest wait for a program that gives out credentials: it may ask a person.
const PROGRAM_LIMIT: Duration = Duration::from_secs(120);

/// Where credentials may come from.
pub(super) enum Source {
    /// From the configuration.
    Given(Credential),
    /// From wherever Amazon's own tools look for them.
    Chain {
        /// The profile that the configuration names; the environment's variables do not count then.
        profile: Option<String>,
        /// The role that the selected profile assumes.
        role: Option<Role>,
        /// The region whose service gives out the credentials of roles.
        region: String,
        /// What the selected profile has that does not work here.
        unsupported: Option<Unsupported>,
        /// Whether the host's own metadata service is asked at last.
        asks_instance: bool,
    },
}

/// Signs requests with credentials, which are looked for when they are first needed.
pub(super) struct Credentials {
    source: Source,
    context: Context,
    held: Mutex<Option<Held>>,
}

#[derive(Clone)]
struct Held {
    credential: Credential,
    origin: &'static str,
}

impl Credentials {
    /// Credentials out of this source; `environment` is where variables and the home folder come from, `tls` says
    /// whom the services have to be that give out credentials.
    ///
    /// # Errors
    /// What [`Client::new`] reports.
    pub(super) fn new(
        source: Source,
        environment: impl Env,
        tls: &TlsConfiguration,
    ) -> Result<Self> {
        let context = Context::new()
            .with_env(environment)
            .with_file_read(Files)
            .with_command_execute(Programs)
            .with_http_send(Services {
                anywhere: Client::new(tls)?,
                here: Client::direct(tls)?,
            });
        Ok(Self {
            source,
            context,
            held: Mutex::new(None),
        })
    }

    /// Signs the request for a region.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where there are no credentials, and what their source reports.
    pub(super) async fn sign(&self, request: &mut Request, region: &str) -> Result<()> {
        let held = self.held().await?;
        let unsigned = |error: &dyn std::fmt::Display| {
            Error::new(
                ErrorKind::Internal,
                format!("the request to S3 cannot be signed: {error}"),
            )
        };
        let builder = http::Request::builder()
            .method(request.method().clone())
            .uri(request.url().as_str());
        let whole = builder.body(()).map_err(|error| unsigned(&error))?;
        let (mut parts, ()) = whole.into_parts();
        parts.headers.clone_from(request.headers());
        // Requests here have no body. Signed, the header serves servers that insist on it.
        let digest = HeaderValue::from_static(EMPTY_STRING_SHA256);
        parts.headers.insert(CONTENT_DIGEST, digest);
        RequestSigner::new("s3", region)
            .sign_request(&self.context, &mut parts, Some(&held.credential), None)
            .await
            .map_err(|error| unsigned(&error))?;
        // The client sets it by itself, to the same.
        parts.headers.remove(HOST);
        *request.headers_mut() = parts.headers;
        Ok(())
    }

    /// Where the credentials came from, in words.
    pub(super) async fn origin(&self) -> &'static str {
        let held = self.held.lock().await;
        held.as_ref().map_or("nobody", |held| held.origin)
    }

    /// Looks for the credentials anew; `true` where others were found.
    ///
    /// # Errors
    /// As [`sign`](Self::sign).
    pub(super) async fn renew(&self) -> Result<bool> {
        let before = self.held.lock().await.take();
        let now = self.held().await?;
        Ok(before.is_some_and(|before| {
            before.credential.access_key_id != now.credential.access_key_id
                || before.credential.secret_access_key != now.credential.secret_access_key
                || before.credential.session_token != now.credential.session_token
        }))
    }

    async fn held(&self) -> Result<Held> {
        let mut slot = self.held.lock().await;
        if let Some(held) = slot.as_ref()
            && held.credential.is_valid()
        {
            return Ok(held.clone());
        }
        let found = self.find().await?;
        *slot = Some(found.clone());
        Ok(found)
    }

    async fn find(&self) -> Result<Held> {
        let (profile, role, region, unsupported, asks_instance) = match &self.source {
            Source::Given(credential) => {
                return Ok(Held {
                    credential: credential.clone(),
                    origin: "the configuration",
                });
            }
            Source::Chain {
                profile,
                role,
                region,
                unsupported,
                asks_instance: asks,
            } => (profile.as_deref(), role, region, unsupported, *asks),
        };
        let variables = match profile {
            None => variables(),
            Some(_) => Vec::new(),
        };
        if let Some(held) = self.first_of(variables).await? {
            return Ok(held);
        }
        // Other credentials than the profile means would be a surprise.
        if let Some(unsupported) = unsupported {
            return Err(unsupported.refusal());
        }
        if let Some(role) = role {
            return self.assumed(role, region).await;
        }
        let found = self.first_of(chain(profile, asks_instance)).await?;
        found.ok_or_else(|| self.nothing(profile, asks_instance))
    }

    /// The credentials of a role, which Amazon's token service gives out to whoever may assume it.
    async fn assumed(&self, role: &Role, region: &str) -> Result<Held> {
        let wrong = |message: String| Error::new(ErrorKind::Configuration, message);
        let (name, sources) = match &role.by {
            Identity::Token(file) => {
                let mut provider = AssumeRoleWithWebIdentityCredentialProvider::with_config(
                    role.arn.clone(),
                    file.clone(),
                )
                .with_region(region.to_owned())
                .with_regional_sts_endpoint();
                if let Some(session) = &role.session {
                    provider = provider.with_role_session_name(session.clone());
                }
                let found = self.first_of(vec![source(ROLE, provider)]).await?;
                return found
                    .ok_or_else(|| wrong("the role of the AWS profile gives nothing".to_owned()));
            }
            Identity::Profile(name) => (name, of_profile(Some(name))),
            Identity::Source(name) => {
                let source = match name.as_str() {
                    "Environment" => source("the environment", EnvCredentialProvider::new()),
                    "EcsContainer" => source("the container", ECSCredentialProvider::new()),
                    "Ec2InstanceMetadata" => {
                        source("the instance", IMDSv2CredentialProvider::new())
                    }
                    _ => {
                        let message =
                            format!("found the `credential_source` `{}`", name.escape_debug());
                        return Err(wrong(message)
                            .advice("expected Environment, EcsContainer or Ec2InstanceMetadata"));
                    }
                };
                (name, vec![source])
            }
        };
        let Some(Held { credential, .. }) = self.first_of(sources).await? else {
            let message = format!(
                "`{}` gives no credentials to assume a role with",
                name.escape_debug()
            );
            return Err(wrong(message)
                .advice("give it some, such as `aws_access_key_id` and `aws_secret_access_key`"));
        };
        let mut own =
            StaticCredentialProvider::new(&credential.access_key_id, &credential.secret_access_key);
        if let Some(token) = &credential.session_token {
            own = own.with_session_token(token);
        }
        let signer = Signer::new(self.context.clone(), own, RequestSigner::new("sts", region));
        let mut provider = AssumeRoleCredentialProvider::new(role.arn.clone(), signer)
            .with_region(region.to_owned())
            .with_regional_sts_endpoint();
        if let Some(session) = &role.session {
            provider = provider.with_role_session_name(session.clone());
        }
        if let Some(id) = &role.external_id {
            provider = provider.with_external_id(id.clone());
        }
        let found = self.first_of(vec![source(ROLE, provider)]).await?;
        found.ok_or_else(|| wrong("the role of the AWS profile gives nothing".to_owned()))
    }

    async fn first_of(&self, sources: Vec<(&'static str, Provider)>) -> Result<Option<Held>> {
        for (origin, provider) in sources {
            let given = provider.provide_credential_dyn(&self.context).await;
            let found = given.map_err(|error| {
                // Its words may quote what a service answered, but never a key: they are redacted.
                Error::new(
                    ErrorKind::PermissionDenied,
                    format!("{origin} gives no credentials for S3: {error}"),
                )
                .advice(
                    "give `auth.aws_access_key_id` and `auth.aws_secret_access_key`, or mend it",
                )
            })?;
            if let Some(credential) = found {
                return Ok(Some(Held { credential, origin }));
            }
        }
        Ok(None)
    }

    fn nothing(&self, profile: Option<&str>, asks_instance: bool) -> Error {
        let error = |message| Error::new(ErrorKind::Configuration, message);
        let half = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]
            .map(|name| (name, self.context.env_var(name).is_some()));
        match (profile, half) {
            (None, [(one, true), (other, false)] | [(other, false), (one, true)]) => {
                error(format!("{one} is set, but {other} is not")).advice("set both, or neither")
            }
            _ => error("there are no credentials for S3".to_owned()).advice(format!(
                "give `auth.aws_access_key_id` and `auth.aws_secret_access_key`; \
                 the AWS environment, its profiles{} were looked at; \
                 for a public object set `anonymous`",
                if asks_instance {
                    ", its containers and this instance's role"
                } else {
                    " and its containers"
                }
            )),
        }
    }
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Where the credentials of a role come from, in words.
const ROLE: &str = "the role of the AWS profile";

type Provider = Box<dyn ProvideCredentialDyn<Credential = Credential>>;

fn source(
    name: &'static str,
    provider: impl ProvideCredential<Credential = Credential>,
) -> (&'static str, Provider) {
    (name, Box::new(provider))
}

/// The sources that come before the profile, in boto3's order, each with its name.
fn variables() -> Vec<(&'static str, Provider)> {
    vec![
        source("the environment", EnvCredentialProvider::new()),
        source(
            "the web identity",
            AssumeRoleWithWebIdentityCredentialProvider::new(),
        ),
    ]
}

/// The profile and what comes after it. None of them asks a server unless the environment or the profile names
/// one; the instance's own is asked only on request.
fn chain(profile: Option<&str>, asks_instance: bool) -> Vec<(&'static str, Provider)> {
    let mut chain = of_profile(profile);
    chain.push(source("the container", ECSCredentialProvider::new()));
    if asks_instance {
        chain.push(source("the instance", IMDSv2CredentialProvider::new()));
    }
    chain
}

/// What a profile says itself, or the one that the environment selects.
fn of_profile(profile: Option<&str>) -> Vec<(&'static str, Provider)> {
    let mut keys = ProfileCredentialProvider::new();
    let mut sign_on = SSOCredentialProvider::new();
    let mut program = ProcessCredentialProvider::new();
    if let Some(name) = profile {
        keys = keys.with_profile(name);
        sign_on = sign_on.with_profile(name);
        program = program.with_profile(name);
    }
    vec![
        source("the single sign-on of the AWS profile", sign_on),
        source("the AWS profile", keys),
        source("the program of the AWS profile", program),
    ]
}

/// Reads the files that the environment or a profile names.
#[derive(Debug)]
struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> reqsign_core::Result<Vec<u8>> {
        let path = PathBuf::from(path);
        let reading = tokio::task::spawn_blocking(move || text::read(&path));
        let read = reading
            .await
            .map_err(|error| reqsign_core::Error::unexpected(error.to_string()))?;
        read.map(String::into_bytes)
            .map_err(|error| reqsign_core::Error::config_invalid(error.to_string()))
    }
}

/// The secrets of an environment that a program which gives credentials has no use for. Everything else stays: it may
/// take its own login from any variable.
const NOT_FOR_PROGRAMS: [&str; 6] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "OS_PASSWORD",
    "OS_TOKEN",
    "OS_APPLICATION_CREDENTIAL_SECRET",
];

/// Runs the program that a profile names under `credential_process`.
#[derive(Debug)]
struct Programs;

impl CommandExecute for Programs {
    async fn command_execute<'a>(
        &'a self,
        program: &'a str,
        arguments: &'a [&'a str],
    ) -> reqsign_core::Result<CommandOutput> {
        let refused = reqsign_core::Error::config_invalid;
        let mut command = tokio::process::Command::new(program);
        for name in NOT_FOR_PROGRAMS {
            command.env_remove(name);
        }
        let running = command
            .args(arguments)
            .stdin(std::process::Stdio::null())
            // A Ctrl-C is for the run, not for what it asks.
            .process_group(0)
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(PROGRAM_LIMIT, running)
            .await
            .map_err(|_| refused(format!("it did not end within {PROGRAM_LIMIT:?}")))?
            .map_err(|error| refused(format!("`{program}` cannot be started: {error}")))?;
        Ok(CommandOutput {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }
}

/// Asks the services that give out credentials.
#[derive(Debug)]
struct Services {
    anywhere: Client,
    /// Those of containers and instances are not encrypted: no proxy may see what they give out.
    here: Client,
}

impl HttpSend for Services {
    async fn http_send(
        &self,
        request: http::Request<Bytes>,
    ) -> reqsign_core::Result<http::Response<Bytes>> {
        let failed =
            |error: &dyn std::fmt::Display| reqsign_core::Error::unexpected(error.to_string());
        let (parts, body) = request.into_parts();
        let url = Url::parse(&parts.uri.to_string()).map_err(|error| failed(&error))?;
        let mut request = Request::new(parts.method, url);
        *request.headers_mut() = parts.headers;
        if !body.is_empty() {
            *request.body_mut() = Some(body.into());
        }
        let client = match request.url().scheme() {
            "http" => &self.here,
            _ => &self.anywhere,
        };
        let read = client.read(request, LONGEST_ANSWER).await;
        let (response, body) = read.map_err(|error| failed(&error))?;
        let mut answer = http::Response::new(body);
        *answer.status_mut() = response.status();
        *answer.headers_mut() = response.headers().clone();
        Ok(answer)
    }
}

#[cfg(test)]
mod tests;

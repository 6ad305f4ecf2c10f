//! python-see's original agent: HTTP, one request a command, output at its end.

use see_agent::protocol::Upload;
use see_core::{Error, ErrorKind, Result};
use serde::Deserialize;
use std::time::Duration;
use tokio::fs::File;

/// The longest answer that is read, in bytes.
const MAX_ANSWER: usize = 64 << 20;
/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How much longer than its command a request may take.
const GRACE: Duration = Duration::from_secs(30);

/// python-see's agent at one address.
#[derive(Debug)]
pub(super) struct PythonAgent {
    client: reqwest::Client,
    url: reqwest::Url,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Answer {
    /// The command's exit code; none when it was not waited for.
    pub(super) exit_code: Option<i32>,
    /// What it wrote to both outputs.
    #[serde(default, deserialize_with = "text_or_nothing")]
    pub(super) command_output: String,
}

fn text_or_nothing<'de, D: serde::Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// Settings of TLS that believe nobody. The agent speaks plain HTTP; but where another crate of the program has
/// reqwest speak TLS, without a cryptography of its own choice, no client is built without settings.
fn no_tls() -> std::result::Result<rustls::ClientConfig, rustls::Error> {
    let provider = rustls::crypto::ring::default_provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()?;
    Ok(builder
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth())
}

impl PythonAgent {
    pub(super) fn new(host: &str, port: u16) -> Result<Self> {
        // An IPv6 address stands in brackets.
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let url = format!("http://{host}:{port}/");
        let bad = |error: &dyn std::fmt::Display| {
            Error::new(
                ErrorKind::Configuration,
                format!("no agent can be at {url}: {error}"),
            )
        };
        let parsed = reqwest::Url::parse(&url).map_err(|error| bad(&error))?;
        // The guest must not send the host elsewhere, and no proxy is between the two.
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .tls_backend_preconfigured(no_tls().map_err(|error| bad(&error))?)
            .build()
            .map_err(|error| bad(&error))?;
        Ok(Self {
            client,
            url: parsed,
        })
    }

    /// Runs a command; with a sample, stores that beside it first.
    pub(super) async fn run(
        &self,
        command: &str,
        background: bool,
        sample: Option<(Upload, File)>,
        deadline: Duration,
    ) -> Result<Answer> {
        let mut url = self.url.clone();
        let flag = if background { "1" } else { "0" };
        url.query_pairs_mut()
            .append_pair("command", command)
            .append_pair("async", flag);
        let request = match sample {
            None => self.client.get(url),
            Some((upload, file)) => {
                let name = String::from_utf8_lossy(&upload.name);
                url.query_pairs_mut().append_pair("sample", &name);
                // The agent reads as many bytes as it is told, and knows no chunks.
                self.client
                    .post(url)
                    .header(reqwest::header::CONTENT_LENGTH, upload.size)
                    .body(file)
            }
        };
        let answer = request
            .timeout(deadline + GRACE)
            .send()
            .await
            .map_err(|error| unanswered(error, deadline))?;
        let status = answer.status();
        let body = bounded(answer, deadline).await?;
        if !status.is_success() {
            let message = format!("the agent answers with status {status}");
            return Err(Error::new(ErrorKind::Guest, message));
        }
        serde_json::from_slice(&body).map_err(|error| {
            Error::new(
                ErrorKind::Guest,
                "the agent's answer is not what it should be",
            )
            .caused_by(error)
        })
    }
}

async fn bounded(mut answer: reqwest::Response, deadline: Duration) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let chunk = answer
            .chunk()
            .await
            .map_err(|error| unanswered(error, deadline))?;
        let Some(chunk) = chunk else {
            return Ok(body);
        };
        if body.len() + chunk.len() > MAX_ANSWER {
            let message = format!("the agent's answer is longer than {MAX_ANSWER} bytes");
            return Err(Error::new(ErrorKind::Guest, message));
        }
        body.extend_from_slice(&chunk);
    }
}

/// The address of a request holds the command: it stays out of the message.
fn unanswered(error: reqwest::Error, deadline: Duration) -> Error {
    if error.is_timeout() {
        return Error::timeout("the agent's answer", deadline + GRACE);
    }
    Error::new(ErrorKind::Unavailable, "the agent does not answer").caused_by(error.without_url())
}

//! The HTTP client of all providers: TLS as the configuration says, credentials for one host alone.

mod failure;
mod header;
mod open;
mod redirect;
mod retry;
mod tls;

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::{Method, Request, Response, Url};
use see_core::{Error, ErrorKind, Result};

pub(crate) use self::failure::of_transport as broken;
pub use self::failure::shown;
pub use self::header::retry_after;
pub(crate) use self::header::text;
pub(crate) use self::open::{warn_if_open, warn_if_unproven};
use self::retry::is_asked_again;
pub(crate) use self::retry::{Retry, is_busy, is_passing, with_fallback};
pub use self::tls::TlsConfiguration;

/// The longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
/// The longest wait for the head of an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// What an idle connection is kept for.
const IDLE: Duration = Duration::from_secs(30);

/// Sends requests so that what authorises them reaches their own host only.
///
/// A redirect to the same scheme, host and port keeps all headers. One to anywhere else loses every header
/// but those that describe the transfer, is made without the client certificate, and never leads from https
/// to http. At most ten are followed.
#[derive(Debug, Clone)]
pub struct Client {
    own: reqwest::Client,
    /// Presents no client certificate.
    elsewhere: reqwest::Client,
    is_insecure: bool,
}

impl Client {
    /// A client with these settings. Reads the files that they name.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] with the place, where a certificate or key cannot be read.
    pub fn new(tls: &TlsConfiguration) -> Result<Self> {
        Self::built(tls, |builder| builder)
    }

    /// A client that passes by the proxies of the environment, for services of this host itself.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub(crate) fn direct(tls: &TlsConfiguration) -> Result<Self> {
        Self::built(tls, reqwest::ClientBuilder::no_proxy)
    }

    fn built(
        tls: &TlsConfiguration,
        with: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
    ) -> Result<Self> {
        let build = |settings| {
            with(reqwest::Client::builder())
                .tls_backend_preconfigured(settings)
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .connect_timeout(CONNECT_LIMIT)
                .pool_idle_timeout(IDLE)
                .user_agent(concat!("see/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(|error| {
                    Error::new(ErrorKind::Internal, "the HTTP client cannot be made")
                        .caused_by(error)
                })
        };
        let elsewhere = build(tls.without_identity()?)?;
        let own = match tls.with_identity()? {
            Some(settings) => build(settings)?,
            None => elsewhere.clone(),
        };
        Ok(Self {
            own,
            elsewhere,
            is_insecure: tls.is_insecure(),
        })
    }

    /// The same for a server that the client certificate is not meant for: it is shown none.
    pub(crate) fn without_certificate(&self) -> Self {
        Self {
            own: self.elsewhere.clone(),
            ..self.clone()
        }
    }

    /// Whether servers are believed without proof of who they are.
    pub fn is_insecure(&self) -> bool {
        self.is_insecure
    }

    /// A request, to be completed and built by the caller and sent with [`send`](Self::send).
    pub fn request(&self, method: Method, url: Url) -> reqwest::RequestBuilder {
        self.own.request(method, url)
    }

    /// Sends the request, and again while the server is busy or cannot be reached, for some seconds; follows redirects.
    /// Whatever status comes in the end is an answer.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where no answer comes, with what to do about it; [`ErrorKind::Timeout`]
    /// where it takes longer than a minute; [`ErrorKind::Unsupported`] for a redirect that is not followed.
    pub async fn send(&self, request: Request) -> Result<Response> {
        let (response, _) = self.ask(request, None).await?;
        Ok(response)
    }

    /// Sends the request as [`send`](Self::send) does, and reads the body of an answer that should be small, such as a
    /// listing.
    ///
    /// # Errors
    /// [`ErrorKind::Exhausted`] where it has more than `limit` bytes; [`ErrorKind::Timeout`] where all of it takes
    /// longer than a minute; and as [`send`](Self::send).
    pub async fn read(&self, request: Request, limit: usize) -> Result<(Response, Bytes)> {
        self.ask(request, Some(limit)).await
    }

    /// Sends the request once, and follows redirects: for who has a patience of their own.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub(crate) async fn send_once(&self, request: Request) -> Result<Response> {
        redirect::follow(self, request).await
    }

    /// The answer, and its body where that has a limit.
    async fn ask(&self, mut request: Request, limit: Option<usize>) -> Result<(Response, Bytes)> {
        let mut retry = Retry::of_question();
        loop {
            // A body that comes only once cannot be sent again; none of ours does.
            let again = request.try_clone();
            let answer = self.ask_once(request, limit).await;
            let asked = match &answer {
                Ok((response, _)) if is_busy(response.status()) => retry_after(response.headers()),
                Err(error) if is_asked_again(error) => None,
                _ => return answer,
            };
            let (Some(wait), Some(again)) = (retry.next(asked), again) else {
                return answer;
            };
            request = again;
            match answer {
                Ok((response, _)) => {
                    let (server, status) = (shown(response.url()), response.status());
                    tracing::debug!(server, %status, ?wait, "the server is busy");
                }
                Err(error) => tracing::debug!(error = %error.chain(), ?wait, "no answer came"),
            }
            tokio::time::sleep(wait).await;
        }
    }

    async fn ask_once(&self, request: Request, limit: Option<usize>) -> Result<(Response, Bytes)> {
        let mut response = self.send_once(request).await?;
        let body = match limit {
            Some(limit) => self.body(&mut response, limit).await?,
            None => Bytes::new(),
        };
        Ok((response, body))
    }

    /// The rest of an answer that should be small.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub(crate) async fn body(&self, response: &mut Response, limit: usize) -> Result<Bytes> {
        let url = shown(response.url());
        let mut body = BytesMut::new();
        let deadline = tokio::time::Instant::now() + ANSWER_LIMIT;
        loop {
            let waited = tokio::time::timeout_at(deadline, response.chunk()).await;
            let chunk = waited
                .map_err(|_| Error::timeout("the server's answer", ANSWER_LIMIT).subject(&url))?
                .map_err(|error| failure::of_transport(error, &url))?;
            let Some(chunk) = chunk else {
                return Ok(body.freeze());
            };
            if body.len() + chunk.len() > limit {
                return Err(Error::new(
                    ErrorKind::Exhausted,
                    format!("the server's answer has more than {limit} bytes"),
                )
                .subject(url));
            }
            body.extend_from_slice(&chunk);
        }
    }
}

//! Glance as an origin of images: logged in, and logged in again when a token is no longer taken.

use std::sync::{Once, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use reqwest::{Method, Request, StatusCode, Url};
use see_core::config::Place;
use see_core::{Error, ErrorKind, Result, Secret, StopToken};
use tokio::sync::Mutex;

use super::catalog::{EndpointInterface, image_service};
use super::exchange::{Answer, ask};
use super::images::{self, Asks, Described};
use super::keystone::{self, log_in};
use super::login::{self, Login};
use crate::cache::{Algorithm, ByteRange, Digest, Object, Origin};
use crate::client::{Client, shown, warn_if_open};

/// The longest that a login may take, with all its tries.
const LOGIN_LIMIT: Duration = Duration::from_secs(150);
/// The longest that the search for an image may take.
const LOOK_LIMIT: Duration = Duration::from_secs(300);

/// Which Glance of a cloud is asked.
#[derive(Debug)]
pub(super) struct Service {
    /// Its address, where it is not the catalog's.
    pub(super) endpoint: Option<Url>,
    pub(super) region: Option<String>,
    /// Where the configuration asks for the region.
    pub(super) asked_at: Option<Place>,
    pub(super) interface: EndpointInterface,
    /// Whether the servers are believed without proof of who they are.
    pub(super) insecure: bool,
}

/// One image of one Glance.
#[derive(Debug)]
pub(super) struct Glance {
    client: Client,
    /// `None` for a Glance that asks for no login.
    login: Option<Login>,
    service: Service,
    /// The image's name or id.
    image: String,
    session: Mutex<Option<Session>>,
    /// Done once it was told whether others can read the token.
    told: Once,
    /// The id of the image that was found last.
    chosen: std::sync::Mutex<Option<String>>,
}

/// What a login gave.
#[derive(Debug, Clone)]
struct Session {
    token: Option<Secret>,
    base: Url,
}

impl Glance {
    pub(super) fn new(
        client: Client,
        login: Option<Login>,
        service: Service,
        image: String,
    ) -> Self {
        Self {
            client,
            login,
            service,
            image,
            session: Mutex::new(None),
            told: Once::new(),
            chosen: std::sync::Mutex::new(None),
        }
    }

    /// The image and where it is, without a secret.
    pub(super) fn words(&self) -> String {
        let mut words = format!("glance {}", self.image.escape_debug());
        if let Some(region) = &self.service.region {
            words.push_str(&format!(" in {}", region.escape_debug()));
        }
        if let Some(login) = &self.login {
            words.push_str(&format!(" of {} at {}", login.subject(), login.url));
        }
        if let Some(endpoint) = &self.service.endpoint {
            words.push_str(&format!(" from {endpoint}"));
        }
        // What was fetched so is shown as such, and serves nobody who asks for proof.
        if self.service.insecure {
            words.push_str(" (insecure)");
        }
        words
    }

    /// The session there is, else a new one. Several who ask at once log in once.
    async fn session(&self) -> Result<Session> {
        let mut kept = self.session.lock().await;
        if let Some(session) = kept.as_ref() {
            return Ok(session.clone());
        }
        let session = self.open().await?;
        *kept = Some(session.clone());
        Ok(session)
    }

    /// A new session in the place of one that was refused; `None` where a new one would be no other.
    async fn session_after(&self, refused: &Session) -> Result<Option<Session>> {
        let Some(login) = &self.login else {
            return Ok(None);
        };
        let mut kept = self.session.lock().await;
        // Somebody else may have logged in meanwhile.
        let is_refused = |session: &Session| session.token == refused.token;
        if let Some(session) = kept.take_if(|session| !is_refused(session)) {
            *kept = Some(session.clone());
            return Ok(Some(session));
        }
        *kept = None;
        let session = self.open().await?;
        if matches!(login.method, login::Method::Token(_)) && session.token == refused.token {
            return Ok(None);
        }
        *kept = Some(session.clone());
        Ok(Some(session))
    }

    async fn open(&self) -> Result<Session> {
        let Some(login) = &self.login else {
            let base = self.service.endpoint.clone().ok_or_else(|| {
                Error::new(ErrorKind::Internal, "without a login there is an endpoint")
            })?;
            return Ok(Session { token: None, base });
        };
        let token = tokio::time::timeout(LOGIN_LIMIT, log_in(&self.client, login)).await;
        let token = token
            .map_err(|_| Error::timeout("Keystone's answers", LOGIN_LIMIT).subject(&login.url))??;
        let base = match &self.service.endpoint {
            Some(base) => base.clone(),
            None if !token.is_scoped => {
                return Err(login
                    .whence
                    .wrong("the login is for no project, so that Keystone shows no services")
                    .advice("give project_name, and the project's domain"));
            }
            None => {
                let region = self.service.region.as_deref();
                let found = image_service(&token.catalog, region, self.service.interface);
                found.map_err(|error| match &self.service.asked_at {
                    Some(place) => error.or_at(place),
                    None => error.subject(&login.url),
                })?
            }
        };
        // Only the catalog may know where it goes. Later logins are no news.
        self.told.call_once(|| warn_if_open(&base, "the token"));
        tracing::debug!(keystone = %login.url, glance = %shown(&base), "logged in");
        Ok(Session {
            token: Some(token.secret),
            base,
        })
    }

    fn prepared(&self, session: &Session, url: &Url) -> Result<Request> {
        let mut request = self.client.request(Method::GET, url.clone());
        if let Some(token) = &session.token {
            request = request.header("X-Auth-Token", keystone::header(token)?);
        }
        request.build().map_err(|_| {
            Error::new(ErrorKind::Internal, "a request to Glance cannot be made")
                .subject(shown(url))
        })
    }

    fn chosen(&self) -> Option<String> {
        let chosen = self.chosen.lock();
        chosen.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn find(&self) -> Result<Described> {
        let base = self.session().await?.base;
        let looking = images::look(self, &base, &self.image);
        let found = tokio::time::timeout(LOOK_LIMIT, looking).await;
        found.map_err(|_| Error::timeout("Glance's answers", LOOK_LIMIT).subject(shown(&base)))?
    }

    /// The error for a token that the image service does not take, new as it is.
    fn locked_out(&self, answer: &Answer) -> Error {
        let error = answer.failure(
            ErrorKind::PermissionDenied,
            "the image service does not take the token that Keystone gave out",
        );
        match &self.login {
            None => error.advice("this Glance asks for a login: give `os_auth`"),
            Some(login) => error.advice(format!(
                "check that it is the Glance of the cloud whose Keystone is at {}",
                login.url
            )),
        }
    }
}

#[async_trait]
impl Asks for Glance {
    async fn get(&self, url: &Url) -> Result<Answer> {
        let session = self.session().await?;
        let answer = ask(&self.client, self.prepared(&session, url)?).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let Some(session) = self.session_after(&session).await? else {
            return Err(self.locked_out(&answer));
        };
        let answer = ask(&self.client, self.prepared(&session, url)?).await?;
        match answer.status {
            StatusCode::UNAUTHORIZED => Err(self.locked_out(&answer)),
            _ => Ok(answer),
        }
    }
}

#[async_trait]
impl Origin for Glance {
    fn identity(&self) -> String {
        self.words()
    }

    fn client(&self) -> &Client {
        &self.client
    }

    async fn resolve(&self, stop: &StopToken) -> Result<Object> {
        let found = stop.or("ask the image service", self.find()).await??;
        *self.chosen.lock().unwrap_or_else(PoisonError::into_inner) = Some(found.id.clone());
        let digests = digests(&found);
        let mut version = found.id.clone();
        if let Some(digest) = digests.first() {
            version.push_str(&format!(" {digest}"));
        }
        let mut object = Object::new(version, &found.id);
        object.size = found.size;
        object.digests = digests;
        Ok(object)
    }

    async fn request(&self, object: &Object, _range: Option<ByteRange>) -> Result<Request> {
        let session = self.session().await?;
        let url = images::at(&session.base, &format!("v2/images/{}/file", object.name))?;
        self.prepared(&session, &url)
    }

    async fn renew(&self) -> Result<bool> {
        let refused = self.session.lock().await.clone();
        let is_new = match &refused {
            Some(refused) => self.session_after(refused).await?.is_some(),
            None => true,
        };
        // It is refused as well once it is deactivated, and then no login helps.
        if let Some(id) = self.chosen() {
            let base = self.session().await?.base;
            match images::by_id(self, &base, &id).await? {
                Some(found) => images::usable(&found)?,
                None => return Err(images::gone(&id)),
            }
        }
        Ok(is_new)
    }

    /// Also where no image of the name is active any more: what was fetched of it before serves, as it did with
    /// python-see.
    fn older_serves(&self, error: &Error) -> bool {
        matches!(
            error.kind(),
            ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::NotFound
        )
    }
}

/// What the data are checked with: the strong hash first, where Glance has one.
fn digests(image: &Described) -> Vec<Digest> {
    let strong = match (&image.os_hash_algo, &image.os_hash_value) {
        (Some(algorithm), Some(value)) => Algorithm::of_name(algorithm)
            .and_then(|algorithm| Digest::of_hex(algorithm, value).ok()),
        _ => None,
    };
    let weak = image.checksum.as_deref();
    let weak = weak.and_then(|value| Digest::of_hex(Algorithm::Md5, value).ok());
    strong.into_iter().chain(weak).collect()
}

//! An origin over the server that misbehaves, and a place to keep its images.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use reqwest::{Method, Request, Url};
use see_core::config::{ConfigPath, Configuration, DurationValue};
use see_core::ledger::Ledger;
use see_core::{
    Error, ErrorKind, Identifier, Image, ImageProgress, ImageRequest, Result, Stop, StopToken,
};
use see_image_providers::cache::{
    Algorithm, ByteRange, Cache, CacheConfiguration, Delivery, Digest, Hasher, Object, Origin,
    Store, Validator,
};
use see_image_providers::client::{Client, TlsConfiguration};

/// The digest that a server could publish of these bytes.
pub(crate) fn digest(algorithm: Algorithm, bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    hasher.update(bytes);
    hasher.finish()
}

/// An image at one address: what a `HEAD` says of it, and what a test lets it know besides.
pub(crate) struct Web {
    pub(crate) client: Client,
    pub(crate) url: Url,
    pub(crate) digests: Vec<Digest>,
    /// Leaves the length out of what is known before.
    pub(crate) forgets_size: bool,
    /// Is known by the address without what may be secret.
    pub(crate) hides_address: bool,
    /// The headers that authorise.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl Web {
    pub(crate) fn new(url: String) -> Self {
        Self {
            client: Client::new(&TlsConfiguration::default()).unwrap(),
            url: url.parse().unwrap(),
            digests: Vec::new(),
            forgets_size: false,
            hides_address: false,
            headers: Vec::new(),
        }
    }

    pub(crate) fn promising(mut self, digest: Digest) -> Self {
        self.digests.push(digest);
        self
    }

    fn request_of(&self, method: Method) -> Request {
        let mut request = self.client.request(method, self.url.clone());
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        request.build().unwrap()
    }
}

#[async_trait]
impl Origin for Web {
    fn identity(&self) -> String {
        if self.hides_address {
            return see_image_providers::client::shown(&self.url);
        }
        self.url.to_string()
    }

    fn client(&self) -> &Client {
        &self.client
    }

    async fn resolve(&self, stop: &StopToken) -> Result<Object> {
        let sent = self.client.send(self.request_of(Method::HEAD));
        let response = stop.or("ask", sent).await??;
        if !response.status().is_success() {
            let kind = match response.status().as_u16() {
                404 => ErrorKind::NotFound,
                _ => ErrorKind::Unavailable,
            };
            return Err(Error::new(
                kind,
                format!("the server answers {}", response.status()),
            ));
        }
        let header = |name| {
            let value: &reqwest::header::HeaderValue = response.headers().get(name)?;
            Some(value.to_str().unwrap().to_owned())
        };
        let tag = header("etag");
        let date = header("last-modified");
        let version = tag.clone().or(date.clone()).unwrap_or_default();
        let name = self.url.path().rsplit('/').next().unwrap_or_default();
        let mut object = Object::new(version, name);
        object.validator = tag
            .map(Validator::EntityTag)
            .or(date.map(Validator::LastModified));
        object.size = header("content-length")
            .filter(|_| !self.forgets_size)
            .map(|length| length.parse().unwrap());
        object.digests = self.digests.clone();
        Ok(object)
    }

    async fn request(&self, _object: &Object, _range: Option<ByteRange>) -> Result<Request> {
        Ok(self.request_of(Method::GET))
    }
}

/// What a login does that can be renewed.
#[async_trait]
pub(crate) trait Login: Send + Sync {
    /// A request of an image that is behind it.
    async fn request(
        &self,
        web: &Web,
        object: &Object,
        range: Option<ByteRange>,
    ) -> Result<Request> {
        web.request(object, range).await
    }

    /// Renews it; `number` tells how often it was renewed before.
    async fn renew(&self, number: usize) -> Result<bool>;
}

/// An image at one address, behind a login.
pub(crate) struct Behind<L> {
    web: Web,
    login: L,
    renewals: AtomicUsize,
}

impl<L: Login> Behind<L> {
    pub(crate) fn new(login: L, web: Web) -> Self {
        let renewals = AtomicUsize::new(0);
        Self {
            web,
            login,
            renewals,
        }
    }

    /// How often the login was renewed, or was to be.
    pub(crate) fn renewals(&self) -> usize {
        self.renewals.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl<L: Login> Origin for Behind<L> {
    fn identity(&self) -> String {
        self.web.identity()
    }

    fn client(&self) -> &Client {
        self.web.client()
    }

    async fn resolve(&self, stop: &StopToken) -> Result<Object> {
        self.web.resolve(stop).await
    }

    async fn request(&self, object: &Object, range: Option<ByteRange>) -> Result<Request> {
        self.login.request(&self.web, object, range).await
    }

    async fn renew(&self) -> Result<bool> {
        let number = self.renewals.fetch_add(1, Ordering::Relaxed);
        self.login.renew(number).await
    }
}

/// A store in a folder of its own, and a ledger for its requests.
pub(crate) struct Shelf {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) configuration: CacheConfiguration,
    pub(crate) delivery: Delivery,
    pub(crate) stop: Stop,
}

impl Shelf {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = folder.path().join("store");
        Self::of(folder, store)
    }

    /// With its store in that folder, and the rest elsewhere.
    pub(crate) fn at(store: PathBuf) -> Self {
        Self::of(tempfile::tempdir().unwrap(), store)
    }

    /// With these settings, the store's folder among them.
    pub(crate) fn with(configuration: CacheConfiguration) -> Self {
        Self {
            configuration,
            ..Self::new()
        }
    }

    fn of(folder: tempfile::TempDir, store: PathBuf) -> Self {
        let configuration = CacheConfiguration {
            folder: Some(path(&store)),
            stall: Some(DurationValue(Duration::from_secs(20))),
            patience: Some(DurationValue(Duration::from_secs(20))),
            ..CacheConfiguration::default()
        };
        Self {
            folder,
            configuration,
            delivery: Delivery::default(),
            stop: Stop::new(),
        }
    }

    pub(crate) fn store_folder(&self) -> PathBuf {
        let folder = self.configuration.folder.as_ref().unwrap();
        folder.path().to_owned()
    }

    pub(crate) fn store(&self) -> Store {
        Store::open(&self.store_folder()).unwrap()
    }

    pub(crate) async fn get(&self, origin: &dyn Origin) -> Result<Image> {
        self.get_telling(origin, ImageProgress::new()).await
    }

    /// The same, told how far it is.
    pub(crate) async fn get_telling(
        &self,
        origin: &dyn Origin,
        progress: ImageProgress,
    ) -> Result<Image> {
        let state = self.folder.path().join("state");
        let ledger = Ledger::open(state).await?;
        let record = ledger.begin(Identifier::random(), "").await?;
        let token = self.stop.token();
        let request = ImageRequest::new(&record, &token).with_progress(progress);
        let cache = Cache::new(self.configuration.clone())?;
        let image = cache.image(origin, &self.delivery, &request).await;
        if let Err(error) = &image
            && error.kind() != ErrorKind::Stopped
        {
            // Whatever went wrong, somebody has to do something about it.
            assert!(error.advice_text().is_some(), "what to do? {error:?}");
        }
        // The record stays, as that of a kept environment does.
        image
    }

    /// Waits until a download has so many bytes on disk.
    pub(crate) async fn until_partial_has(&self, bytes: u64) {
        let deadline = Instant::now() + Duration::from_secs(10);
        let folder = self.store_folder().join("partial");
        let longest = || {
            let lengths = files(&folder).into_iter().filter_map(|name| {
                let found = std::fs::metadata(folder.join(name)).ok()?;
                Some(found.len())
            });
            lengths.max().unwrap_or(0)
        };
        while longest() < bytes {
            assert!(Instant::now() < deadline, "no download came so far");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The environments that used this image are gone.
    pub(crate) fn end_leases_of(&self, image: &Path) {
        let leases = self
            .store_folder()
            .join("leases")
            .join(image.file_name().unwrap());
        for name in files(&leases) {
            std::fs::remove_file(leases.join(name)).unwrap();
        }
    }

    /// The names of the files of downloads that are not complete.
    pub(crate) fn partials(&self) -> Vec<String> {
        files(&self.store_folder().join("partial"))
    }
}

pub(crate) fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    names
}

/// A path as a configuration has it.
pub(crate) fn path(path: &Path) -> ConfigPath {
    let place = Configuration::empty().place();
    ConfigPath::new(path.to_str().unwrap(), place)
}

//! An image of OpenStack's image service, Glance.

mod catalog;
mod clouds;
mod exchange;
mod images;
mod keys;
mod keystone;
mod login;
mod origin;
#[cfg(test)]
mod tests;

use async_trait::async_trait;
use reqwest::Url;
use see_core::config::{ConfigPath, Located, Size};
use see_core::{Error, ErrorKind, Image, ImageProvider, ImageRequest, Result};
use serde::Deserialize;

use self::catalog::base;
use self::clouds::{Cloud, Surroundings};
use self::login::Whence;
use self::origin::{Glance as GlanceOrigin, Service};
use crate::cache::{Cache, CacheConfiguration, Delivery, Unpack};
use crate::client::{Client, TlsConfiguration, warn_if_open};
use crate::pool::{self, Pool, PoolConfiguration};

pub use self::catalog::EndpointInterface;
pub use self::login::OpenStackLogin;

/// The provider `glance`: the newest active image of a name, or the one of an id.
///
/// ```json
/// {"provider": "glance", "name": "debian-13",
///  "provider_configuration": {
///    "os_auth": {"auth_url": "https://cloud.example.org:5000/v3", "username": "tester",
///                "password": "${env:CLOUD_PASSWORD}", "project_name": "images"}}}
/// {"provider": "glance", "name": "debian-13", "provider_configuration": {"cloud": "dev"}}
/// {"provider": "glance", "name": "debian-13"}
/// ```
///
/// Who logs in is told in `os_auth`; else by an entry of a `clouds.yaml`, which `cloud` or `OS_CLOUD` names;
/// else by the environment (`OS_AUTH_URL` and its like); else by the only entry of a `clouds.yaml`. One of these
/// counts, they are not mixed.
///
/// Of several images of one name the one that was made last counts (`created_at`), not the one that was touched
/// last. Where none is active any more, the one that was fetched before serves. The token goes to the image
/// service and to no other host, also across redirects.
#[derive(Debug)]
pub struct Glance {
    origin: GlanceOrigin,
    cache: Cache,
    delivery: Delivery,
    pool: Option<Pool>,
}

/// What stands under `provider_configuration`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlanceConfiguration {
    /// Who logs in, where, and for which project.
    pub os_auth: Option<Located<OpenStackLogin>>,
    /// The entry of a `clouds.yaml` that says so instead.
    pub cloud: Option<Located<String>>,
    /// The address of Glance. That of the cloud's catalog by default.
    #[serde(alias = "glance_url")]
    pub endpoint: Option<Located<String>>,
    /// The region whose Glance it is. The first of the catalog by default.
    #[serde(alias = "region_name")]
    pub region: Option<Located<String>>,
    /// Which of its addresses is asked: `public`, `internal` or `admin`. `public`.
    #[serde(alias = "endpoint_type")]
    pub interface: Option<EndpointInterface>,
    /// Whom the servers have to be, and the certificate that we show them.
    #[serde(alias = "session")]
    pub tls: Option<TlsConfiguration>,
    /// The digest that the image's bytes must have, besides those that Glance knows: `sha256:` or `sha512:` and
    /// its digits.
    pub checksum: Option<Located<String>>,
    /// Where the image is put: a folder gets it under its id, a file is replaced when Glance's is another one. By
    /// default it stays in the store.
    #[serde(alias = "target_path")]
    pub path: Option<ConfigPath>,
    /// A storage pool over the folder of `path`, which libvirt looks into once the image is there.
    pub libvirt_pool: Option<PoolConfiguration>,
    /// Whether a `.gz`, `.xz` or `.zst` is unpacked: `true`, `false`, or `"auto"` by what its bytes are. `false`.
    pub unpack: Option<Unpack>,
    /// The most bytes that the image may have, unpacked.
    pub max_size: Option<Size>,
    /// The store of images.
    pub cache: Option<CacheConfiguration>,
}

#[async_trait]
impl ImageProvider for Glance {
    const NAME: &'static str = "glance";
    const ALIASES: &'static [&'static str] = &["see.image_providers.GlanceProvider"];
    type Configuration = GlanceConfiguration;

    fn prepare(configuration: GlanceConfiguration, name: Option<Located<String>>) -> Result<Self> {
        prepared(configuration, name, Surroundings::of_process)
    }

    fn describe(&self) -> String {
        self.origin.words()
    }

    async fn image(&self, request: &ImageRequest<'_>) -> Result<Image> {
        let image = self.cache.image(&self.origin, &self.delivery, request);
        pool::after(image, self.pool.as_ref(), request.stop()).await
    }
}

/// The provider, with a login that may be told by what is around.
fn prepared(
    configuration: GlanceConfiguration,
    name: Option<Located<String>>,
    around: impl FnOnce() -> Surroundings,
) -> Result<Glance> {
    let name = name.filter(|name| !name.is_empty()).ok_or_else(|| {
        Error::new(
            ErrorKind::Configuration,
            "the provider `glance` is told no image",
        )
        .advice("give its `name`, or its id")
    })?;
    // Words of its owner, which are in no path: the image is fetched by its id.
    crate::name::plain(&name)?;
    let region = configuration.region;
    let cloud = cloud(
        configuration.os_auth,
        configuration.cloud,
        region.as_ref(),
        around,
    )?;
    let explicit = configuration.endpoint.as_ref().map(endpoint).transpose()?;
    let endpoint = match (explicit, &cloud.endpoint) {
        (Some(url), _) => Some(url),
        (None, Some(text)) => Some(base(text).map_err(|found| {
            cloud
                .whence
                .wrong(format!("`image_endpoint_override` is {found}"))
        })?),
        (None, None) => None,
    };
    let interface = match (configuration.interface, cloud.interface.as_deref()) {
        (Some(interface), _) => interface,
        (None, None) => EndpointInterface::default(),
        (None, Some(word)) => EndpointInterface::of_word(word).ok_or_else(|| {
            cloud
                .whence
                .wrong(format!("found the interface `{}`", word.escape_debug()))
                .advice("expected public, internal or admin")
        })?,
    };
    let login = cloud.login.complete(cloud.whence.clone())?;
    if login.is_none() && endpoint.is_none() {
        return Err(cloud
            .whence
            .wrong("without a login there is no catalog that says where Glance is")
            .advice("give `endpoint` with `auth_type` none"));
    }
    if let Some(login) = &login {
        warn_if_open(&login.url, "the login");
    }
    let tls = configuration.tls.unwrap_or(cloud.tls);
    let service = Service {
        insecure: tls.is_insecure(),
        endpoint,
        region: region
            .as_ref()
            .map(|region| region.to_string())
            .or(cloud.region),
        asked_at: region.map(|region| region.place().clone()),
        interface,
    };
    let client = Client::new(&tls)?;
    let delivery = Delivery::new(
        configuration.path,
        configuration.unpack,
        configuration.max_size,
        configuration.checksum.as_ref(),
    )?;
    Ok(Glance {
        pool: Pool::over(configuration.libvirt_pool, delivery.path.as_deref())?,
        origin: GlanceOrigin::new(client, login, service, name.into_inner()),
        cache: Cache::new(configuration.cache.unwrap_or_default())?,
        delivery,
    })
}

/// The login, wherever it is told.
fn cloud(
    os_auth: Option<Located<OpenStackLogin>>,
    name: Option<Located<String>>,
    region: Option<&Located<String>>,
    around: impl FnOnce() -> Surroundings,
) -> Result<Cloud> {
    match (os_auth, name) {
        (Some(_), Some(name)) => Err(Error::configuration(
            name.place().clone(),
            "`cloud` and `os_auth` both say who logs in",
        )
        .advice("give one of them")),
        (Some(login), None) => {
            let whence = Whence::At(login.place().clone());
            Ok(Cloud::new(login.into_inner(), whence))
        }
        (None, name) => clouds::find(name.as_ref(), region, &around()),
    }
}

fn endpoint(text: &Located<String>) -> Result<Url> {
    base(text).map_err(|found| {
        Error::configuration(text.place().clone(), format!("the address is {found}"))
            .advice("expected one such as https://cloud.example.org:9292")
    })
}

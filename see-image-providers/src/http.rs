//! An image on a web server.

mod address;
mod origin;
mod sums;

use async_trait::async_trait;
use see_core::config::{ConfigPath, Configuration, Located, Size};
use see_core::{Error, ErrorKind, Image, ImageProvider, ImageRequest, Result, Secret};
use serde::Deserialize;

use self::address::{Address, Login};
use self::origin::{HttpOrigin, Sums};
use crate::cache::{Cache, CacheConfiguration, Delivery, Unpack};
use crate::client::{Client, TlsConfiguration, warn_if_open};

/// The provider `http`: an image on a web server, over http or https.
///
/// ```json
/// {"provider": "http", "uri": "https://example.org/images/guest.qcow2",
///  "provider_configuration": {"checksums": true}}
/// {"provider": "http", "name": "guest.qcow2",
///  "provider_configuration": {"url": "https://example.org/images/",
///                             "checksum": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}}
/// ```
///
/// It is fetched once, and again when its entity tag or the time of its last change is another one, or the sum
/// that is expected. Proxies are taken from the environment (`HTTPS_PROXY`, `HTTP_PROXY`, `NO_PROXY`). What
/// says who asks goes to the image's own server and to no other, also across redirects; from https none leads
/// to http.
#[derive(Debug)]
pub struct Http {
    origin: HttpOrigin,
    cache: Cache,
    delivery: Delivery,
}

/// What stands under `provider_configuration`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfiguration {
    /// The image's address, or with `name` the one that it lies beneath. User and password may stand in it; they
    /// are shown nowhere.
    pub url: Option<Located<String>>,
    /// The digest that the bytes on the server must have: `sha256:` or `sha512:` and its digits.
    pub checksum: Option<Located<String>>,
    /// Where a file with digests is, as `sha256sum` writes them: `true` for the `SHA256SUMS` or `SHA512SUMS` beside
    /// the image, or its address, which may be relative to the image's.
    pub checksums: Option<Configuration>,
    /// Who asks. Nobody in particular by default.
    pub auth: Option<HttpAuth>,
    /// Whom the server has to be, and the certificate that we show it.
    #[serde(alias = "session")]
    pub tls: Option<TlsConfiguration>,
    /// Where the image is put: a folder gets it under its name, a file is replaced when the server's is another
    /// one. By default it stays in the store.
    #[serde(alias = "target_path")]
    pub path: Option<ConfigPath>,
    /// Whether a `.gz`, `.xz` or `.zst` is unpacked: `true`, `false`, or `"auto"` by what its bytes are. `false`.
    pub unpack: Option<Unpack>,
    /// The most bytes that the image may have, unpacked.
    pub max_size: Option<Size>,
    /// The store of images.
    pub cache: Option<CacheConfiguration>,
}

/// Who asks a web server.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpAuth {
    /// The user's name.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// A bearer token, in place of user and password.
    pub token: Option<Secret>,
}

#[async_trait]
impl ImageProvider for Http {
    const NAME: &'static str = "http";
    const ALIASES: &'static [&'static str] = &["https"];
    type Configuration = HttpConfiguration;

    fn prepare(configuration: HttpConfiguration, name: Option<Located<String>>) -> Result<Self> {
        let address = address(configuration.url, name)?;
        let login = Login::read(configuration.auth.unwrap_or_default(), address.user.clone())?;
        if login.is_some() {
            warn_if_open(&address.url, "the credentials");
        }
        let sums = match &configuration.checksums {
            Some(node) => sums(node, &address)?,
            None => Sums::None,
        };
        let delivery = Delivery::new(
            configuration.path,
            configuration.unpack,
            configuration.max_size,
            configuration.checksum.as_ref(),
        )?;
        let client = Client::new(&configuration.tls.unwrap_or_default())?;
        Ok(Self {
            cache: Cache::new(configuration.cache.unwrap_or_default())?,
            origin: HttpOrigin {
                client,
                address,
                login,
                sums,
                pinned: delivery.digests.first().cloned(),
            },
            delivery,
        })
    }

    fn describe(&self) -> String {
        self.origin.address.identity()
    }

    async fn image(&self, request: &ImageRequest<'_>) -> Result<Image> {
        self.cache
            .image(&self.origin, &self.delivery, request)
            .await
    }
}

fn address(url: Option<Located<String>>, name: Option<Located<String>>) -> Result<Address> {
    let read =
        |text: &Located<String>| Address::read(text).map_err(|error| error.or_at(text.place()));
    match (url, name) {
        (Some(url), Some(name)) => read(&url)?.beneath(&name),
        (Some(url), None) | (None, Some(url)) => read(&url),
        (None, None) => Err(Error::new(
            ErrorKind::Configuration,
            "the provider `http` is told no address",
        )
        .advice("give `uri`, or `provider_configuration.url`")),
    }
}

fn sums(node: &Configuration, address: &Address) -> Result<Sums> {
    let Some(text) = node.as_str() else {
        return match node.deserialize::<bool>() {
            Ok(true) => Ok(Sums::Beside),
            Ok(false) => Ok(Sums::None),
            Err(_) => Err(Error::configuration(
                node.place(),
                "found neither `true` nor an address",
            )
            .advice("`true` takes the SHA256SUMS or SHA512SUMS beside the image")),
        };
    };
    let wrong = |message: &'static str| Error::configuration(node.place(), message);
    let url = address.url.join(text);
    let url = url.map_err(|_| wrong("the address of the checksums is not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(
            "the address of the checksums is neither http nor https",
        ));
    }
    if address.url.scheme() == "https" && url.scheme() != "https" {
        return Err(wrong(
            "the checksums would come over http, while the image comes over https: whoever is on the way could \
             choose the image",
        )
        .advice("give their https address, or pin a digest with `checksum`"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("the address of the checksums has a user in it")
            .advice("who asks is told in `auth`, and to the image's own server only"));
    }
    Ok(Sums::At(url))
}

#[cfg(test)]
mod tests {
    use see_core::ErrorKind;
    use serde_json::json;

    use super::*;

    fn prepared(configuration: serde_json::Value) -> Result<Http> {
        let text = configuration.to_string();
        let configuration = Configuration::from_str("run.json", &text).unwrap();
        Http::prepare(configuration.deserialize().unwrap(), None)
    }

    #[test]
    fn the_checksums_of_an_image_over_https_come_over_https() {
        for (image, sums, is_taken) in [
            ("https://a.test/image", "http://a.test/SUMS", false),
            ("https://a.test/image", "http://b.test/SUMS", false),
            ("https://a.test/image", "https://b.test/SUMS", true),
            ("https://a.test/image", "SUMS", true),
            ("http://a.test/image", "http://b.test/SUMS", true),
        ] {
            let found = prepared(json!({ "url": image, "checksums": sums }));
            assert_eq!(found.is_ok(), is_taken, "{image}, {sums}");
            if let Err(error) = found {
                assert_eq!(error.kind(), ErrorKind::Configuration);
                assert_eq!(error.place().unwrap().key, "checksums");
            }
        }
    }
}

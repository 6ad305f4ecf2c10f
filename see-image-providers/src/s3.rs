//! An image in a bucket of S3: Amazon's, or any server that speaks it.

mod address;
mod credentials;
mod failure;
mod listing;
mod origin;
mod profile;

use async_trait::async_trait;
use reqsign_aws_v4::Credential;
use reqsign_core::OsEnv;
use see_core::config::{ConfigPath, Configuration, Located, Size};
use see_core::{Error, ErrorKind, Image, ImageProvider, ImageRequest, Result, Secret};
use serde::Deserialize;

pub use self::address::AddressingStyle;
use self::address::Endpoint;
use self::credentials::{Credentials, Source};
use self::origin::S3Origin;
use self::profile::Profile;
use crate::cache::{Cache, CacheConfiguration, Delivery, Unpack};
use crate::client::{Client, TlsConfiguration, warn_if_open};
use crate::pool::{self, Pool, PoolConfiguration};

/// The region where none is said, as Amazon's own tools have it.
const REGION: &str = "us-east-1";
/// The only version of the service that there is.
const SERVICE: &str = "2006-03-01";

/// The provider `s3`: an object in a bucket, at Amazon or any server that speaks S3.
///
/// ```json
/// {"provider": "s3", "name": "guests/debian.qcow2",
///  "provider_configuration": {
///    "bucket_name": "images",
///    "auth": {"endpoint_url": "https://s3.example.org", "aws_access_key_id": "…",
///             "aws_secret_access_key": "${env:S3_SECRET}"}}}
/// ```
///
/// `auth` takes what boto3 takes; what it leaves out comes from the AWS environment: variables, profiles, web
/// identities, single sign-on, containers. The host's metadata service is asked only where `instance_role`
/// says so.
///
/// The object is taken as it is now, or in the version that is pinned. It is fetched again when that is another
/// one. The digests that the server knows are checked: SHA-256 where it keeps one, and the entity tag where it
/// is an MD5; that of an object that was uploaded in parts is none, and only tells versions apart.
#[derive(Debug)]
pub struct S3 {
    origin: S3Origin,
    cache: Cache,
    delivery: Delivery,
    pool: Option<Pool>,
}

/// What stands under `provider_configuration`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Configuration {
    /// The bucket.
    #[serde(alias = "bucket")]
    pub bucket_name: Option<Located<String>>,
    /// The object's whole key, in place of the image's `name`.
    pub key: Option<Located<String>>,
    /// The version of the object. The newest by default.
    pub version_id: Option<Located<String>>,
    /// Whether an object that was deleted is taken as it last was, where the bucket keeps versions. `false`.
    pub include_deleted: Option<bool>,
    /// Server, region and credentials, as boto3 takes them.
    pub auth: Option<S3Auth>,
    /// Whether requests are made without credentials, for public objects. `false`.
    pub anonymous: Option<bool>,
    /// Whether the host's own metadata service is asked for credentials where nothing else gives some. `false`.
    pub instance_role: Option<bool>,
    /// How the bucket is put into addresses: `path`, `virtual`, or `auto`, which is `virtual` on Amazon's servers
    /// only. `auto`.
    pub addressing_style: Option<AddressingStyle>,
    /// The digest that the bytes must have: `sha256:` or `sha512:` and its digits.
    pub checksum: Option<Located<String>>,
    /// Whom the server has to be, and the certificate that we show it.
    #[serde(alias = "session")]
    pub tls: Option<TlsConfiguration>,
    /// Where the image is put: a folder gets it under its entity tag, a file is replaced when the server's object
    /// is another one. By default it stays in the store.
    #[serde(alias = "target_path")]
    pub path: Option<ConfigPath>,
    /// Whether a `.gz`, `.xz` or `.zst` is unpacked: `true`, `false`, or `"auto"` by what its bytes are. `false`.
    pub unpack: Option<Unpack>,
    /// The most bytes that the image may have, unpacked.
    pub max_size: Option<Size>,
    /// A storage pool over the folder of `path`, which libvirt looks into once the image is there.
    pub libvirt_pool: Option<PoolConfiguration>,
    /// The store of images.
    pub cache: Option<CacheConfiguration>,
}

/// The arguments of boto3's `resource("s3", …)`. What is left out comes from the AWS environment.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Auth {
    /// The access key's id.
    pub aws_access_key_id: Option<String>,
    /// The access key's secret.
    pub aws_secret_access_key: Option<Secret>,
    /// What belongs to temporary keys.
    pub aws_session_token: Option<Secret>,
    /// The profile of the shared AWS configuration. `$AWS_PROFILE`, or `default`.
    pub profile_name: Option<Located<String>>,
    /// The region that requests are signed for. `us-east-1` where the environment has none.
    pub region_name: Option<Located<String>>,
    /// The server. Amazon's own where neither this nor the environment names one.
    pub endpoint_url: Option<Located<String>>,
    /// Whether Amazon's servers are asked over https; an `endpoint_url` says it itself. `true`.
    pub use_ssl: Option<bool>,
    /// `false` takes any certificate, as `tls.insecure` does; a path is the file of the authorities, as `tls.cacert`.
    /// `$AWS_CA_BUNDLE`, the profile's `ca_bundle`, or those that the host trusts.
    pub verify: Option<Configuration>,
    /// The version of the service: `2006-03-01`, the only one.
    pub api_version: Option<Located<String>>,
}

#[async_trait]
impl ImageProvider for S3 {
    const NAME: &'static str = "s3";
    const ALIASES: &'static [&'static str] = &["see.image_providers.S3Provider"];
    type Configuration = S3Configuration;

    fn prepare(mut configuration: S3Configuration, name: Option<Located<String>>) -> Result<Self> {
        let auth = configuration.auth.take().unwrap_or_default();
        let (bucket, key) = names(&mut configuration, name)?;
        if let Some(version) = &auth.api_version
            && version.as_str() != SERVICE
        {
            let message = format!("found the service's version `{}`", version.escape_debug());
            return Err(Error::configuration(version.place().clone(), message)
                .advice(format!("leave it out, or give \"{SERVICE}\"")));
        }
        let profile = Profile::read(auth.profile_name.as_ref().map(|name| name.as_str()), &OsEnv)
            .map_err(|error| match &auth.profile_name {
            Some(name) => error.or_at(name.place()),
            None => error,
        })?;
        let endpoint = endpoint(&configuration, &auth, &profile)?;
        let region = auth.region_name.as_ref().map(|region| region.as_str());
        let region = region.or(profile.region.as_deref()).unwrap_or(REGION);
        let region = region.to_owned();
        // Both are checked before anything is made.
        let address = endpoint
            .object(&region, &bucket, &key)
            .map_err(|error| error.or_at(bucket.place()))?;
        let tls = tls(
            configuration.tls.take().unwrap_or_default(),
            auth.verify.as_ref(),
            profile.authorities.as_ref(),
        )?;
        let delivery = Delivery::new(
            configuration.path,
            configuration.unpack,
            configuration.max_size,
            configuration.checksum.as_ref(),
        )?;
        let credentials = credentials(
            auth,
            profile,
            configuration.anonymous.unwrap_or(false),
            configuration.instance_role.unwrap_or(false),
        )?;
        if credentials.is_some() {
            // A signature is good for minutes, whoever sends it. The secret key stays here.
            warn_if_open(&address, "signatures and session tokens");
        }
        Ok(Self {
            pool: Pool::over(configuration.libvirt_pool, delivery.path.as_deref())?,
            cache: Cache::new(configuration.cache.unwrap_or_default())?,
            delivery,
            origin: S3Origin::new(
                Client::new(&tls)?,
                endpoint,
                &region,
                origin::Name {
                    bucket: bucket.into_inner(),
                    key: key.into_inner(),
                    version: configuration.version_id.map(Located::into_inner),
                    takes_deleted: configuration.include_deleted.unwrap_or(false),
                },
                credentials,
            ),
        })
    }

    fn describe(&self) -> String {
        self.origin.words()
    }

    async fn image(&self, request: &ImageRequest<'_>) -> Result<Image> {
        let image = self.cache.image(&self.origin, &self.delivery, request);
        pool::after(image, self.pool.as_ref(), request.stop()).await
    }
}

/// The bucket and the key.
fn names(
    configuration: &mut S3Configuration,
    name: Option<Located<String>>,
) -> Result<(Located<String>, Located<String>)> {
    let wrong = |message: &'static str| Error::new(ErrorKind::Configuration, message);
    let Some(bucket) = configuration.bucket_name.take() else {
        return Err(wrong("the provider `s3` is told no bucket")
            .advice("give `provider_configuration.bucket_name`"));
    };
    match (configuration.key.take(), name) {
        (Some(key), None) | (None, Some(key)) => Ok((bucket, key)),
        (Some(key), Some(_)) => Err(Error::configuration(
            key.place().clone(),
            "`key` and the image's `name` both say which object it is",
        )
        .advice("give one of them")),
        (None, None) => {
            Err(wrong("the provider `s3` is told no object").advice("give its key as `name`"))
        }
    }
}

fn endpoint(configuration: &S3Configuration, auth: &S3Auth, profile: &Profile) -> Result<Endpoint> {
    let is_tls = auth.use_ssl.unwrap_or(true);
    let style = configuration.addressing_style.unwrap_or_default();
    match &auth.endpoint_url {
        Some(url) => {
            Endpoint::new(Some(url), is_tls, style).map_err(|error| error.or_at(url.place()))
        }
        None => Endpoint::new(profile.endpoint.as_deref(), is_tls, style),
    }
}

/// What `tls` says, with boto3's `verify` in it, else the authorities of the AWS environment.
fn tls(
    mut tls: TlsConfiguration,
    verify: Option<&Configuration>,
    authorities: Option<&ConfigPath>,
) -> Result<TlsConfiguration> {
    let Some(node) = verify else {
        if tls.cacert.is_none() && !tls.is_insecure() {
            tls.cacert = authorities.cloned();
        }
        return Ok(tls);
    };
    if tls.cacert.is_some() || tls.insecure.is_some() {
        return Err(Error::configuration(
            node.place(),
            "`auth.verify` and `tls` both say whom the server has to be",
        )
        .advice("give one of them"));
    }
    if node.as_str().is_some() {
        tls.cacert = Some(node.deserialize()?);
        return Ok(tls);
    }
    let verify = node.deserialize::<bool>().map_err(|_| {
        Error::configuration(node.place(), "found neither true, false nor a path")
            .advice("a path names the file of the authorities that are trusted")
    })?;
    tls.insecure = Some(!verify);
    if verify {
        tls.cacert = authorities.cloned();
    }
    Ok(tls)
}

/// Whose requests they are; nobody's where they are anonymous.
fn credentials(
    auth: S3Auth,
    profile: Profile,
    is_anonymous: bool,
    asks_instance: bool,
) -> Result<Option<Credentials>> {
    let wrong = |message: &'static str| Error::new(ErrorKind::Configuration, message);
    let source = match (auth.aws_access_key_id, auth.aws_secret_access_key) {
        (None, None) if is_anonymous => return Ok(None),
        _ if is_anonymous => {
            return Err(wrong("found credentials, and `anonymous`").advice("give one of them"));
        }
        (Some(id), Some(secret)) if !id.is_empty() && !secret.reveal().is_empty() => {
            Source::Given(Credential {
                access_key_id: id,
                secret_access_key: secret.reveal().to_owned(),
                session_token: auth
                    .aws_session_token
                    .map(|token| token.reveal().to_owned()),
                expires_in: None,
            })
        }
        (None, None) if auth.aws_session_token.is_none() => Source::Chain {
            profile: auth.profile_name.map(Located::into_inner),
            role: profile.role,
            region: profile.region.unwrap_or_else(|| REGION.to_owned()),
            unsupported: profile.unsupported,
            asks_instance,
        },
        _ => {
            return Err(wrong("found a part of a credential in `auth`")
                .advice("give both `aws_access_key_id` and `aws_secret_access_key`"));
        }
    };
    // Not `auth.verify`: that is said of the server of images alone.
    let services = TlsConfiguration {
        cacert: profile.authorities,
        ..TlsConfiguration::default()
    };
    Credentials::new(source, OsEnv, &services).map(Some)
}

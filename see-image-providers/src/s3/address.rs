//! Where an object of S3 is: its URL, in the style of the server.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use see_core::{Error, ErrorKind, Result};
use serde::Deserialize;

/// How a bucket is put into a URL.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AddressingStyle {
    /// Virtual on Amazon's own servers where the bucket's name can be a host's, path anywhere else.
    #[default]
    Auto,
    /// `https://server/bucket/key`: every server knows it.
    Path,
    /// `https://bucket.server/key`.
    Virtual,
}

/// A server, and how it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// The server that was configured; Amazon's own for the region where there is none.
    custom: Option<Url>,
    is_tls: bool,
    style: AddressingStyle,
}

impl Endpoint {
    /// The server at `custom`, or Amazon's own.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where it is no URL of a server.
    pub(super) fn new(custom: Option<&str>, is_tls: bool, style: AddressingStyle) -> Result<Self> {
        let custom = custom.map(server).transpose()?;
        Ok(Self {
            custom,
            is_tls,
            style,
        })
    }

    /// The server that was configured, where requests do not go to Amazon's own.
    pub(super) fn custom(&self) -> Option<&Url> {
        self.custom.as_ref()
    }

    /// The URL of an object in a region.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where bucket or key cannot be a part of a URL.
    pub(super) fn object(&self, region: &str, bucket: &str, key: &str) -> Result<Url> {
        check_key(key)?;
        self.url(region, bucket, key)
    }

    /// The URL of a bucket in a region.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where its name cannot be a part of a URL.
    pub(super) fn bucket(&self, region: &str, bucket: &str) -> Result<Url> {
        self.url(region, bucket, "")
    }

    fn url(&self, region: &str, bucket: &str, key: &str) -> Result<Url> {
        check_bucket(bucket)?;
        let server = match &self.custom {
            Some(server) => server.clone(),
            None => amazon(region, self.is_tls)?,
        };
        let wrong = |reason: String| {
            Error::new(
                ErrorKind::Configuration,
                format!(
                    "the bucket `{}` makes no URL: {reason}",
                    bucket.escape_debug()
                ),
            )
        };
        let mut url = server;
        let base = url.path().trim_end_matches('/').to_owned();
        let path = if self.is_virtual(bucket) {
            let host = url.host_str().unwrap_or_default().to_owned();
            url.set_host(Some(&format!("{bucket}.{host}")))
                .map_err(|error| wrong(error.to_string()))?;
            format!("{base}/{}", encoded(key))
        } else if key.is_empty() {
            format!("{base}/{}", encoded(bucket))
        } else {
            format!("{base}/{}/{}", encoded(bucket), encoded(key))
        };
        url.set_path(&path);
        Ok(url)
    }

    fn is_virtual(&self, bucket: &str) -> bool {
        match self.style {
            AddressingStyle::Path => false,
            AddressingStyle::Virtual => true,
            AddressingStyle::Auto => {
                // A dot would make the host a name that the wildcard certificate is not for.
                self.custom.is_none() && is_host_label(bucket)
            }
        }
    }
}

fn is_host_label(bucket: &str) -> bool {
    (3..=63).contains(&bucket.len())
        && !bucket.starts_with('-')
        && !bucket.ends_with('-')
        && bucket
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

fn amazon(region: &str, is_tls: bool) -> Result<Url> {
    let wrong = || {
        let region = region.escape_debug();
        Error::new(
            ErrorKind::Configuration,
            format!("found the region `{region}`, expected one such as `eu-west-1`"),
        )
    };
    let is_name = !region.is_empty()
        && region
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !is_name {
        return Err(wrong());
    }
    let scheme = if is_tls { "https" } else { "http" };
    let suffix = if region.starts_with("cn-") { ".cn" } else { "" };
    let text = format!("{scheme}://s3.{region}.amazonaws.com{suffix}/");
    Url::parse(&text).map_err(|error| wrong().caused_by(error))
}

fn server(text: &str) -> Result<Url> {
    // The text itself is not shown: a password may be in it.
    let wrong = |message: &'static str| {
        Error::new(ErrorKind::Configuration, message)
            .advice("expected the URL of an S3 server, such as `https://s3.example.org:9000`")
    };
    let url =
        Url::parse(text).map_err(|error| wrong("the endpoint is not a URL").caused_by(error))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong("the endpoint is neither http nor https"));
    }
    if url.host_str().is_none() {
        return Err(wrong("the endpoint has no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(
            wrong("the endpoint has a user in it, whom S3 does not know")
                .advice("give `aws_access_key_id` and `aws_secret_access_key` in `auth`"),
        );
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("the endpoint has a query or a fragment"));
    }
    Ok(url)
}

fn check_bucket(bucket: &str) -> Result<()> {
    // Wider than Amazon's rules, which other servers do not all have.
    let is_name = !bucket.is_empty()
        && bucket.len() <= 255
        && !matches!(bucket, "." | "..")
        && bucket
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte));
    if is_name {
        return Ok(());
    }
    let bucket: String = bucket.chars().take(80).collect();
    Err(Error::new(
        ErrorKind::Configuration,
        format!(
            "found the bucket `{}`, expected letters, digits, `-`, `.` and `_`",
            bucket.escape_debug()
        ),
    ))
}

fn check_key(key: &str) -> Result<()> {
    let wrong = |message: String| Err(Error::new(ErrorKind::Configuration, message));
    if key.is_empty() || key.len() > 1024 {
        return wrong(format!(
            "found an object's key of {} bytes, expected 1 to 1024",
            key.len()
        ));
    }
    if key.chars().any(char::is_control) {
        return wrong("the object's key has a control character in it".to_owned());
    }
    // No URL can say them: every client and proxy takes them for steps in a path.
    if key.split('/').any(|part| matches!(part, "." | "..")) {
        return wrong(format!(
            "the object's key `{}` has a part `.` or `..`, which no URL can name",
            key.escape_debug()
        ))
        .map_err(|error| error.advice("copy the object to a key without such parts"));
    }
    Ok(())
}

/// Everything that signatures encode too, so that nobody on the way changes it.
const ENCODED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

fn encoded(path: &str) -> impl std::fmt::Display {
    utf8_percent_encode(path, &ENCODED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(
        endpoint: Option<&str>,
        style: AddressingStyle,
        bucket: &str,
        key: &str,
    ) -> Result<String> {
        let endpoint = Endpoint::new(endpoint, true, style)?;
        endpoint
            .object("eu-west-1", bucket, key)
            .map(|url| url.to_string())
    }

    #[test]
    fn the_style_follows_the_server_unless_it_is_said() {
        use AddressingStyle::{Auto, Path, Virtual};

        let local = Some("http://127.0.0.1:8080");
        let named = Some("https://s3.example.org/base/");
        for (endpoint, style, bucket, expected) in [
            (
                None,
                Auto,
                "images",
                "https://images.s3.eu-west-1.amazonaws.com/a/b.img",
            ),
            (
                None,
                Auto,
                "my.images",
                "https://s3.eu-west-1.amazonaws.com/my.images/a/b.img",
            ),
            (
                None,
                Auto,
                "Images",
                "https://s3.eu-west-1.amazonaws.com/Images/a/b.img",
            ),
            (
                None,
                Path,
                "images",
                "https://s3.eu-west-1.amazonaws.com/images/a/b.img",
            ),
            (
                local,
                Auto,
                "images",
                "http://127.0.0.1:8080/images/a/b.img",
            ),
            (
                Some("http://[::1]:80"),
                Auto,
                "images",
                "http://[::1]/images/a/b.img",
            ),
            (
                Some("http://localhost"),
                Auto,
                "images",
                "http://localhost/images/a/b.img",
            ),
            (
                named,
                Auto,
                "images",
                "https://s3.example.org/base/images/a/b.img",
            ),
            (
                named,
                Virtual,
                "images",
                "https://images.s3.example.org/base/a/b.img",
            ),
        ] {
            assert_eq!(url(endpoint, style, bucket, "a/b.img").unwrap(), expected);
        }
        let china = Endpoint::new(None, false, Auto).unwrap();
        assert_eq!(
            china.bucket("cn-north-1", "images").unwrap().as_str(),
            "http://images.s3.cn-north-1.amazonaws.com.cn/"
        );
        let local = Endpoint::new(local, true, Auto).unwrap();
        assert_eq!(
            local.bucket("eu-west-1", "images").unwrap().as_str(),
            "http://127.0.0.1:8080/images"
        );
    }

    #[test]
    fn every_key_stays_what_it_is() {
        let local = Some("http://127.0.0.1");
        for (key, path) in [
            ("a b+c", "/images/a%20b%2Bc"),
            ("ü/%2e/?x#y", "/images/%C3%BC/%252e/%3Fx%23y"),
            ("a//b", "/images/a//b"),
            ("/a", "/images//a"),
            ("...", "/images/..."),
            ("a\\b", "/images/a%5Cb"),
        ] {
            let url = url(local, AddressingStyle::Auto, "images", key).unwrap();
            assert_eq!(url, format!("http://127.0.0.1{path}"), "{key}");
        }
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        let local = Some("http://127.0.0.1");
        let style = AddressingStyle::Auto;
        for key in [
            "",
            "..",
            "a/../../other/b",
            "./a",
            "a\nb",
            &"x".repeat(1025),
        ] {
            let error = url(local, style, "images", key).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Configuration, "{key}");
        }
        for bucket in [
            "",
            "..",
            "a/b",
            "evil.example#",
            "a b",
            "a@b",
            &"x".repeat(256),
        ] {
            assert!(url(local, style, bucket, "a").is_err(), "{bucket}");
            assert!(
                url(None, AddressingStyle::Virtual, bucket, "a").is_err(),
                "{bucket}"
            );
        }
        for endpoint in ["", "s3.example.org", "ftp://a", "https://", "https://a?b"] {
            assert!(
                url(Some(endpoint), style, "images", "a").is_err(),
                "{endpoint}"
            );
        }
        let error = url(Some("https://user:hunter2@a"), style, "images", "a").unwrap_err();
        assert!(!error.chain().contains("hunter2"));
        let amazon = Endpoint::new(None, true, style).unwrap();
        assert!(amazon.object("evil.example/", "images", "a").is_err());
    }
}

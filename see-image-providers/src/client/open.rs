//! Servers on whose way others can read along.

use std::net::IpAddr;

use reqwest::Url;

/// Tells the user where `what`, which says who asks a server, can be read by others on the way to it.
pub(crate) fn warn_if_open(url: &Url, what: &str) {
    if is_open(url) {
        tracing::warn!(
            server = url.origin().ascii_serialization(),
            "{what} for this server can be read by others on the way: it is not https"
        );
    }
}

/// Tells the user where others on the way could change an image unseen, since no digest of it is known.
pub(crate) fn warn_if_unproven(url: &Url) {
    if is_open(url) {
        tracing::warn!(
            server = url.origin().ascii_serialization(),
            "the image can be changed by others on the way: it comes without https and without a digest; pin a \
             `checksum`"
        );
    }
}

/// Whether what is sent there is not encrypted, and leaves this host.
fn is_open(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    let is_here = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    url.scheme() == "http" && !is_here
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_leaves_this_host_without_https_is_open() {
        for (url, expected) in [
            ("http://example.org/", true),
            ("http://192.0.2.1:5000/v3", true),
            ("http://[2001:db8::1]/", true),
            ("http://127.example.org/", true),
            ("http://localhost.example.org/", true),
            ("https://example.org/", false),
            ("http://localhost:9292/", false),
            ("http://127.0.0.1/", false),
            ("http://127.1.2.3:8080/", false),
            ("http://[::1]:8080/", false),
        ] {
            assert_eq!(is_open(&url.parse().unwrap()), expected, "{url}");
        }
    }
}

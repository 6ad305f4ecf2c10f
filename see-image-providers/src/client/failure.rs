//! What went wrong between a server and us, in words that say what to do.

use std::error::Error as StdError;
use std::io;

use reqwest::Url;
use see_core::{Error, ErrorKind};

/// An address as errors and logs show it: without user, password, query and fragment, where secrets are.
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.into()
}

/// A request that got no answer, or a body that broke off.
pub(crate) fn of_transport(error: reqwest::Error, url: &str) -> Error {
    // The address has its own place, without its query.
    let error = error.without_url();
    let mut causes = String::new();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        causes = deeper.to_string();
        cause = deeper.source();
    }
    let about_trust = causes.contains("certificate") || causes.contains("UnknownIssuer");
    let kind = match error.is_timeout() {
        true => ErrorKind::Timeout,
        false => ErrorKind::Unavailable,
    };
    let failed = if error.is_connect() {
        "the server cannot be reached"
    } else if error.is_body() || error.is_decode() {
        "the answer broke off"
    } else {
        "the server gave no answer"
    };
    let message = if causes.is_empty() {
        failed.to_owned()
    } else {
        format!("{failed}: {causes}")
    };
    let failure = Error::new(kind, message).subject(url);
    let failure = if about_trust {
        failure.advice(
            "its certificate is not trusted: `cacert` names the authority that it comes from",
        )
    } else if error.is_connect() {
        failure.advice("check the address, and whether the server runs")
    } else {
        failure.advice("try again; look at the server's log where it happens every time")
    };
    failure.caused_by(error)
}

/// Whether nobody listens at the address.
pub(super) fn is_refused(error: &Error) -> bool {
    beneath(error).is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Whether the two sides cannot agree on TLS, such as on a certificate: they cannot at the next try either.
pub(super) fn is_about_tls(error: &Error) -> bool {
    beneath::<rustls::Error>(error).is_some()
}

/// The first error of this type beneath another.
fn beneath<T: StdError + 'static>(error: &Error) -> Option<&T> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        // An I/O error passes over what it carries.
        let carried = error.downcast_ref().and_then(io::Error::get_ref);
        cause = match carried {
            Some(carried) => Some(carried),
            None => error.source(),
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        let url = Url::parse("https://user:pass@host:8443/a/b?X-Amz-Signature=1#x").unwrap();
        assert_eq!(shown(&url), "https://host:8443/a/b");
    }
}

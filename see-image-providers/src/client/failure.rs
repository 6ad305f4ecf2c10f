//! What went wrong between a server and us, in words that say what to do.

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use reqwest::Url;
use reqwest::header::{HeaderMap, RETRY_AFTER};
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

/// How long the server asks us to wait, as seconds or as a date.
pub fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    // What lies in the past is now.
    Some(
        date.duration_since(SystemTime::now())
            .unwrap_or(Duration::ZERO),
    )
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
    let kind = if error.is_timeout() {
        ErrorKind::Timeout
    } else {
        ErrorKind::Unavailable
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_what_may_be_secret() {
        let url = Url::parse("https://user:pass@host:8443/a/b?X-Amz-Signature=1#x").unwrap();
        assert_eq!(shown(&url), "https://host:8443/a/b");
    }

    #[test]
    fn retry_after_is_a_number_of_seconds_or_a_date() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(60));
        assert!(of(&soon).unwrap() > Duration::from_secs(50));
        assert_eq!(of("soon"), None);
    }
}

//! Following redirects without carrying credentials along.

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName, IF_MATCH, IF_RANGE, LOCATION, RANGE, USER_AGENT,
};
use reqwest::{Method, Request, Response, StatusCode, Url};
use see_core::{Error, ErrorKind, Result};

use super::{ANSWER_LIMIT, Client, failure, shown};

/// How many redirects one request may go through.
const LIMIT: usize = 10;
/// What a request may say to a host that it was not made for.
const HARMLESS: [HeaderName; 6] = [
    ACCEPT,
    ACCEPT_ENCODING,
    IF_MATCH,
    IF_RANGE,
    RANGE,
    USER_AGENT,
];

pub(super) async fn follow(client: &Client, mut request: Request) -> Result<Response> {
    let home = request.url().clone();
    let mut sender = &client.own;
    let mut is_away = false;
    let deadline = tokio::time::Instant::now() + ANSWER_LIMIT;
    for _ in 0..=LIMIT {
        let url = request.url().clone();
        let method = request.method().clone();
        let headers = request.headers().clone();
        // A body may hold a password, and can be sent again only where it was kept.
        let has_body = request.body().is_some();
        let again = request.try_clone();
        let answer = tokio::time::timeout_at(deadline, sender.execute(request)).await;
        let response = answer
            .map_err(|_| Error::timeout("the server's answer", ANSWER_LIMIT).subject(shown(&url)))?
            .map_err(|error| failure::of_transport(error, &shown(&url)))?;
        let Some(target) = target(&response, &url)? else {
            return Ok(response);
        };
        let refuse = |message: &str| {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "the server sends the request on to {}, {message}",
                    shown(&target)
                ),
            )
            .subject(shown(&url))
        };
        // The way back is one that another host chose.
        is_away |= home.origin() != target.origin();
        let stays = !is_away;
        if url.scheme() == "https" && target.scheme() != "https" {
            return Err(refuse("which is not encrypted, while the request was")
                .advice("give the address that is meant, where it is to be trusted"));
        }
        let keeps_method = method == Method::GET || method == Method::HEAD;
        let keeps_body = matches!(
            response.status(),
            StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT
        );
        if !keeps_method || has_body {
            if !stays || !keeps_body {
                return Err(refuse("to which what it says is not repeated")
                    .advice("give that address in the configuration, where it is to be trusted"));
            }
            request = again.ok_or_else(|| refuse("but what it says was not kept"))?;
            *request.url_mut() = target;
            continue;
        }
        request = Request::new(method, target);
        *request.headers_mut() = if stays { headers } else { harmless(&headers) };
        sender = if stays {
            &client.own
        } else {
            &client.elsewhere
        };
    }
    Err(Error::new(
        ErrorKind::Unavailable,
        format!("the server sends the request on and on, more than {LIMIT} times"),
    )
    .subject(shown(&home))
    .advice("give the address at which the image itself is; a browser shows where this one leads"))
}

/// Where a redirect leads; `None` for any other answer.
fn target(response: &Response, from: &Url) -> Result<Option<Url>> {
    // 300 is an answer of its own kind (Glance's list of versions), and 304 none at all.
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = response.headers().get(LOCATION) else {
        return Ok(None);
    };
    let target = location
        .to_str()
        .ok()
        .and_then(|location| from.join(location).ok())
        .filter(|target| matches!(target.scheme(), "http" | "https"));
    match target {
        Some(mut target) => {
            // Whoever redirects does not choose who we log in as.
            let _ = target.set_username("");
            let _ = target.set_password(None);
            Ok(Some(target))
        }
        None => Err(Error::new(
            ErrorKind::Unavailable,
            "the server sends the request on to an address that is none of http or https",
        )
        .subject(shown(from))
        .advice("give an http or https address at which the image itself is")),
    }
}

fn harmless(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| HARMLESS.contains(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

//! One question to a service of OpenStack and its answer, in JSON.

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Request, StatusCode};
use see_core::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;

use crate::client::{Client, shown};

/// As long as an answer may be. A page of a hundred images has some hundred kilobytes.
const LONGEST: usize = 16 * 1024 * 1024;
/// Characters of a service's own words that an error repeats.
const WORDS: usize = 300;

/// What a service answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The address that was asked, as errors show it.
    pub(super) address: String,
    body: Bytes,
}

/// Sends a request and reads its answer. It is a wait alone, which may be dropped.
pub(super) async fn ask(client: &Client, request: Request) -> Result<Answer> {
    let address = shown(request.url());
    let (response, body) = client.read(request, LONGEST).await?;
    Ok(Answer {
        status: response.status(),
        headers: response.headers().clone(),
        address,
        body,
    })
}

impl Answer {
    /// The body, read as `what` should be.
    pub(super) fn json<T: DeserializeOwned>(&self, what: &str) -> Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            // The complaint's category and place, without the words that it found.
            let message = format!(
                "the answer is not {what} ({:?} at line {}, column {})",
                error.classify(),
                error.line(),
                error.column()
            );
            Error::new(ErrorKind::Unavailable, message)
                .subject(&self.address)
                .advice("check that the address is that of the service")
        })
    }

    /// What the service says about its status in its own words, for an error.
    pub(super) fn words(&self) -> Option<String> {
        /// Keystone's way: an object `error` with a message.
        #[derive(serde::Deserialize)]
        struct Wrapped {
            error: Message,
        }
        #[derive(serde::Deserialize)]
        struct Message {
            message: String,
        }
        let text = match serde_json::from_slice::<Wrapped>(&self.body) {
            Ok(wrapped) => wrapped.error.message,
            // Glance says it in HTML, and proxies do.
            Err(_) => without_tags(&String::from_utf8_lossy(&self.body)),
        };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let mut shown: String = text.chars().take(WORDS).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        (!shown.is_empty()).then_some(shown)
    }

    /// An error with this status, and what the service says about it.
    pub(super) fn failure(&self, kind: ErrorKind, message: &str) -> Error {
        let status = self.status;
        let message = match self.words() {
            Some(words) => format!("{message}: {status}: {words}"),
            None => format!("{message}: {status}"),
        };
        Error::new(kind, message).subject(&self.address)
    }

    /// The error for a status that nobody planned for.
    pub(super) fn unexpected(&self, service: &str) -> Error {
        match self.status.as_u16() {
            429 | 500.. => self.failure(
                ErrorKind::Unavailable,
                &format!("{service} is busy or broken"),
            ),
            403 => self.failure(
                ErrorKind::PermissionDenied,
                &format!("{service} does not allow it"),
            ),
            _ => self
                .failure(
                    ErrorKind::Unavailable,
                    &format!("this does not answer as {service} does"),
                )
                .advice("check that the address is that of the service"),
        }
    }
}

/// The text of a page without what stands in angle brackets.
fn without_tags(text: &str) -> String {
    let mut kept = String::new();
    let mut is_within = false;
    for character in text.chars().take(4096) {
        match character {
            '<' => is_within = true,
            '>' => {
                is_within = false;
                kept.push(' ');
            }
            _ if !is_within => kept.push(character),
            _ => {}
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: &str) -> Answer {
        Answer {
            status: StatusCode::FORBIDDEN,
            headers: HeaderMap::new(),
            address: "http://there/".to_owned(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    #[test]
    fn the_words_of_a_service_are_found_in_json_and_in_html() {
        let keystone = answer(r#"{"error": {"message": "Could not\n find it.", "code": 404}}"#);
        assert_eq!(keystone.words().unwrap(), "Could not find it.");
        let glance =
            answer("<html><head><title>403</title></head><body>The image<br/>sleeps</body>");
        assert_eq!(glance.words().unwrap(), "403 The image sleeps");
        assert_eq!(answer(" ").words(), None);
        let endless = answer(&"x".repeat(100_000));
        assert!(endless.words().unwrap().chars().count() <= WORDS + 1);
    }

    #[test]
    fn what_is_no_json_is_told_without_its_words() {
        let error = answer(r#"{"password": "hidden"#)
            .json::<u8>("a token")
            .unwrap_err();
        assert!(error.to_string().contains("not a token"), "{error}");
        assert!(!error.chain().contains("hidden"), "{error:?}");
    }
}

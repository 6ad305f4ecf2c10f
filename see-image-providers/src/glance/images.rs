//! The images that Glance has: found by id or by name, page by page, and the newest of them that is whole.

use std::collections::BTreeMap;

use jiff::{Timestamp, civil};
use reqwest::{StatusCode, Url};
use see_core::config::nearest;
use see_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::exchange::Answer;

/// How many images a page should have; a server may send fewer.
const PAGE: usize = 100;
/// The most pages that are read.
const PAGES: usize = 200;

/// An image as Glance describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Described {
    pub(super) id: String,
    pub(super) name: Option<String>,
    pub(super) status: String,
    pub(super) size: Option<u64>,
    /// The MD5 of the data.
    pub(super) checksum: Option<String>,
    pub(super) os_hash_algo: Option<String>,
    pub(super) os_hash_value: Option<String>,
    created_at: Option<String>,
    updated_at: Option<String>,
}

#[derive(Deserialize)]
struct Page {
    images: Vec<Described>,
    next: Option<String>,
}

/// Whoever sends a request for an address to Glance, with a token that it takes.
#[async_trait::async_trait]
pub(super) trait Asks: Sync {
    /// The answer, whatever its status but 401.
    async fn get(&self, url: &Url) -> Result<Answer>;
}

/// Looks for the image of that id, else for the newest active one of that name.
///
/// # Errors
/// [`ErrorKind::NotFound`], with what there is, where no image can be had.
pub(super) async fn look(glance: &dyn Asks, base: &Url, wanted: &str) -> Result<Described> {
    if is_id(wanted)
        && let Some(found) = by_id(glance, base, wanted).await?
    {
        usable(&found)?;
        return Ok(found);
    }
    let filters = [("name", filter(wanted)), ("status", "active".to_owned())];
    let active = listed(glance, base, &filters).await?.into_iter();
    // Some databases compare without regard to case, and not every server knows every filter.
    let fitting = active.filter(|found| found.name.as_deref() == Some(wanted));
    let newest = fitting
        .filter(|found| found.status == "active" && is_id(&found.id))
        .max_by(|one, other| one.age().cmp(&other.age()));
    match newest {
        Some(found) => Ok(found),
        None => Err(missing(glance, base, wanted).await),
    }
}

/// The image of that id, where there is one.
pub(super) async fn by_id(glance: &dyn Asks, base: &Url, id: &str) -> Result<Option<Described>> {
    let answer = glance.get(&at(base, &format!("v2/images/{id}"))?).await?;
    match answer.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND => return Ok(None),
        _ => return Err(answer.unexpected("Glance")),
    }
    let found: Described = answer.json("an image of Glance's")?;
    if !found.id.eq_ignore_ascii_case(id) {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "the server was asked for one image and described another",
        )
        .subject(&answer.address));
    }
    Ok(Some(found))
}

/// Whether an image's data can be had now.
///
/// # Errors
/// [`ErrorKind::NotFound`] where they cannot, and why.
pub(super) fn usable(image: &Described) -> Result<()> {
    let (message, advice) = match image.status.as_str() {
        "active" => return Ok(()),
        "queued" => (
            "the image has no data yet: its status is queued",
            "upload them, or name another image",
        ),
        "saving" | "importing" | "uploading" => (
            "the image is being uploaded",
            "ask again when its status is active",
        ),
        "deactivated" => (
            "the image is deactivated: nobody may download it",
            "an administrator of the cloud has withdrawn it: ask there, or name another image",
        ),
        "deleted" | "pending_delete" => return Err(gone(&image.id)),
        "killed" => ("the upload of the image failed", "upload it anew"),
        _ => (
            "the image has a status in which it cannot be downloaded",
            "expected the status active",
        ),
    };
    let status: String = image.status.chars().take(40).collect();
    let subject = format!("{} (status {})", image.id, status.escape_debug());
    Err(Error::new(ErrorKind::NotFound, message)
        .subject(subject)
        .advice(advice))
}

/// The error for an image that was there.
pub(super) fn gone(id: &str) -> Error {
    Error::new(ErrorKind::NotFound, "the image is deleted")
        .subject(id)
        .advice("name another one")
}

/// All images that the filters let pass.
async fn listed(
    glance: &dyn Asks,
    base: &Url,
    filters: &[(&str, String)],
) -> Result<Vec<Described>> {
    let mut url = at(base, "v2/images")?;
    url.query_pairs_mut()
        .extend_pairs(filters)
        .append_pair("limit", &PAGE.to_string());
    let mut found = Vec::new();
    for _ in 0..PAGES {
        let answer = glance.get(&url).await?;
        if answer.status != StatusCode::OK {
            return Err(answer.unexpected("Glance"));
        }
        let page: Page = answer.json("a list of images")?;
        let is_last = page.images.is_empty();
        found.extend(page.images);
        let Some(next) = page.next.filter(|_| !is_last) else {
            return Ok(found);
        };
        let next = following(&url, &next, &answer)?;
        if next == url {
            return Err(endless(&answer));
        }
        url = next;
    }
    Err(Error::new(
        ErrorKind::Exhausted,
        format!("the list of images has more than {PAGES} pages"),
    )
    .advice("name the image by its id"))
}

/// The address of the next page. Links are relative, and say no more than the query: the rest of the address is
/// ours, so that a token goes nowhere else and a path before `/v2` stays.
fn following(url: &Url, next: &str, answer: &Answer) -> Result<Url> {
    let elsewhere = || {
        Error::new(
            ErrorKind::Unavailable,
            "the list of images goes on at another server, which is not asked",
        )
        .subject(&answer.address)
        .advice("the token is for this one: check `public_endpoint` and the proxies of Glance")
    };
    let target = url.join(next).map_err(|_| elsewhere())?;
    if target.origin() != url.origin() || !target.username().is_empty() {
        return Err(elsewhere());
    }
    let mut following = url.clone();
    following.set_query(target.query());
    Ok(following)
}

fn endless(answer: &Answer) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "the list of images goes on with the page that it was on",
    )
    .subject(&answer.address)
}

/// Why there is no image of that name: what there is instead.
async fn missing(glance: &dyn Asks, base: &Url, wanted: &str) -> Error {
    let named = listed(glance, base, &[("name", filter(wanted))]).await;
    let named = match named {
        Ok(found) => found
            .into_iter()
            .filter(|image| image.name.as_deref() == Some(wanted)),
        Err(error) => return error,
    };
    let named: Vec<Described> = named.collect();
    let shown = wanted.escape_debug();
    if let [only] = &named[..]
        && let Err(error) = usable(only)
    {
        return error;
    }
    if !named.is_empty() {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for image in &named {
            *counts.entry(&image.status).or_default() += 1;
        }
        let counts: Vec<String> = counts
            .iter()
            .take(8)
            .map(|(status, count)| format!("{count} {}", status.escape_debug()))
            .collect();
        let message = format!("none of the {} images `{shown}` is active", named.len());
        return Error::new(ErrorKind::NotFound, message)
            .advice(format!("their statuses: {}", counts.join(", ")));
    }
    let error = Error::new(
        ErrorKind::NotFound,
        format!("Glance has no image with the name or id `{shown}`"),
    );
    // What it has is for the message alone: one page, and nothing where that fails.
    let others = some(glance, base).await.unwrap_or_default();
    let names = || others.iter().filter_map(|image| image.name.as_deref());
    match nearest(wanted, names()) {
        Some(near) => error.advice(format!("did you mean `{}`?", near.escape_debug())),
        None if others.is_empty() => {
            error.advice("the project sees no image at all: check that it is the right one")
        }
        None => {
            let some: Vec<String> = names()
                .take(8)
                .map(|name| format!("`{}`", name.escape_debug()))
                .collect();
            error.advice(format!("the project sees {}", some.join(", ")))
        }
    }
}

async fn some(glance: &dyn Asks, base: &Url) -> Result<Vec<Described>> {
    let mut url = at(base, "v2/images")?;
    url.query_pairs_mut()
        .append_pair("limit", &PAGE.to_string());
    let answer = glance.get(&url).await?;
    Ok(answer.json::<Page>("a list of images")?.images)
}

pub(super) fn at(base: &Url, path: &str) -> Result<Url> {
    base.join(path).map_err(|error| {
        Error::new(ErrorKind::Internal, "an address of Glance cannot be made").caused_by(error)
    })
}

/// The value of the filter `name`, in which a word before a colon is an operator.
fn filter(name: &str) -> String {
    match name.contains(':') {
        true => format!("eq:{name}"),
        false => name.to_owned(),
    }
}

/// Whether a text is of the form of an id: Glance gives out UUIDs alone. Nothing of another form gets into a
/// path, of a request or of a file.
pub(super) fn is_id(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

impl Described {
    /// When the image was made.
    ///
    /// Not when it was last touched: `updated_at` moves whenever somebody changes a property, and an old image
    /// with a new tag is no newer for it. An image's data never change.
    pub(super) fn created(&self) -> Option<Timestamp> {
        self.created_at.as_deref().and_then(instant)
    }

    /// What the newest has most of. Of two that were made in one second, the one that was touched last.
    fn age(&self) -> (Option<Timestamp>, Option<Timestamp>, &str) {
        let updated = self.updated_at.as_deref().and_then(instant);
        (self.created(), updated, &self.id)
    }
}

/// A point in time, in whatever zone it is written; without a zone, in UTC, as OpenStack means it.
fn instant(text: &str) -> Option<Timestamp> {
    if let Ok(instant) = text.parse::<Timestamp>() {
        return Some(instant);
    }
    let naive = text.parse::<civil::DateTime>().ok()?;
    jiff::tz::TimeZone::UTC.to_timestamp(naive).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_compared_as_instants_whatever_zone_they_are_written_in() {
        let early = instant("2026-01-01T12:00:00Z").unwrap();
        for same in [
            "2026-01-01T12:00:00",
            "2026-01-01T14:00:00+02:00",
            "2026-01-01T12:00:00.000000",
        ] {
            assert_eq!(instant(same).unwrap(), early, "{same}");
        }
        // As text it would be the larger one.
        assert!(instant("2026-01-01T13:30:00+02:00").unwrap() < early);
        assert_eq!(instant("yesterday"), None);
    }

    #[test]
    fn what_is_no_uuid_gets_into_no_path() {
        assert!(is_id("71c675ab-d94f-49cd-a114-e12490b328d9"));
        for text in [
            "",
            "..",
            "71c675ab-d94f-49cd-a114-e12490b328d",
            "71c675ab/d94f-49cd-a114-e12490b328d9",
        ] {
            assert!(!is_id(text), "{text}");
        }
    }

    #[test]
    fn a_name_with_a_colon_is_not_taken_for_an_operator() {
        assert_eq!(filter("guest"), "guest");
        assert_eq!(filter("ubuntu:22.04"), "eq:ubuntu:22.04");
        assert_eq!(filter("in:a"), "eq:in:a");
    }
}

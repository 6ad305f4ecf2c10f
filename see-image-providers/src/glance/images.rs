//! The images that Glance has: found by id, or by name the newest of them that is whole.

use reqwest::{StatusCode, Url};
use see_core::config::nearest;
use see_core::{Error, ErrorKind, Result};
use serde::Deserialize;

use super::exchange::Answer;
use crate::text;

/// How many images a list should have; a server may send fewer.
const LISTED: &str = "100";

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
}

#[derive(Deserialize)]
struct List {
    images: Vec<Described>,
}

/// Sends a request for an address to Glance, with a token that it takes.
#[async_trait::async_trait]
pub(super) trait Asks: Sync {
    /// The answer, whatever its status but 401.
    async fn get(&self, url: &Url) -> Result<Answer>;
}

/// Looks for the image of that id, else for the active one of that name that was made last.
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
    let named = ("name", filter(wanted));
    let active = [named.clone(), ("status", "active".to_owned())];
    if let Some(found) = newest(glance, base, wanted, &active).await? {
        return Ok(found);
    }
    // Of an image that is not active it can be said why.
    match newest(glance, base, wanted, &[named]).await? {
        Some(found) => usable(&found).map(|()| found),
        None => Err(missing(glance, base, wanted).await),
    }
}

/// The newest image of exactly that name: some databases compare without regard to case.
async fn newest(
    glance: &dyn Asks,
    base: &Url,
    wanted: &str,
    filters: &[(&str, String)],
) -> Result<Option<Described>> {
    let listed = listed(glance, base, filters).await?.into_iter();
    let mut fitting =
        listed.filter(|found| found.name.as_deref() == Some(wanted) && is_id(&found.id));
    Ok(fitting.next())
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

/// The images that the filters let pass, those that were made last first, and no more than one answer has.
///
/// Not those that were touched last: `updated_at` moves whenever somebody changes a property, and an old image with a
/// new tag is no newer for it. An image's data never change.
async fn listed(
    glance: &dyn Asks,
    base: &Url,
    filters: &[(&str, String)],
) -> Result<Vec<Described>> {
    let mut url = at(base, "v2/images")?;
    url.query_pairs_mut()
        .extend_pairs(filters)
        .append_pair("sort", "created_at:desc")
        .append_pair("limit", LISTED);
    let answer = glance.get(&url).await?;
    if answer.status != StatusCode::OK {
        return Err(answer.unexpected("Glance"));
    }
    Ok(answer.json::<List>("a list of images")?.images)
}

/// The error for a name that no image has, with what there is instead.
async fn missing(glance: &dyn Asks, base: &Url, wanted: &str) -> Error {
    let error = Error::new(
        ErrorKind::NotFound,
        format!(
            "Glance has no image with the name or id `{}`",
            wanted.escape_debug()
        ),
    );
    // It is for the message alone, so that a failure is none.
    let others = listed(glance, base, &[]).await.unwrap_or_default();
    let names = || others.iter().filter_map(|image| image.name.as_deref());
    match nearest(wanted, names()) {
        Some(near) => error.advice(format!("did you mean `{}`?", near.escape_debug())),
        None if others.is_empty() => {
            error.advice("the project sees no image at all: check that it is the right one")
        }
        None => error.advice(format!("the project sees {}", text::listed(names()))),
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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

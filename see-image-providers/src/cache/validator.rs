//! What tells one version of a resource from another.

use reqwest::header::{ETAG, HeaderMap, LAST_MODIFIED};

use crate::client::text;

/// What a server says to tell versions of a resource apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validator {
    /// An entity tag as it stands in the header, with the quotes that it should have; a weak one begins with `W/`.
    EntityTag(String),
    /// The text of a `Last-Modified` header.
    LastModified(String),
}

impl Validator {
    /// What a transfer is tied to: a strong entity tag, else the time of the last change, else a weak tag.
    pub(crate) fn of(headers: &HeaderMap) -> Option<Self> {
        let tag = Self::entity_tag(headers);
        let of_tag = |tag: &str| Self::EntityTag(tag.to_owned());
        if let Some(tag) = tag
            && !tag.starts_with("W/")
        {
            return Some(of_tag(tag));
        }
        let time = text(headers, &LAST_MODIFIED).map(|time| Self::LastModified(time.to_owned()));
        time.or_else(|| tag.map(of_tag))
    }

    /// The entity tag as it stands there. Some servers leave out its quotes: it tells versions apart all the same.
    pub(crate) fn entity_tag(headers: &HeaderMap) -> Option<&str> {
        let tag = text(headers, &ETAG)?;
        (!Self::bare(tag).is_empty()).then_some(tag)
    }

    /// The text for `If-Range`; `None` for an entity tag that is weak or has no quotes, which may not stand there.
    pub fn if_range(&self) -> Option<&str> {
        match self {
            Self::EntityTag(tag) => {
                let is_strong = tag.len() > 2 && tag.starts_with('"') && tag.ends_with('"');
                is_strong.then_some(tag)
            }
            Self::LastModified(text) => Some(text),
        }
    }

    /// An entity tag without what servers and proxies add or leave out: that it is weak, and its quotes.
    pub(crate) fn bare(tag: &str) -> &str {
        tag.trim_start_matches("W/").trim_matches('"')
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderName;

    use super::*;

    fn headers(lines: &[(&HeaderName, &str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| ((*name).clone(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_strong_tag_is_the_best_validator_and_a_weak_one_the_worst() {
        let time = "Wed, 21 Oct 2015 07:28:00 GMT";
        let tag = |tag: &str| Some(Validator::EntityTag(tag.to_owned()));
        let both = headers(&[(&ETAG, "\"a\""), (&LAST_MODIFIED, time)]);
        assert_eq!(Validator::of(&both), tag("\"a\""));
        let weak = headers(&[(&ETAG, "W/\"a\""), (&LAST_MODIFIED, time)]);
        assert_eq!(
            Validator::of(&weak),
            Some(Validator::LastModified(time.to_owned()))
        );
        assert_eq!(
            Validator::of(&headers(&[(&ETAG, "W/\"a\"")])),
            tag("W/\"a\"")
        );
        // As Ceph, rustfs and NetApp send them.
        for bare in ["abc", "W/abc", "\"abc", "abc-3"] {
            let found = Validator::of(&headers(&[(&ETAG, bare)]));
            assert_eq!(found, tag(bare), "{bare}");
            assert_eq!(found.unwrap().if_range(), None, "{bare}");
        }
        for none in ["\"", "", "W/", "\"\"", "W/\"\""] {
            assert_eq!(Validator::of(&headers(&[(&ETAG, none)])), None, "{none}");
        }
        let long = format!("\"{}\"", "a".repeat(512));
        assert_eq!(Validator::of(&headers(&[(&ETAG, &long)])), None);
    }
}

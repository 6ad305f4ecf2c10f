//! The versions of an object, out of the XML of `ListObjectVersions`.

use see_core::{Error, ErrorKind, Result};

use super::xml;

/// As long as a page may be: a thousand versions with keys of a kilobyte and more.
pub(super) const LONGEST: usize = 8 * 1024 * 1024;

/// A version of some object, or the mark that it was deleted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Version {
    /// The object's key.
    pub(super) key: String,
    /// The version's own name; `null` for what was there before versions were.
    pub(super) id: String,
    /// Whether it says that the object was deleted.
    pub(super) is_delete_marker: bool,
}

/// One page of versions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// In the server's order: by key, and of one key the newest first.
    pub(super) versions: Vec<Version>,
    /// Where the next page starts: the key, and the version's name.
    pub(super) next: Option<(String, String)>,
}

impl Page {
    /// Reads a page.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] where it is none.
    pub(super) fn read(body: &[u8]) -> Result<Self> {
        let broken = |message: &'static str| {
            Error::new(ErrorKind::Unavailable, message).advice(
                "check that the server knows object versions, or leave `include_deleted` out",
            )
        };
        let text = std::str::from_utf8(body)
            .map_err(|error| broken("the list of versions is not UTF-8").caused_by(error))?;
        let mut page = Self::default();
        let mut current = Version::default();
        let mut is_list = false;
        let (mut is_truncated, mut next_key, mut next_version) = (false, None, String::new());
        let read = xml::walk(text, |path, text| match path {
            ["ListVersionsResult"] => is_list = true,
            ["ListVersionsResult", kind @ ("Version" | "DeleteMarker")] => {
                current.is_delete_marker = *kind == "DeleteMarker";
                page.versions.push(std::mem::take(&mut current));
            }
            ["ListVersionsResult", "Version" | "DeleteMarker", "Key"] => {
                text.clone_into(&mut current.key)
            }
            [
                "ListVersionsResult",
                "Version" | "DeleteMarker",
                "VersionId",
            ] => {
                text.clone_into(&mut current.id);
            }
            ["ListVersionsResult", "IsTruncated"] => is_truncated = text.trim() == "true",
            ["ListVersionsResult", "NextKeyMarker"] => next_key = Some(text.to_owned()),
            ["ListVersionsResult", "NextVersionIdMarker"] => text.clone_into(&mut next_version),
            _ => {}
        });
        read.map_err(|reason| broken("the list of versions cannot be read").caused_by(reason))?;
        if !is_list {
            return Err(broken("the answer is no list of versions"));
        }
        page.next = next_key
            .filter(|_| is_truncated)
            .map(|key| (key, next_version));
        Ok(page)
    }

    /// What the page says of `key`, the newest first.
    pub(super) fn of<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Version> {
        self.versions
            .iter()
            .filter(move |version| version.key == key)
    }

    /// Where to go on reading for more of `key`: nowhere once other keys came.
    pub(super) fn more_of(&self, key: &str) -> Option<&(String, String)> {
        self.next.as_ref().filter(|(next, _)| next == key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Name>images</Name><Prefix>a&amp;b</Prefix><KeyMarker/><VersionIdMarker></VersionIdMarker>
  <NextKeyMarker>a&amp;b</NextKeyMarker><NextVersionIdMarker>v1</NextVersionIdMarker>
  <MaxKeys>3</MaxKeys><IsTruncated>true</IsTruncated>
  <DeleteMarker><Key>a&amp;b</Key><VersionId>v3</VersionId><IsLatest>true</IsLatest>
    <Owner><ID>x</ID><DisplayName>Key</DisplayName></Owner></DeleteMarker>
  <Version><Key>a&#38;b</Key><VersionId>v2</VersionId><IsLatest>false</IsLatest>
    <LastModified>2026-11-24T02:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag></Version>
  <Version><Key>a&amp;b.old</Key><VersionId>null</VersionId></Version>
</ListVersionsResult>"#;

    #[test]
    fn versions_and_marks_come_in_the_servers_order() {
        let page = Page::read(PAGE.as_bytes()).unwrap();
        let of = |key: &str| -> Vec<(String, bool)> {
            page.of(key)
                .map(|v| (v.id.clone(), v.is_delete_marker))
                .collect()
        };
        assert_eq!(
            of("a&b"),
            [("v3".to_owned(), true), ("v2".to_owned(), false)]
        );
        assert_eq!(of("a&b.old"), [("null".to_owned(), false)]);
        assert!(of("a").is_empty());
        let next = Some(&("a&b".to_owned(), "v1".to_owned()));
        assert_eq!(page.more_of("a&b"), next);
        assert_eq!(page.more_of("a"), None);
        let last = PAGE.replace("<IsTruncated>true", "<IsTruncated>false");
        assert_eq!(Page::read(last.as_bytes()).unwrap().next, None);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for (body, part) in [
            ("", "no list"),
            ("<html></html>", "no list"),
            ("<Error><Code>x</Code></Error>", "no list"),
            (&PAGE[..400], "cannot be read"),
            (
                "<ListVersionsResult>&evil;</ListVersionsResult>",
                "cannot be read",
            ),
            (
                "<!DOCTYPE a [<!ENTITY e 'eeee'>]><ListVersionsResult>&e;</ListVersionsResult>",
                "cannot be read",
            ),
            (&"<a>".repeat(100_000), "cannot be read"),
        ] {
            let error = Page::read(body.as_bytes()).unwrap_err();
            assert!(error.to_string().contains(part), "{}", error.chain());
        }
        assert!(Page::read(b"\xff").is_err());
    }
}

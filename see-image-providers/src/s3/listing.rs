//! The versions of an object, out of the XML of `ListObjectVersions`.

use see_core::{Error, ErrorKind, Result};
use serde::Deserialize;

/// As long as an answer may be: a thousand versions with keys of a kilobyte and more.
pub(super) const LONGEST: usize = 8 * 1024 * 1024;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    /// Only a list of versions has it.
    #[serde(rename = "IsTruncated")]
    _is_truncated: bool,
    /// In the server's order: by key, and of one key the newest first.
    #[serde(default, rename = "Version")]
    versions: Vec<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    key: String,
    /// `null` for what was there before versions were.
    version_id: String,
}

/// The id of the newest version of `key` that a list tells of; marks of deletion are none.
///
/// # Errors
/// [`ErrorKind::Unavailable`] where it is no list.
pub(super) fn newest(body: &[u8], key: &str) -> Result<Option<String>> {
    let broken = |reason: String| {
        Error::new(
            ErrorKind::Unavailable,
            "the server's list of versions cannot be read",
        )
        .advice("check that the server knows object versions, or leave `include_deleted` out")
        .caused_by(reason)
    };
    let text = std::str::from_utf8(body).map_err(|error| broken(error.to_string()))?;
    let list: List = quick_xml::de::from_str(text).map_err(|error| broken(error.to_string()))?;
    let mut versions = list.versions.into_iter();
    let newest = versions.find(|version| version.key == key);
    Ok(newest.map(|version| version.version_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
  <Name>images</Name><Prefix>a&amp;b</Prefix><KeyMarker/><VersionIdMarker></VersionIdMarker>
  <MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>
  <DeleteMarker><Key>a&amp;b</Key><VersionId>v3</VersionId><IsLatest>true</IsLatest>
    <Owner><ID>x</ID><DisplayName>Key</DisplayName></Owner></DeleteMarker>
  <Version><Key>a&#38;b</Key><VersionId>v2</VersionId><IsLatest>false</IsLatest>
    <LastModified>2026-11-24T02:00:00.000Z</LastModified><ETag>&quot;e&quot;</ETag></Version>
  <DeleteMarker><Key>a&amp;b</Key><VersionId>v1</VersionId></DeleteMarker>
  <Version><Key>a&amp;b</Key><VersionId>v0</VersionId></Version>
  <Version><Key>a&amp;b.old</Key><VersionId>null</VersionId></Version>
</ListVersionsResult>"#;

    #[test]
    fn the_newest_version_is_the_first_of_the_key_that_is_no_mark() {
        let of = |key: &str| newest(LIST.as_bytes(), key).unwrap();
        assert_eq!(of("a&b").as_deref(), Some("v2"));
        assert_eq!(of("a&b.old").as_deref(), Some("null"));
        assert_eq!(of("a"), None);
        let empty = "<ListVersionsResult><IsTruncated>false</IsTruncated></ListVersionsResult>";
        assert_eq!(newest(empty.as_bytes(), "a").unwrap(), None);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for body in [
            "",
            "<html></html>",
            "<Error><Code>x</Code></Error>",
            &LIST[..400],
            "<ListVersionsResult><IsTruncated>&evil;</IsTruncated></ListVersionsResult>",
            "<!DOCTYPE a [<!ENTITY e 'true'>]><a><IsTruncated>&e;</IsTruncated></a>",
            &"<a>".repeat(100_000),
        ] {
            let error = newest(body.as_bytes(), "a").unwrap_err();
            assert!(error.to_string().contains("list of versions"), "{error}");
        }
        assert!(newest(b"\xff", "a").is_err());
    }
}

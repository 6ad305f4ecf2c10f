//! Paths as text, for events, JSON and run files, without loss.

use std::ffi::OsString;
use std::fmt::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// How the text of a path begins that is not UTF-8.
const URL: &str = "file:///";

/// A path as text: as it is where it is UTF-8, and as a `file://` URL with percent-encoded bytes otherwise.
///
/// [`path_from_text`] gives the path back. A relative path that is not UTF-8 is made absolute, since URLs are.
///
/// ```
/// use std::ffi::OsStr;
/// use std::os::unix::ffi::OsStrExt;
/// use std::path::Path;
///
/// assert_eq!(see_core::path_to_text(Path::new("/tmp/ö.sh")), "/tmp/ö.sh");
/// let latin = Path::new(OsStr::from_bytes(b"/tmp/\xf6 1.sh"));
/// assert_eq!(see_core::path_to_text(latin), "file:///tmp/%F6%201.sh");
/// assert_eq!(see_core::path_from_text("file:///tmp/%F6%201.sh"), latin);
/// ```
pub fn path_to_text(path: &Path) -> String {
    if let Some(text) = path.to_str() {
        return text.to_owned();
    }
    // Without a working folder there is nothing that the path could be relative to.
    let absolute = std::path::absolute(path).unwrap_or_else(|_| Path::new("/").join(path));
    let mut text = String::from("file://");
    for byte in absolute.as_os_str().as_bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                text.push(char::from(*byte));
            }
            // Writing to a string cannot fail.
            _ => drop(write!(text, "%{byte:02X}")),
        }
    }
    text
}

/// The path that a text of [`path_to_text`] stands for. Any text that is not such a URL is the path itself.
pub fn path_from_text(text: &str) -> PathBuf {
    let decoded = text
        .starts_with(URL)
        .then(|| decoded(&text.as_bytes()[URL.len() - 1..]))
        .flatten();
    decoded.unwrap_or_else(|| PathBuf::from(text))
}

fn decoded(encoded: &[u8]) -> Option<PathBuf> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                bytes.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
            }
            _ => bytes.push(*byte),
        }
    }
    (!bytes.contains(&0)).then(|| PathBuf::from(OsString::from_vec(bytes)))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use proptest::prelude::*;

    use super::*;

    mod properties {
        use super::*;

        proptest! {
            #[test]
            fn every_absolute_path_comes_back_as_it_was(name in prop::collection::vec(1_u8.., 0..300)) {
                let path = Path::new("/").join(OsStr::from_bytes(&name));
                prop_assert_eq!(path_from_text(&path_to_text(&path)), path);
            }
        }
    }

    #[test]
    fn what_is_no_url_of_a_path_is_a_path() {
        for text in [
            "",
            "/a%20b",
            "file",
            "file:///%",
            "file:///%zz",
            "file:///%00",
            "a/b",
        ] {
            assert_eq!(path_from_text(text), Path::new(text));
        }
    }
}

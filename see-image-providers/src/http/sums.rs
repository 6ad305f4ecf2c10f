//! Files of sums, as `sha256sum` writes them: `SHA256SUMS`, `SHA512SUMS`.

use see_core::{Error, ErrorKind, Result};

use crate::cache::Algorithm;

/// As long as a file of sums may be. The largest in use, of whole mirrors, are of some hundred kilobytes.
pub(super) const LONGEST: usize = 4 * 1024 * 1024;
/// How many names an error lists.
const LISTED: usize = 5;
/// As long as a name in an error may be.
const WIDEST: usize = 80;

/// The sum of `wanted` as `algorithm:hex`, which is how configurations pin one too.
///
/// Both forms are read: GNU's `HEX  NAME` and BSD's `SHA256 (NAME) = HEX`. What is neither, such as the frame
/// of a signature, is passed over.
///
/// # Errors
/// [`ErrorKind::NotFound`] where it lists no such name, or only a sum that is too weak;
/// [`ErrorKind::Configuration`] where it lists two that differ.
pub(super) fn find(text: &str, wanted: &str) -> Result<String> {
    let mut found: Option<String> = None;
    let mut weak = None;
    let mut others = Vec::new();
    for line in text.lines() {
        let line = line.trim_end_matches('\r');
        // Before a name with escapes.
        let (line, is_escaped) = match line.strip_prefix('\\') {
            Some(rest) => (rest, true),
            None => (line, false),
        };
        let Some((hex, name)) = bsd(line).or_else(|| gnu(line)) else {
            continue;
        };
        let name = unescaped(name, is_escaped);
        // `find . -exec sha256sum` writes its paths so.
        if name.strip_prefix("./").unwrap_or(&name) != wanted {
            if others.len() <= LISTED {
                others.push(name);
            }
            continue;
        }
        let Some(algorithm) = strong(hex) else {
            weak = Some(hex.len());
            continue;
        };
        let sum = format!("{algorithm}:{}", hex.to_ascii_lowercase());
        match &found {
            Some(earlier) if *earlier != sum && same_algorithm(earlier, &sum) => {
                let message = format!("two lines give different sums of `{}`", shown(wanted));
                return Err(Error::new(ErrorKind::Configuration, message)
                    .advice("pin the right one with `checksum`"));
            }
            // Of both algorithms either says the same; the longer one is kept.
            Some(earlier) if earlier.len() >= sum.len() => {}
            _ => found = Some(sum),
        }
    }
    found.ok_or_else(|| missing(wanted, weak, &others))
}

fn missing(name: &str, weak: Option<usize>, others: &[String]) -> Error {
    let error = |message| Error::new(ErrorKind::NotFound, message);
    let name = shown(name);
    if let Some(length) = weak {
        let message = format!(
            "the sum of `{name}` has {length} digits, which is neither SHA-256 nor SHA-512"
        );
        return error(message).advice("pin a strong one with `checksum`");
    }
    let message = format!("no line gives the sum of `{name}`");
    let names: Vec<String> = others.iter().take(LISTED).map(|name| shown(name)).collect();
    let more = if others.len() > LISTED { ", …" } else { "" };
    error(message).advice(match names.is_empty() {
        true => "it has no line of the form `HEX  NAME` or `SHA256 (NAME) = HEX`".to_owned(),
        false => format!("it lists {}{more}", names.join(", ")),
    })
}

fn shown(name: &str) -> String {
    let mut characters = name.escape_debug();
    let mut text: String = characters.by_ref().take(WIDEST).collect();
    if characters.next().is_some() {
        text.push('…');
    }
    text
}

fn strong(hex: &str) -> Option<&'static str> {
    match hex.len() {
        64 => Some("sha256"),
        128 => Some("sha512"),
        _ => None,
    }
}

fn same_algorithm(one: &str, other: &str) -> bool {
    one.len() == other.len()
}

fn is_hex(text: &str) -> bool {
    // From MD5's length on: a shorter word of a sentence may be of such letters too.
    text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The sum and the name of `HEX  NAME`, or of `HEX *NAME` for a file that was read as binary.
fn gnu(line: &str) -> Option<(&str, &str)> {
    let (hex, rest) = line.split_once(' ')?;
    let name = rest.strip_prefix([' ', '*'])?;
    (is_hex(hex) && !name.is_empty()).then_some((hex, name))
}

/// Those of `SHA256 (NAME) = HEX`. Its word for the algorithm has to fit the length of the sum.
fn bsd(line: &str) -> Option<(&str, &str)> {
    let (word, rest) = line.split_once(" (")?;
    let (name, hex) = rest.rsplit_once(") = ")?;
    // Such as SHA512/256, BLAKE2b are of a length that says nothing.
    let fits = Algorithm::of_name(word).is_some_and(|known| known.length() * 2 == hex.len());
    (fits && is_hex(hex) && !name.is_empty()).then_some((hex, name))
}

fn unescaped(name: &str, is_escaped: bool) -> String {
    if !is_escaped {
        return name.to_owned();
    }
    let mut text = String::with_capacity(name.len());
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some('n') => text.push('\n'),
                Some('r') => text.push('\r'),
                Some(other) => text.push(other),
                None => text.push('\\'),
            },
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

    #[test]
    fn both_forms_are_read_and_the_name_is_matched_exactly() {
        let text = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n# guest.qcow2: 5 bytes\n\
             {B}  guest.qcow2.old\n{A}  my guest.qcow2\r\n{B} *guest.qcow2\n\
             SHA256 (bsd (1).img) = {A}\n\\{A}  back\\\\slash\n{A}  ./dotted\n{A}  sub/guest\n"
        );
        for (name, digits) in [
            ("guest.qcow2", B),
            ("my guest.qcow2", A),
            ("bsd (1).img", A),
            ("back\\slash", A),
            ("dotted", A),
            ("sub/guest", A),
        ] {
            let expected = format!("sha256:{}", digits.to_lowercase());
            assert_eq!(find(&text, name).unwrap(), expected, "{name}");
        }
        for name in ["guest", "uest.qcow2", "GUEST.qcow2", "slash"] {
            let error = find(&text, name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(error.to_string().contains("it lists guest.qcow2.old, "));
        }
    }

    #[test]
    fn of_two_algorithms_the_longer_sum_counts_and_of_one_two_sums_are_refused() {
        let long = "c".repeat(128);
        for text in [
            format!("{A}  a\n{long}  a\n"),
            format!("SHA512 (a) = {long}\n{A}  a\n{A}  a\n"),
        ] {
            assert_eq!(find(&text, "a").unwrap(), format!("sha512:{long}"));
        }
        let error = find(&format!("{A}  a\n{B}  a\n"), "a").unwrap_err();
        assert!(error.to_string().contains("two lines give different sums"));
    }

    #[test]
    fn a_weak_sum_and_an_html_page_are_told_apart() {
        let md5 = "d".repeat(32);
        let error = find(&format!("{md5}  a\nMD5 (a) = {md5}"), "a").unwrap_err();
        assert!(error.to_string().contains("has 32 digits"), "{error}");
        let error = find("<html><body>404</body></html>", "a").unwrap_err();
        assert!(error.to_string().contains("it has no line"), "{error}");
        // A sum that is not of the length that its word says is none.
        let error = find(&format!("SHA512 (a) = {A}"), "a").unwrap_err();
        assert!(error.to_string().contains("it has no line"), "{error}");
    }

    #[test]
    fn a_name_of_any_length_makes_a_short_error() {
        let text = format!("{A}  {}\n", "x".repeat(100_000));
        let error = find(&text, &"y".repeat(100_000)).unwrap_err();
        assert!(error.to_string().len() < 500);
    }
}

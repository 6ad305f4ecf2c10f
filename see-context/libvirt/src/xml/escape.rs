//! Text and attribute values, to XML and back.

use std::borrow::Cow;

/// Whether XML 1.0 allows this character at all.
pub(super) fn is_allowed(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// The character that stands behind `&name;`; `None` for what only a document type could define.
pub(super) fn reference(name: &str) -> Option<char> {
    match name {
        "amp" => return Some('&'),
        "lt" => return Some('<'),
        "gt" => return Some('>'),
        "quot" => return Some('"'),
        "apos" => return Some('\''),
        _ => {}
    }
    let number = name.strip_prefix('#')?;
    let (digits, radix) = match number.strip_prefix('x') {
        Some(hexadecimal) => (hexadecimal, 16),
        None => (number, 10),
    };
    // `from_str_radix` takes a sign, XML does not.
    if digits.starts_with('+') {
        return None;
    }
    let character = char::from_u32(u32::from_str_radix(digits, radix).ok()?)?;
    is_allowed(character).then_some(character)
}

/// The first thing in raw character data that is not XML: its byte offset, and what is wrong.
pub(super) fn check(raw: &str) -> Result<(), (usize, String)> {
    for (offset, character) in raw.char_indices() {
        if !is_allowed(character) {
            return Err((
                offset,
                format!(
                    "the character U+{:04X} is not allowed",
                    u32::from(character)
                ),
            ));
        }
        if character != '&' {
            continue;
        }
        let rest = &raw[offset + 1..];
        // No reference is longer than &#x10FFFF; with some leading zeroes.
        let mut near = rest.char_indices().take(16);
        let name = match near.find(|(_, character)| *character == ';') {
            Some((end, _)) => &rest[..end],
            None => {
                return Err((
                    offset,
                    "an & that starts no reference is written &amp;".into(),
                ));
            }
        };
        if reference(name).is_none() {
            return Err((
                offset,
                format!(
                    "&{}; is not one of XML's own references",
                    name.escape_debug()
                ),
            ));
        }
    }
    Ok(())
}

/// The characters that checked raw data stands for.
pub(super) fn unescape(raw: &str) -> Cow<'_, str> {
    if !raw.contains('&') {
        return Cow::Borrowed(raw);
    }
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(start) = rest.find('&') {
        text.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        match after.find(';').map(|end| (end, reference(&after[..end]))) {
            Some((end, Some(character))) => {
                text.push(character);
                rest = &after[end + 1..];
            }
            _ => {
                text.push('&');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    Cow::Owned(text)
}

/// Text as the content of an element. Characters that XML does not have become U+FFFD.
pub(super) fn text(text: &str) -> String {
    escape(text, None)
}

/// Text as the inside of an attribute value in these quotes.
pub(super) fn attribute(text: &str, quote: char) -> String {
    escape(text, Some(quote))
}

fn escape(text: &str, quote: Option<char>) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' if quote == Some('"') => escaped.push_str("&quot;"),
            '\'' if quote == Some('\'') => escaped.push_str("&apos;"),
            // A reader turns these into spaces or newlines unless they are written as numbers.
            '\r' => escaped.push_str("&#13;"),
            '\n' if quote.is_some() => escaped.push_str("&#10;"),
            '\t' if quote.is_some() => escaped.push_str("&#9;"),
            other if is_allowed(other) => escaped.push(other),
            _ => escaped.push(char::REPLACEMENT_CHARACTER),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn escaped_text_reads_back_as_it_was(original in "[\t\n\r -\u{d7ff}\u{e000}-\u{fffd}]*") {
            for written in [text(&original), attribute(&original, '"'), attribute(&original, '\'')] {
                prop_assert_eq!(check(&written), Ok(()));
                prop_assert_eq!(unescape(&written), original.as_str());
            }
        }

        #[test]
        fn an_escaped_attribute_never_holds_its_quote(original in any::<String>()) {
            prop_assert!(!attribute(&original, '"').contains('"'));
            prop_assert!(!attribute(&original, '\'').contains('\''));
        }
    }

    #[test]
    fn only_the_references_of_xml_itself_are_known() {
        assert_eq!(unescape("&#x41;&#66;&lt;&amp;lt;"), "AB<&lt;");
        for bad in [
            "&nbsp;",
            "& ",
            "&",
            "&#0;",
            "&#x;",
            "&#+65;",
            "&#xD800;",
            "&#1114112;",
            "\u{1}",
        ] {
            assert!(check(bad).is_err(), "{bad:?} passed");
        }
    }
}

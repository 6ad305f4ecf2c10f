//! Text from a guest, a file name or a log made harmless for a terminal: what could move the cursor,
//! change colours, hide or reorder text is shown as what it is.

use std::fmt::Write;
use std::path::Path;

/// One line: line breaks and tabs are escaped as well.
pub(crate) fn line(text: &str) -> String {
    escaped(text, |_| false)
}

/// A path on one line. Bytes that are no UTF-8 are shown as `\xNN`.
pub(crate) fn path(path: &Path) -> String {
    bytes(path.as_os_str().as_encoded_bytes(), line)
}

/// Several lines: line breaks and tabs stay, a carriage return before a line break goes.
///
/// Bytes that are no UTF-8 are shown as `\xNN`.
pub(crate) fn block(block: &[u8]) -> String {
    let stays = |character| matches!(character, '\n' | '\t');
    bytes(block, |valid| escaped(&valid.replace("\r\n", "\n"), stays))
}

fn bytes(bytes: &[u8], shown: impl Fn(&str) -> String) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(&shown(chunk.valid()));
        for byte in chunk.invalid() {
            push(&mut text, format_args!("\\x{byte:02x}"));
        }
    }
    text
}

fn escaped(text: &str, stays: impl Fn(char) -> bool) -> String {
    let mut harmless = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            _ if stays(character) => harmless.push(character),
            '\n' => harmless.push_str("\\n"),
            '\r' => harmless.push_str("\\r"),
            '\t' => harmless.push_str("\\t"),
            // Bytes of one digit pair are shorter to read than code points.
            '\0'..='\x7f' if character.is_control() => {
                push(
                    &mut harmless,
                    format_args!("\\x{:02x}", u32::from(character)),
                );
            }
            _ if character.is_control() || is_invisible(character) => {
                push(
                    &mut harmless,
                    format_args!("{}", character.escape_unicode()),
                );
            }
            _ => harmless.push(character),
        }
    }
    harmless
}

/// Characters without a picture of their own that change how others look, or hide text.
pub(super) fn is_invisible(character: char) -> bool {
    matches!(
        character,
        '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes_show_what_they_were() {
        assert_eq!(line("a\x1b[31mred\n"), "a\\x1b[31mred\\n");
        assert_eq!(line("gpj.\u{202e}exe"), "gpj.\\u{202e}exe");
        assert_eq!(
            block(b"one\r\ntwo\rthree\t\xff\x9b\n"),
            "one\ntwo\\rthree\t\\xff\\x9b\n"
        );
        assert_eq!(line("\u{9b}2J"), "\\u{9b}2J");
        let odd = std::ffi::OsStr::from_bytes(b"/t/\xf6 \n\x1b.sh");
        assert_eq!(path(Path::new(odd)), "/t/\\xf6 \\n\\x1b.sh");
    }

    fn is_harmless(text: &str, stays: &[char]) -> bool {
        text.chars()
            .all(|c| stays.contains(&c) || !(c.is_control() || is_invisible(c)))
    }

    mod properties {
        use super::*;

        proptest! {
            #[test]
            fn nothing_harmful_passes(text in any::<String>(), bytes in any::<Vec<u8>>()) {
                prop_assert!(is_harmless(&line(&text), &[]));
                prop_assert!(is_harmless(&block(text.as_bytes()), &['\n', '\t']));
                prop_assert!(is_harmless(&block(&bytes), &['\n', '\t']));
            }

            #[test]
            fn terminal_sequences_do_not_pass(parts in prop::collection::vec(
                prop_oneof![
                    Just("\x1b[2J"), Just("\x1b]0;title\x07"), Just("\u{9b}31m"), Just("\u{202e}"),
                    Just("\u{2066}"), Just("\x08"), Just("\x7f"), Just("ok"), Just("\n"), Just("\r"),
                ],
                0..40,
            )) {
                prop_assert!(is_harmless(&block(parts.concat().as_bytes()), &['\n', '\t']));
            }

            #[test]
            fn plain_text_is_left_alone(text in "[a-zA-Z0-9 äöü漢字✓\\\\/.:-]*") {
                prop_assert_eq!(line(&text), text.clone());
                prop_assert_eq!(block(text.as_bytes()), text);
            }
        }
    }
}

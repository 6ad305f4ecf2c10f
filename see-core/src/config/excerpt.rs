//! The line of a file that an error is about, for front ends to draw.

use std::fs::File;
use std::io::Read;

use super::{Origin, Place};

/// Characters of a line that are shown at most.
const WIDEST: usize = 120;
/// As long as configurations may be.
const LONGEST: u64 = 4 * 1024 * 1024;

/// Words in the names of keys whose values are not for other eyes.
const SECRETS: [&str; 8] = [
    "token",
    "passw",
    "secret",
    "credential",
    "apikey",
    "api_key",
    "api-key",
    "access_key",
];

/// A line of a configuration file, with the part that an error is about.
///
/// Control characters are replaced, and so are values of keys that sound like secrets, and the text of PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    /// The line's number, from 1.
    pub line: u32,
    /// The line, or the part of it around the mistake: at most 120 characters.
    pub text: String,
    /// How many characters of `text` stand before the mistake.
    pub before: usize,
    /// How many characters the mistake is long, at least 1.
    pub length: usize,
}

impl Excerpt {
    /// Reads the line again; nothing where the place is in no file, or the file changed.
    pub fn of(place: &Place) -> Option<Self> {
        let Origin::File { path, line, column } = &place.origin else {
            return None;
        };
        // A pipe or a device was read once: to open it again would block.
        if !std::fs::metadata(path).ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        File::open(path)
            .ok()?
            .take(LONGEST)
            .read_to_end(&mut bytes)
            .ok()?;
        let text = String::from_utf8_lossy(&bytes);
        Self::within(
            text.strip_prefix('\u{feff}').unwrap_or(&text),
            *line,
            *column,
        )
    }

    fn within(text: &str, line: u32, column: u32) -> Option<Self> {
        let index = usize::try_from(line).ok()?.checked_sub(1)?;
        let start = usize::try_from(column).ok()?.checked_sub(1)?;
        let shown = text.split('\n').nth(index)?;
        let mut characters: Vec<char> = shown.trim_end_matches('\r').chars().collect();
        if start > characters.len() {
            return None;
        }
        let length = token_length(&characters[start..]);
        mask_secrets(&mut characters);
        for character in &mut characters {
            if *character == '\t' {
                *character = ' ';
            } else if character.is_control() || is_reordering(*character) {
                *character = '\u{fffd}';
            }
        }
        // A third of the width before the mistake, the rest for it and what follows.
        let cut = match characters.len() > WIDEST {
            true => start.saturating_sub(WIDEST / 3),
            false => 0,
        };
        let text: String = characters.iter().skip(cut).take(WIDEST).collect();
        let before = start - cut;
        Some(Self {
            line,
            length: length.min(WIDEST - before).max(1),
            before,
            text,
        })
    }
}

/// Characters that make a terminal show others in another order.
fn is_reordering(character: char) -> bool {
    matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn token_length(characters: &[char]) -> usize {
    match characters.first() {
        None => 1,
        Some('"') => string_length(characters),
        Some(_) => characters
            .iter()
            .take_while(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '+' | '.'))
            .count()
            .max(1),
    }
}

/// The length of the string that starts here, its quotes included.
fn string_length(characters: &[char]) -> usize {
    let mut is_escaped = false;
    for (index, character) in characters.iter().enumerate().skip(1) {
        match character {
            '"' if !is_escaped => return index + 1,
            '\\' => is_escaped = !is_escaped,
            _ => is_escaped = false,
        }
    }
    characters.len()
}

/// Replaces the values that follow a secret's key on its line.
fn mask_secrets(characters: &mut [char]) {
    let mut at = 0;
    let mut key_is_secret = false;
    while at < characters.len() {
        match characters[at] {
            '"' => {
                let end = at + string_length(&characters[at..]);
                let word: String = characters[at..end].iter().collect();
                if key_is_secret || is_pem(&word) {
                    let inside = end.saturating_sub(1).max(at + 1);
                    characters[at + 1..inside].fill('*');
                    key_is_secret = false;
                } else {
                    let word = word.to_lowercase();
                    let is_key =
                        characters[end..].iter().find(|c| !c.is_whitespace()) == Some(&':');
                    key_is_secret = is_key && SECRETS.iter().any(|secret| word.contains(secret));
                    mask_login(&mut characters[at..end]);
                }
                at = end;
            }
            digit if key_is_secret && digit.is_alphanumeric() => {
                characters[at] = '*';
                at += 1;
            }
            ',' | '}' => {
                key_is_secret = false;
                at += 1;
            }
            _ => at += 1,
        }
    }
}

/// Whether a string, with its quotes, holds a key or a certificate; one without an end may stand on several lines.
fn is_pem(string: &str) -> bool {
    const BEGIN: &str = "-----BEGIN";
    string.contains(BEGIN)
        || serde_json::from_str(string).is_ok_and(|read: String| read.contains(BEGIN))
}

/// Replaces user and password in an address.
fn mask_login(string: &mut [char]) {
    let Some(scheme) = string.windows(3).position(|three| three == [':', '/', '/']) else {
        return;
    };
    let authority = &mut string[scheme + 3..];
    let end = authority
        .iter()
        .position(|character| matches!(character, '/' | '?' | '#' | '"'));
    let end = end.unwrap_or(authority.len());
    let authority = &mut authority[..end];
    if let Some(at) = authority.iter().rposition(|character| *character == '@') {
        authority[..at].fill('*');
    }
}

#[cfg(test)]
mod tests {
    use super::Excerpt;

    #[test]
    fn user_and_password_in_an_address_are_hidden() {
        let drawn = drawn(r#"{"uri": "http://me:hush@host/a@b", "x": 1}"#, 1, 37);
        let expected = r#"{"uri": "http://*******@host/a@b", "x": 1}"#;
        assert_eq!(drawn.lines().next(), Some(expected));
    }

    #[test]
    fn the_text_of_a_pem_file_is_hidden_under_whatever_key_and_escapes() {
        for value in [
            r"-----BEGIN PRIVATE KEY-----\nhush\n",
            r#"Bag\t\"hush\"\n-----BEGIN PRIVATE KEY-----\nhush\n"#,
            r"\u002d----\u0042EGIN PRIVATE KEY-----\nhush\n",
        ] {
            let text = format!(r#"{{"key": "{value}", "n": 3}}"#);
            let shown = drawn(&text, 1, 9);
            let expected = format!(r#"{{"key": "{}", "n": 3}}"#, "*".repeat(value.len()));
            assert_eq!(shown.lines().next(), Some(expected.as_str()));
        }
        let cut = drawn("{\"key\": \"-----BEGIN PRIVATE KEY-----\n", 1, 9);
        assert!(!cut.contains("PRIVATE"), "{cut}");
    }

    fn drawn(text: &str, line: u32, column: u32) -> String {
        let excerpt = Excerpt::within(text, line, column).expect("the position is in the text");
        let underline = " ".repeat(excerpt.before) + &"^".repeat(excerpt.length);
        format!("{}\n{underline}", excerpt.text)
    }

    #[test]
    fn the_mistake_is_underlined_whole() {
        let text = "{\r\n\t\"imgae\": \"a\",\r\n}";
        assert_eq!(drawn(text, 2, 2), " \"imgae\": \"a\",\n ^^^^^^^");
    }

    #[test]
    fn a_long_line_is_cut_around_the_mistake() {
        let text = format!("[{}12x, {}]", "1, ".repeat(200), "2, ".repeat(200));
        let excerpt = Excerpt::within(&text, 1, 602).expect("the position is in the text");
        let marked: String = excerpt
            .text
            .chars()
            .skip(excerpt.before)
            .take(excerpt.length)
            .collect();
        assert_eq!(marked, "12x");
        assert_eq!(excerpt.text.chars().count(), 120);
    }

    #[test]
    fn secrets_and_control_characters_are_not_shown() {
        let text = "{\"agent_token\": \"hush\\\"hush\", \"pass\u{1b}\": \"x\", \"Password\": 12, \"n\": 3}";
        assert_eq!(
            Excerpt::within(text, 1, 1)
                .expect("the position is in the text")
                .text,
            "{\"agent_token\": \"**********\", \"pass\u{fffd}\": \"x\", \"Password\": **, \"n\": 3}"
        );
    }

    #[test]
    fn a_position_outside_the_text_has_no_excerpt() {
        assert_eq!(Excerpt::within("{}", 1, 9), None);
        assert_eq!(Excerpt::within("{}", 2, 1), None);
        assert_eq!(Excerpt::within("{}", 0, 0), None);
    }
}

//! Serde's complaints in the words of people who write run files.

use std::fmt;

use serde::de::{Expected, Unexpected};

use super::Place;
use super::nearest::{alternatives, did_you_mean};
use crate::{Error, ErrorKind};

/// What the deserializer fails with: the framework's error, which learns its place on the way up.
#[derive(Debug)]
pub(super) struct Failure(pub(super) Error);

impl Failure {
    fn new(message: String) -> Self {
        Self(Error::new(ErrorKind::Configuration, message))
    }

    pub(super) fn expected(expected: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self::new(format!("expected {expected}, found {found}"))
    }

    pub(super) fn unknown_key(key: &str, allowed: &[&str]) -> Self {
        let shown = shortened(key);
        let message = match allowed {
            [] => format!("unknown key `{shown}`, no keys are allowed here"),
            _ => format!("unknown key `{shown}`, expected {}", alternatives(allowed)),
        };
        Self::new(message).advise(did_you_mean(key, allowed.iter().copied()))
    }

    pub(super) fn unknown_word(word: &str, allowed: &[&str]) -> Self {
        Self::expected(alternatives(allowed), format_args!("`{}`", shortened(word)))
            .advise(did_you_mean(word, allowed.iter().copied()))
    }

    pub(super) fn advise(self, advice: Option<impl Into<String>>) -> Self {
        match advice {
            Some(advice) => Self(self.0.advice(advice)),
            None => self,
        }
    }

    /// Says where, unless something closer did.
    pub(super) fn or_at(self, place: impl FnOnce() -> Place) -> Self {
        match self.0.place() {
            Some(_) => self,
            None => Self(self.0.at(place())),
        }
    }
}

/// A word of the configuration as a message quotes it: on one line, and not without end.
pub(super) fn shortened(word: &str) -> String {
    const LONGEST: usize = 60;
    let mut text = String::new();
    for character in word.chars().take(LONGEST) {
        match character {
            '"' | '\'' | '\\' => text.push(character),
            _ => text.extend(character.escape_debug()),
        }
    }
    if word.chars().nth(LONGEST).is_some() {
        text.push('…');
    }
    text
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failure {}

impl serde::de::Error for Failure {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(message.to_string())
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::expected(expected, Found(found))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        match found {
            Unexpected::Unsigned(number) => Self::expected(expected, number),
            Unexpected::Signed(number) => Self::expected(expected, number),
            Unexpected::Float(number) => Self::expected(expected, number),
            other => Self::expected(expected, Found(other)),
        }
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::expected(expected, format_args!("{length} members"))
    }

    fn unknown_variant(variant: &str, allowed: &'static [&'static str]) -> Self {
        Self::unknown_word(variant, allowed)
    }

    fn unknown_field(key: &str, allowed: &'static [&'static str]) -> Self {
        Self::unknown_key(key, allowed)
    }

    fn missing_field(key: &'static str) -> Self {
        Self::new(format!("the key `{key}` is missing"))
    }

    fn duplicate_field(key: &'static str) -> Self {
        Self::new(format!(
            "this gives `{key}` a second time, under another name"
        ))
        .advise(Some("keep one of the two keys"))
    }
}

/// A found value by its kind; a string is not shown, since it may be a secret.
struct Found<'a>(Unexpected<'a>);

impl fmt::Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Unexpected::Bool(true) => "`true`",
            Unexpected::Bool(false) => "`false`",
            Unexpected::Unsigned(_) | Unexpected::Signed(_) | Unexpected::Float(_) => "a number",
            Unexpected::Char(_) | Unexpected::Str(_) => "a string",
            Unexpected::Unit | Unexpected::Option => "null",
            Unexpected::Seq => "a list",
            Unexpected::Map => "an object",
            _ => "something else",
        })
    }
}

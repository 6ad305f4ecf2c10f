//! From text to the tree: JSON with comments and trailing commas.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use jsonc_parser::ast::{Object, Value as Ast};
use jsonc_parser::common::Ranged;
use jsonc_parser::errors::{ParseError, ParseErrorKind};
use jsonc_parser::{CollectOptions, ParseOptions, ParseStringErrorKind, parse_to_ast};
use serde_json::Number;

use super::failure::shortened;
use super::path::KeyPath;
use super::tree::{Entry, Value};
use super::{Configuration, Origin, Place};
use crate::{Error, ErrorKind, Result};

/// A file longer than this is no configuration.
const LONGEST: usize = 4 * 1024 * 1024;
/// Lists and objects nested deeper than this are no configuration.
const DEEPEST: usize = 64;

const OPTIONS: ParseOptions = ParseOptions {
    allow_comments: true,
    allow_trailing_commas: true,
    allow_loose_object_property_names: false,
    allow_missing_commas: false,
    allow_single_quoted_strings: false,
    allow_hexadecimal_numbers: false,
    allow_unary_plus_numbers: false,
    allow_bare_decimal_point_numbers: false,
    allow_non_finite_numbers: false,
    allow_extended_string_escapes: false,
};

impl Configuration {
    /// Reads a file; it blocks for as long as that takes.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] where the file cannot be read, is not UTF-8, is longer than 4 MiB or
    /// is not JSON with comments: with line, column, what was found and what was expected.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let refused =
            |message: String| Error::new(ErrorKind::Configuration, message).subject(path.display());
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(LONGEST as u64 + 1).read_to_end(&mut bytes))
            .map_err(|error| refused(format!("cannot be read: {error}")).caused_by(error))?;
        match String::from_utf8(bytes) {
            Ok(text) => Self::from_str(path, &text),
            Err(error) => {
                let valid = error.utf8_error().valid_up_to();
                let byte = error.as_bytes()[valid];
                let text = String::from_utf8_lossy(&error.as_bytes()[..valid]);
                let place = Cursor::new(path, &text).place(text.len());
                let message = format!("expected UTF-8 text, found the byte 0x{byte:02x}");
                Err(Error::configuration(place, message))
            }
        }
    }

    /// Reads a text as the contents of the file `path`, which is not opened.
    ///
    /// # Errors
    /// As [`Configuration::from_file`].
    pub fn from_str(path: impl AsRef<Path>, text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut cursor = Cursor::new(path.as_ref(), text);
        if text.len() > LONGEST {
            let message = "expected a file of at most 4 MiB, found a longer one";
            return Err(Error::configuration(cursor.place(0), message));
        }
        let result = parse_to_ast(text, &CollectOptions::default(), &OPTIONS)
            .map_err(|error| refusal(&error, &mut cursor))?;
        match result.value {
            Some(value) => node(value, KeyPath::default(), 0, &mut cursor),
            None => {
                let message = "expected an object, found nothing but space and comments";
                Err(Error::configuration(cursor.place(text.len()), message))
            }
        }
    }
}

/// The position in a text, counted on from the last one that was asked for.
struct Cursor<'a> {
    path: Arc<Path>,
    text: &'a str,
    offset: usize,
    line: u32,
    column: u32,
}

impl<'a> Cursor<'a> {
    fn new(path: &Path, text: &'a str) -> Self {
        Self {
            path: path.into(),
            text,
            offset: 0,
            line: 1,
            column: 1,
        }
    }

    fn origin(&mut self, offset: usize) -> Origin {
        if offset < self.offset {
            (self.offset, self.line, self.column) = (0, 1, 1);
        }
        for character in self.text[self.offset..offset].chars() {
            if character == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.offset = offset;
        Origin::File {
            path: Arc::clone(&self.path),
            line: self.line,
            column: self.column,
        }
    }

    fn place(&mut self, offset: usize) -> Place {
        Place {
            origin: self.origin(offset),
            key: String::new(),
        }
    }
}

fn node(
    value: Ast<'_>,
    path: KeyPath,
    depth: usize,
    cursor: &mut Cursor<'_>,
) -> Result<Configuration> {
    let origin = cursor.origin(value.range().start);
    let place = |path: &KeyPath| Place {
        origin: origin.clone(),
        key: path.to_string(),
    };
    let is_nesting = matches!(value, Ast::Array(_) | Ast::Object(_));
    if is_nesting && depth >= DEEPEST {
        return Err(too_deep(place(&path)));
    }
    let value = match value {
        Ast::NullKeyword(_) => Value::Null,
        Ast::BooleanLit(literal) => Value::Bool(literal.value),
        Ast::StringLit(literal) => Value::String(literal.value.into()),
        Ast::NumberLit(literal) => match number(literal.value) {
            Some(number) => Value::Number(number),
            None => {
                let found = shortened(literal.value);
                let message = format!("expected a number that fits into 64 bits, found `{found}`");
                return Err(Error::configuration(place(&path), message));
            }
        },
        Ast::Array(array) => Value::List(
            array
                .elements
                .into_iter()
                .enumerate()
                .map(|(index, item)| node(item, path.index(index), depth + 1, cursor))
                .collect::<Result<_>>()?,
        ),
        Ast::Object(object) => Value::Object(entries(object, &path, depth, cursor)?),
    };
    Ok(Configuration::new(origin, path, value))
}

/// The number that a literal stands for, to the last digit that it can hold.
fn number(literal: &str) -> Option<Number> {
    let number: Number = literal.parse().ok()?;
    if number.is_f64() {
        // `serde_json` rounds some long decimals to a neighbour of the nearest double.
        literal.parse().ok().and_then(Number::from_f64)
    } else {
        Some(number)
    }
}

fn entries(
    object: Object<'_>,
    path: &KeyPath,
    depth: usize,
    cursor: &mut Cursor<'_>,
) -> Result<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::with_capacity(object.properties.len());
    let mut seen = std::collections::HashMap::new();
    for property in object.properties {
        let origin = cursor.origin(property.name.range().start);
        let key: Arc<str> = property.name.into_string().into();
        let path = path.key(Arc::clone(&key));
        if let Some(first) = seen.insert(Arc::clone(&key), entries.len()) {
            let first = match &entries[first].origin {
                Origin::File { line, column, .. } => format!("line {line}, column {column}"),
                other => other.to_string(),
            };
            let place = Place {
                origin,
                key: path.to_string(),
            };
            let message = format!("the key `{key}` is given twice, first at {first}");
            return Err(Error::configuration(place, message).advice("keep one of the two"));
        }
        let value = node(property.value, path, depth + 1, cursor)?;
        entries.push(Entry { key, origin, value });
    }
    Ok(entries)
}

fn too_deep(place: Place) -> Error {
    let message = format!("expected at most {DEEPEST} lists and objects in each other, found more");
    Error::configuration(place, message)
}

/// The parser's error in words of ours.
fn refusal(error: &ParseError, cursor: &mut Cursor<'_>) -> Error {
    use ParseErrorKind as Kind;

    let start = error.range().start.min(cursor.text.len());
    let rest = &cursor.text[start..];
    let (expected, advice) = match error.kind() {
        Kind::NestingDepthExceeded => return too_deep(cursor.place(start)),
        Kind::UnterminatedObject => {
            return Error::configuration(cursor.place(start), "this `{` is never closed");
        }
        Kind::UnterminatedArray => {
            return Error::configuration(cursor.place(start), "this `[` is never closed");
        }
        Kind::UnterminatedCommentBlock => {
            return Error::configuration(cursor.place(start), "this `/*` is never closed");
        }
        Kind::String(kind) => return broken_string(kind, cursor.place(start)),
        Kind::MultipleRootJsonValues => ("the end of the file", None),
        Kind::ExpectedColonAfterObjectKey => ("`:` after the key", None),
        Kind::ExpectedComma => ("`,` before the next one", None),
        Kind::ExpectedObjectValue => ("a value after `:`", None),
        Kind::ExpectedStringObjectProperty | Kind::UnexpectedTokenInObject => {
            ("a key in double quotes or `}`", None)
        }
        Kind::SingleQuotedStringsNotAllowed => ("text in double quotes", None),
        Kind::HexadecimalNumbersNotAllowed
        | Kind::NonFiniteNumbersNotAllowed
        | Kind::UnaryPlusNumbersNotAllowed
        | Kind::BareDecimalPointNumbersNotAllowed
        | Kind::ExpectedDigit
        | Kind::ExpectedDigitFollowingNegativeSign
        | Kind::ExpectedPlusMinusOrDigitInNumberLiteral => {
            ("a decimal number such as `12` or `0.5`", None)
        }
        _ if rest.starts_with(char::is_alphabetic) => (
            "a value",
            Some("text stands in double quotes, and the only words are true, false and null"),
        ),
        _ => ("a value", None),
    };
    let found = found(rest);
    let message = format!("expected {expected}, found {found}");
    let error = Error::configuration(cursor.place(start), message);
    match advice {
        Some(advice) => error.advice(advice),
        None => error,
    }
}

/// What a text starts with, as messages quote it.
fn found(text: &str) -> String {
    let text = text.trim_start();
    match text.chars().next() {
        None => String::from("the end of the file"),
        Some(first) if first.is_alphanumeric() => {
            let end = |c: char| !c.is_alphanumeric() && !matches!(c, '_' | '-' | '.');
            let word: String = text.chars().take(40).take_while(|c| !end(*c)).collect();
            format!("`{word}`")
        }
        Some('"') => String::from("a string"),
        Some(first) => format!("`{}`", shortened(first.encode_utf8(&mut [0; 4]))),
    }
}

fn broken_string(kind: &ParseStringErrorKind, place: Place) -> Error {
    use ParseStringErrorKind as Kind;

    let message = match kind {
        Kind::UnterminatedStringLiteral => "this string is never closed",
        Kind::ExpectedFourHexDigits => r"expected four hexadecimal digits after `\u`",
        Kind::InvalidUnicodeEscapeSequence(_) => {
            r"expected a character after `\u`, found half of one"
        }
        _ => {
            return Error::configuration(place, r#"expected `n`, `t`, `"`, `\` or `u` after `\`"#)
                .advice(r"write `\\` for a backslash itself");
        }
    };
    Error::configuration(place, message)
}

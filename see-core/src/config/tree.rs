//! The tree itself, and how it is looked at.

use std::fmt;
use std::sync::Arc;

use serde_json::Number;

use super::path::KeyPath;
use super::{Origin, Place};

/// A value of the configuration with everything beneath it; cheap to clone.
///
/// Every value and every key knows where it was written, through merges, overrides and substitutions.
/// The debug form shows place and kind only: a value may be a secret.
///
/// ```
/// use see_core::config::Configuration;
///
/// let run = Configuration::from_str("run.json", "{\n  \"memory\": \"1GiB\" // enough\n}")?;
/// let memory = run.get("memory").unwrap();
/// assert_eq!(memory.as_str(), Some("1GiB"));
/// assert_eq!(memory.place().to_string(), "run.json:2:13: memory");
/// # Ok::<(), see_core::Error>(())
/// ```
#[derive(Clone)]
pub struct Configuration(Arc<Node>);

struct Node {
    origin: Origin,
    path: KeyPath,
    value: Value,
}

#[derive(Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(Number),
    String(Arc<str>),
    List(Vec<Configuration>),
    Object(Vec<Entry>),
}

/// A key of an object and what stands there.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) key: Arc<str>,
    /// Where the key itself stands.
    pub(super) origin: Origin,
    pub(super) value: Configuration,
}

impl Entry {
    /// The key's own place: that of a mistake in the key.
    pub(super) fn place(&self) -> Place {
        Place {
            origin: self.origin.clone(),
            key: self.value.path(),
        }
    }
}

impl Configuration {
    pub(super) fn new(origin: Origin, path: KeyPath, value: Value) -> Self {
        Self(Arc::new(Node {
            origin,
            path,
            value,
        }))
    }

    /// An object without keys, of no file: what a section that was left out means.
    pub fn empty() -> Self {
        Self::new(Origin::Program, KeyPath::default(), Value::Object(vec![]))
    }

    /// An object without keys that stands for a key which this object lacks, at this object's origin.
    #[must_use]
    pub fn empty_child(&self, key: &str) -> Self {
        let path = self.0.path.key(key.into());
        Self::new(self.0.origin.clone(), path, Value::Object(vec![]))
    }

    /// A tree that a program built: its origins say so.
    pub fn from_json(json: serde_json::Value) -> Self {
        Self::of_json(json, &Origin::Program, KeyPath::default())
    }

    pub(super) fn of_json(json: serde_json::Value, origin: &Origin, path: KeyPath) -> Self {
        use serde_json::Value as Json;
        let value = match json {
            Json::Null => Value::Null,
            Json::Bool(value) => Value::Bool(value),
            Json::Number(value) => Value::Number(value),
            Json::String(value) => Value::String(value.into()),
            Json::Array(items) => Value::List(
                items
                    .into_iter()
                    .enumerate()
                    .map(|(index, item)| Self::of_json(item, origin, path.index(index)))
                    .collect(),
            ),
            Json::Object(entries) => Value::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| {
                        let key: Arc<str> = key.into();
                        Entry {
                            value: Self::of_json(value, origin, path.key(Arc::clone(&key))),
                            key,
                            origin: origin.clone(),
                        }
                    })
                    .collect(),
            ),
        };
        Self::new(origin.clone(), path, value)
    }

    /// The same values without their origins.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value as Json;
        match self.value() {
            Value::Null => Json::Null,
            Value::Bool(value) => Json::Bool(*value),
            Value::Number(value) => Json::Number(value.clone()),
            Value::String(value) => Json::String(value.to_string()),
            Value::List(items) => items.iter().map(Self::to_json).collect(),
            Value::Object(entries) => entries
                .iter()
                .map(|entry| (entry.key.to_string(), entry.value.to_json()))
                .collect(),
        }
    }

    /// The value of a key, where this is an object that has it.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub(super) fn entry(&self, key: &str) -> Option<&Entry> {
        match self.value() {
            Value::Object(entries) => entries.iter().find(|entry| *entry.key == *key),
            _ => None,
        }
    }

    /// Where a key itself stands, where this is an object that has it.
    pub fn key_place(&self, key: &str) -> Option<Place> {
        self.entry(key).map(Entry::place)
    }

    /// The keys and values of an object, as they were written; nothing of anything else.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Self)> {
        let entries = match self.value() {
            Value::Object(entries) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().map(|entry| (&*entry.key, &entry.value))
    }

    /// The members of a list; nothing of anything else.
    pub fn items(&self) -> &[Self] {
        match self.value() {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The text of a string.
    pub fn as_str(&self) -> Option<&str> {
        match self.value() {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// Whether this is `null`.
    pub fn is_null(&self) -> bool {
        matches!(self.value(), Value::Null)
    }

    /// Whether this is an object.
    pub fn is_object(&self) -> bool {
        matches!(self.value(), Value::Object(_))
    }

    /// Whether this is a list.
    pub fn is_list(&self) -> bool {
        matches!(self.value(), Value::List(_))
    }

    /// The dotted key from the root, such as `hooks.hooks[0].name`; empty at the root.
    ///
    /// A value that was merged into another object keeps the key it was written under.
    pub fn path(&self) -> String {
        self.0.path.to_string()
    }

    /// Where the value stands.
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// Where the value stands, and its dotted key.
    pub fn place(&self) -> Place {
        Place {
            origin: self.0.origin.clone(),
            key: self.path(),
        }
    }

    /// What sort of value this is, in the words of error messages: `a list of strings`, `an empty object`.
    ///
    /// The value itself is not shown, since it may be a secret.
    pub fn kind(&self) -> &'static str {
        match self.value() {
            Value::Null => "null",
            Value::Bool(true) => "`true`",
            Value::Bool(false) => "`false`",
            Value::Number(_) => "a number",
            Value::String(text) if text.is_empty() => "an empty string",
            Value::String(_) => "a string",
            Value::Object(entries) if entries.is_empty() => "an empty object",
            Value::Object(_) => "an object",
            Value::List(items) => kind_of_list(items),
        }
    }

    pub(super) fn value(&self) -> &Value {
        &self.0.value
    }

    pub(super) fn key_path(&self) -> &KeyPath {
        &self.0.path
    }

    /// The same place with another value.
    pub(super) fn with_value(&self, value: Value) -> Self {
        Self::new(self.0.origin.clone(), self.0.path.clone(), value)
    }
}

fn kind_of_list(items: &[Configuration]) -> &'static str {
    let all = |is: fn(&Value) -> bool| items.iter().all(|item| is(item.value()));
    if items.is_empty() {
        "an empty list"
    } else if all(|value| matches!(value, Value::String(_))) {
        "a list of strings"
    } else if all(|value| matches!(value, Value::Number(_))) {
        "a list of numbers"
    } else if all(|value| matches!(value, Value::Object(_))) {
        "a list of objects"
    } else {
        "a list"
    }
}

impl Default for Configuration {
    /// An object without keys.
    fn default() -> Self {
        Self::empty()
    }
}

impl PartialEq for Configuration {
    /// Compares the values and leaves out where they came from.
    fn eq(&self, other: &Self) -> bool {
        self.to_json() == other.to_json()
    }
}

impl fmt::Debug for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Configuration({} at {})", self.kind(), self.place())
    }
}

//! Overrides of single keys: `--set a.b[0].c=value`.

use std::sync::Arc;

use super::path::KeyPath;
use super::tree::{Entry, Value};
use super::{Configuration, Origin, Place};
use crate::{Error, Result};

/// One step of a key as it is typed.
enum Step {
    Key(Arc<str>),
    Index(usize),
}

impl Configuration {
    /// Applies an override as it is typed: `context.memory=1GiB`.
    ///
    /// # Errors
    /// As [`Configuration::set`]; also where there is no `=`.
    pub fn set_assignment(&mut self, assignment: &str) -> Result<()> {
        let mut is_quoted = false;
        let equals = assignment.find(|c| {
            is_quoted ^= c == '"';
            c == '=' && !is_quoted
        });
        match equals {
            Some(equals) => self.set(&assignment[..equals], &assignment[equals + 1..]),
            None => Err(malformed(assignment, "no `=`")),
        }
    }

    /// Sets the value under a dotted key, such as `context.network.mode` or `hooks.hooks[0].required`.
    ///
    /// The value is JSON where it can be read as such, and a string otherwise. Objects on the way are made
    /// where they lack; the index behind a list's last appends to it. A key with dots in it stands in
    /// double quotes.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration), with the override as its place,
    /// where the key is malformed or leads through something that has no keys or no such member.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let steps = steps(key)?;
        let json = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        let change = Change {
            origin: Origin::Override(key.into()),
            json,
        };
        *self = change.below(self, &steps)?;
        Ok(())
    }
}

/// What an override writes.
struct Change {
    origin: Origin,
    json: serde_json::Value,
}

impl Change {
    /// The node with the change made beneath it.
    fn below(&self, node: &Configuration, steps: &[Step]) -> Result<Configuration> {
        let path = node.key_path();
        match steps {
            [] => Ok(self.written(path.clone())),
            [Step::Key(key), rest @ ..] => {
                let mut entries = match node.value() {
                    Value::Object(entries) => entries.clone(),
                    Value::Null => Vec::new(),
                    _ => return Err(self.no_way(node, "an object", &format!("key `{key}`"))),
                };
                match entries.iter_mut().find(|entry| entry.key == *key) {
                    Some(entry) => entry.value = self.below(&entry.value, rest)?,
                    None => entries.push(Entry {
                        key: Arc::clone(key),
                        origin: self.origin.clone(),
                        value: self.below(&self.nothing(path.key(Arc::clone(key))), rest)?,
                    }),
                }
                Ok(self.rebuilt(node, Value::Object(entries)))
            }
            [Step::Index(index), rest @ ..] => {
                let mut items = match node.value() {
                    Value::List(items) => items.clone(),
                    Value::Null => Vec::new(),
                    _ => return Err(self.no_way(node, "a list", &format!("member [{index}]"))),
                };
                if *index < items.len() {
                    items[*index] = self.below(&items[*index], rest)?;
                } else if *index == items.len() {
                    items.push(self.below(&self.nothing(path.index(*index)), rest)?);
                } else {
                    let message = format!(
                        "expected an index of at most {}, found [{index}]",
                        items.len()
                    );
                    return Err(Error::configuration(self.place(node), message));
                }
                Ok(self.rebuilt(node, Value::List(items)))
            }
        }
    }

    /// A container keeps its origin; one that stands where nothing was is the override's.
    fn rebuilt(&self, node: &Configuration, value: Value) -> Configuration {
        if node.is_null() {
            Configuration::new(self.origin.clone(), node.key_path().clone(), value)
        } else {
            node.with_value(value)
        }
    }

    fn nothing(&self, path: KeyPath) -> Configuration {
        Configuration::new(self.origin.clone(), path, Value::Null)
    }

    fn written(&self, path: KeyPath) -> Configuration {
        Configuration::of_json(self.json.clone(), &self.origin, path)
    }

    fn place(&self, node: &Configuration) -> Place {
        Place {
            origin: self.origin.clone(),
            key: node.path(),
        }
    }

    fn no_way(&self, node: &Configuration, expected: &str, wanted: &str) -> Error {
        let found = node.kind();
        let origin = node.origin();
        let message = format!("expected {expected} with the {wanted}, found {found} at {origin}");
        Error::configuration(self.place(node), message)
    }
}

fn steps(key: &str) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = key;
    loop {
        let step = if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted
                .find('"')
                .ok_or_else(|| malformed(key, "a quote that is not closed"))?;
            rest = &quoted[end + 1..];
            &quoted[..end]
        } else {
            let end = rest.find(['.', '[', ']', '"']).unwrap_or(rest.len());
            let step = &rest[..end];
            rest = &rest[end..];
            if step.is_empty() {
                return Err(malformed(key, "an empty key"));
            }
            step
        };
        steps.push(Step::Key(step.into()));
        while let Some(index) = rest.strip_prefix('[') {
            let parsed = index
                .split_once(']')
                .and_then(|(digits, after)| Some((digits.parse().ok()?, after)));
            let Some((index, after)) = parsed else {
                return Err(malformed(key, "an index that is no number in brackets"));
            };
            steps.push(Step::Index(index));
            rest = after;
        }
        if rest.is_empty() {
            return Ok(steps);
        }
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None => return Err(malformed(key, &format!("`{rest}` where a dot belongs"))),
        }
    }
}

fn malformed(typed: &str, found: &str) -> Error {
    let place = Place {
        origin: Origin::Override(typed.into()),
        key: String::new(),
    };
    let message = format!("expected an override such as context.memory=1GiB, found {found}");
    Error::configuration(place, message)
}
